"""The pictures of the study, from results/decoupling/*.json."""

import shutil

import numpy as np

from benchmarks.decoupling.grids import load
from benchmarks.decoupling.rotation import predicted
from benchmarks.decoupling.tables import slope
from benchmarks.pictures import HERE, plot, style
from examples import maps

PAGES = HERE.parent / "docs" / "pictures"


def front_page():
    """Draw docs/pictures/decoupling.png: the two maps side by side."""
    ((_, found),) = load("maps").values()
    means = {form: np.asarray(losses).mean(-1) for form, losses in found["loss"].items()}
    maps.draw(maps.titles(means), PAGES / "decoupling.png")


def rotation(ax):
    """Draw the angle per update over the rate, the paper's form against Adam + L2, with the prediction."""
    ((_, found),) = load("rotation").values()
    colors = style()[0]
    measured = found["AdamW"]
    angles = np.degrees(np.asarray(measured["angle"]).mean((-1, -2)))
    for index, decay in enumerate(measured["decay"]):
        ax.axhline(np.degrees(predicted(decay)), color="black", linewidth=1, linestyle=":")
        label = "AdamW, the paper's form" if index == 0 else None
        ax.plot(measured["rate"], angles[:, index], "o-", color=colors[0], label=label)
        ax.annotate(
            f"decay {decay:.2g}", (measured["rate"][-1], angles[-1, index]), (6, -13), textcoords="offset points"
        )
    peer = found["Adam + L2"]
    angles = np.degrees(np.asarray(peer["angle"]).mean((-1, -2))[:, 0])
    ax.plot(peer["rate"], angles, "s--", color=colors[1], label=f"Adam + L2, decay {peer['decay'][0]:.2g}")
    ax.plot([], [], ":", color="black", label="predicted for AdamW")
    ax.set(xscale="log", yscale="log", xlim=(None, 0.08), xlabel="learning rate")
    ax.set_ylabel("turn of a kernel per update (degrees)")
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    ax.legend(fontsize=9, loc="lower right")
    ax.set_title("The rate does not change how fast AdamW turns a normalized weight")


def separable(axes):
    """Draw the slopes of every regime on error and loss: 0 means that rate and decay are tuned apart."""
    colors = style()[0]
    regimes = load("grid")
    forms = {
        "the paper's form": ("AdamW", 0.0, colors[0], "o"),
        "times the rate": ("AdamW", -1.0, colors[1], "s"),
        "Adam + L2": ("Adam + L2", 0.0, colors[2], "^"),
    }
    for ax, kind in zip(axes.flat, ("error", "loss"), strict=True):
        ax.axvline(0, color="black", linewidth=1)
        for place, (_, found) in enumerate(regimes.values()):
            for shift, (name, (form, plus, color, marker)) in zip((-0.22, 0.0, 0.22), forms.items(), strict=True):
                if form not in found:
                    continue
                middle, ends = slope(found[form], f"validation {kind}")
                ax.plot(np.asarray(ends) + plus, [place + shift] * 2, color=color, linewidth=1.5)
                ax.plot(middle + plus, place + shift, marker, color=color, label=name if place == 0 else None)
        ax.set_yticks(range(len(regimes)), list(regimes) if kind == "error" else [""] * len(regimes))
        ax.set(xlim=(-3.2, 3.2), ylim=(len(regimes) - 0.5, -0.5), title=f"on validation {kind}")
        ax.set_xlabel("power of the rate by which the best decay moves")
        ax.grid(axis="x", alpha=0.3)
    axes.flat[0].legend(fontsize=9, loc="center right")


