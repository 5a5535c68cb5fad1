"""The table and the picture of the study, from results/averages/*.json; nothing is measured here."""

import numpy as np

from benchmarks.averages.arms import LAST
from benchmarks.averages.grids import STUDIED, load
from benchmarks.decoupling.figures import paired
from benchmarks.pictures import HERE, style
from benchmarks.report import README, table

PICTURE = HERE.parent / "docs" / "pictures" / "averages.png"
PAGE = HERE.parent / "docs" / "evidence" / "averages.md"
SHOWN = [
    ("constant", LAST),
    ("constant", "Ema 3%"),
    ("constant", "Ema 12%"),
    ("constant", "DecayMerge 20%"),
    ("cosine", LAST),
    ("cosine", "Ema 12%"),
    ("linear", LAST),
    ("stable, decay", LAST),
    ("stable, decay", "Ema 12%"),
    ("restarts", "CycleMean"),
]
"""The rows on the page."""


def losses_of(found, schedule, name):
    return np.asarray(found["schedules"][schedule][name]["values"]["test loss"], float)


def compared(found, schedule, name):
    """Return the mean test loss of an arm with its standard error, and the paired difference from cosine's."""
    losses, peer = (losses_of(found, *arm) for arm in ((schedule, name), ("cosine", LAST)))
    return (losses.mean(), losses.std(ddof=1) / len(losses) ** 0.5), paired(losses, peer)


def written(found, schedule, name):
    """Return an arm's difference from cosine with its error and p, as text; of cosine its loss."""
    (mean, error), (difference, spread, p) = compared(found, schedule, name)
    if (schedule, name) == ("cosine", LAST):
        return f"{mean:.3f} ± {error:.3f}"
    return f"{difference:+.3f} ± {spread:.3f} ({p:.3f})"


def matrix(measured, arms):
    """Return a row per arm and a column per regime."""
    return [
        {"schedule": schedule, "weights": name}
        | {title: written(found, schedule, name) for title, (_, found) in measured.items()}
        for schedule, name in arms
    ]


def draw(measured, arms):
    """Draw the differences from cosine with two standard errors, a panel per regime."""
    import matplotlib.pyplot as plt

    colors = dict(zip(dict.fromkeys(schedule for schedule, _ in arms), style()[0], strict=False))
    figure, axes = plt.subplots(1, len(measured), figsize=(14, 5.5), sharey=True, layout="constrained")
    for ax, (title, (_, found)) in zip(axes, measured.items(), strict=True):
        ax.axvline(0, color="black", linewidth=0.8)
        for place, (schedule, name) in enumerate(arms):
            (mean, _), (difference, error, _) = compared(found, schedule, name)
            unit = 100 / (mean - difference)
            marker = "o" if name == LAST else "s"
            ax.errorbar(unit * difference, place, xerr=2 * unit * error, fmt=marker, color=colors[schedule])
        ax.set(title=title, xlabel="% of cosine's loss")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(arms)), [f"{schedule}: {name}" for schedule, name in arms])
    axes[0].invert_yaxis()
    figure.suptitle("Test loss beyond a cosine's last weights (left is better), with two standard errors")
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def said(facts):
    """Return the command, the machine and the seconds of what was measured, as text."""
    wall, cpu = (sum(each[key] for each in facts) for key in ("wall s", "CPU s"))
    machine = "{processor}, {cores} cores, jax {versions[jax]}, optax {versions[optax]}".format(**facts[0])
    loads = [each["load"] for each in facts]
    return f"`python -m benchmarks.averages` on {machine}; load {min(loads)} to {max(loads)}; {wall} s, {cpu} CPU s"


def publish():
    """Put the tables between their marks on the pages, and draw the picture."""
    found = load("best")
    measured = {title: found[title] for title in STUDIED if title in found}
    first = next(iter(measured.values()))[1]["schedules"]
    arms = [(schedule, name) for schedule, each in first.items() for name in each]
    facts = [facts for part in ("grid", "best") for title, (facts, _) in load(part).items() if title in measured]
    whole = f"{said(facts)}:\n\n{table(matrix(measured, arms))}"
    for page, text in ((README, whole), (PAGE, table(matrix(measured, SHOWN)))):
        begin, end = "<!-- averages -->", "<!-- /averages -->"
        head, tail = page.read_text().split(begin)[0], page.read_text().split(end)[1]
        page.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
    print(whole)
    draw(measured, [(schedule, name) for schedule, name in arms if schedule == "constant" or "Merge" not in name])