def restarts(axes):
    """Draw the test error on the way, a panel per regime."""
    for ax, (title, (_, found)) in zip(axes.flat, load("restarts").items(), strict=True):
        for color, (name, errors) in zip(style()[0], found["test error"].items(), strict=False):
            errors = np.asarray(errors, float)
            times = found["every"] * np.arange(1, errors.shape[1] + 1)
            mean, deviation = errors.mean(0), errors.std(0, ddof=1)
            ax.plot(times, mean, color=color, label=name)
            ax.fill_between(times, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
        for end in (found["shortest"], 3 * found["shortest"]):
            ax.axvline(end, color="0.7", linewidth=1, zorder=0)
        ax.set(title=title, xlabel="updates (grey: restarts)", ylabel="test error (%)")
        ax.legend(fontsize=9)


def valley(ax, decays, losses, color, label):
    """Draw how far the losses over the decay are from their smallest."""
    ax.semilogx(decays, losses - losses.min(), color=color, label=label)
    ax.plot(decays[losses.argmin()], 0, "o", color=color, clip_on=False, zorder=3)


PLAIN = {
    "again and again, 20 % by lot": "many passes, one label in five at random",
    "again and again": "many passes, true labels",
    "one pass": "one pass, every example fresh",
}
"""Name of a kind of examples in the results -> its title in the picture."""


def budgets(axes):
    """Draw the valleys of all budgets, a panel per kind of examples."""
    for ax, (title, (_, found)) in zip(axes.flat, load("budgets").items(), strict=True):
        for color, length, values in zip(style()[0], found["lengths"], found["values"], strict=False):
            losses = np.asarray(values["validation loss"], float).mean(-1)
            valley(ax, found["decays"], losses, color, f"{length} updates")
        ax.set_title(PLAIN[title], fontsize=11)
        ax.set(xlabel="weight decay", ylim=(0, 0.15))
    axes.flat[0].set_ylabel("validation loss above the best\nof the same number of updates")
    axes.flat[0].legend(fontsize=9)


def sizes(axes):
    """Draw the valleys of all batches and widths, the rate chosen for each decay, a panel per study."""
    for ax, (title, (_, found)) in zip(axes.flat, load("sizes").items(), strict=True):
        for color, (factor, measured) in zip(style()[0], found.items(), strict=False):
            losses = np.asarray(measured["values"]["validation loss"], float).mean(-1).min(0)
            valley(ax, measured["decay"], losses, color, f"{title.split(',')[0]} x {factor}")
        ax.set(title=title, xlabel="weight decay, the paper's form", ylim=(0, 0.15))
        ax.legend(fontsize=9)
    axes.flat[0].set_ylabel("validation loss above the best\nof the same size")


def width(axes):
    """Draw the validation loss over the rate for every width, a row per network, a panel per form."""
    for row, (title, (_, found)) in zip(axes, load("width").items(), strict=False):
        for ax, form in zip(row, found["values"]["1"], strict=False):
            for color, (factor, forms) in zip(style()[0], found["values"].items(), strict=False):
                losses = np.asarray(forms[form]["validation loss"], float).mean(-1)
                ax.semilogx(found["rates"], losses, color=color, label=f"width x {factor}")
                ax.plot(found["rates"][np.nanargmin(losses)], np.nanmin(losses), "o", color=color)
            ax.set(title=f"{title}\n{form}", xlabel="learning rate")
            ax.sharey(row[0])
        row[0].set_ylabel("validation loss")
        low = min(
            np.nanmin(np.asarray(each["validation loss"], float).mean(-1))
            for forms in found["values"].values()
            for each in forms.values()
        )
        row[0].set_ylim(0.97 * low, 1.35 * low)
        row[0].legend(fontsize=9)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())


PICTURES = {
    "rotation": (rotation, (7, 4.5), (1, 1)),
    "grid": (separable, (11, 7), (1, 2)),
    "restarts": (restarts, (10, 4), (1, 2)),
    "budgets": (budgets, (11, 3.8), (1, 3)),
    "sizes": (sizes, (11, 3.8), (1, 3)),
    "width": (width, (11, 7), (2, 3)),
}
"""Part -> the function that draws, the size in inches, rows and columns of axes."""


def draw_all():
    """Draw docs/pictures/decoupling.png and results/decoupling_*.png."""
    if load("maps"):
        front_page()
    for part, (function, size, shape) in PICTURES.items():
        if load(part):
            plot(f"decoupling_{part}", function, size, shape)
            if part in ("rotation", "budgets"):
                shutil.copy(HERE / "results" / f"decoupling_{part}.png", PAGES / f"{part}.png")
