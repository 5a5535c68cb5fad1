"""The tables of docs/evidence/transfer.md, and its picture, from what was trained."""

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.pictures import HERE, style
from benchmarks.report import table
from benchmarks.transfer import coordinates
from benchmarks.transfer.fits import intervals
from benchmarks.transfer.plan import TARGETS, by_default, mean_of

DOCS = HERE.parent / "docs"
PAGE, PICTURE = DOCS / "evidence" / "transfer.md", DOCS / "pictures" / "transfer.png"


def reported(points, label):
    """Return {seed: loss} of a label, of the windows and seeds that had no part in a choice."""
    return {p["seed"]: p["reported"] for p in points if p["label"] == label and p["seed"] >= 100}


def beyond(points, label, against):
    """Return by how much a label's loss is above another's, over the seeds that both have, as text."""
    ours, theirs = reported(points, label), reported(points, against)
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return "-"
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    if len(seeds) == 1:
        return f"{differences[0]:+.3f}, one seed"
    return f"{differences.mean():+.3f} ± {differences.std(ddof=1) / len(seeds) ** 0.5:.3f}"


def loss(points, label):
    found = list(reported(points, label).values())
    return f"{np.mean(found):.3f}" if found else "-"


def moved(points, name, key):
    """Return how far the best number lies from the default's, with its interval of 90 %, as text."""
    rows = [p for p in points if p["label"] == f"{name}, tuning"]
    tuned = [p[key] for p in points if p["label"] == f"{name}, tuned"]
    if not tuned:
        return "-"
    center = by_default(base_of(points), TARGETS[name])[key]
    columns = ([p[k] for p in rows] for k in ("rate", "decay", "tuning"))
    low, high = intervals(*columns)[("rate", "decay").index(key)]
    return f"x {tuned[0] / center:.2f} [{low / center:.2f}, {high / center:.2f}]"


def base_of(points):
    return next(p for p in points if p["label"] == "base, best")


def targets(points):
    """Return a row per target: the loss at its own best pair, and by how much the others are above it."""
    return [
        {
            "change": name if name != "all" else "width x 2, depth x 2, batch x 4, tokens x 4",
            "tuned": loss(points, f"{name}, tuned"),
            "default rule": beyond(points, f"{name}, default", f"{name}, tuned"),
            "left as it was": beyond(points, f"{name}, left", f"{name}, tuned"),
            "best rate / the rule's": moved(points, name, "rate"),
            "best decay / the rule's": moved(points, name, "decay"),
        }
        for name in TARGETS
        if reported(points, f"{name}, default")
    ]


def others(points):
    """Return a row per other rule: by how much it is above the default rule."""
    rows = []
    for name in TARGETS:
        labels = dict.fromkeys(p["label"] for p in points if p["label"].startswith(f"{name}, "))
        for label in labels:
            rule = label.removeprefix(f"{name}, ")
            if rule not in ("default", "left", "tuned", "tuning", "one rate", "curve"):
                above = beyond(points, label, f"{name}, default")
                rows.append({"change": name, "rule": rule, "above the default": above})
    return rows


def directions(points):
    """Return a row per optimizer: the loss at the base, and at four times the width in two ways."""
    rows = []
    for optimizer, title in {"held": "Adam, norms held", "muon": "Muon on the blocks"}.items():
        found = {
            way: [p["tuning"] for p in points if p["label"] == f"{optimizer}, {way}"]
            for way in ("base", "width x 4, kept", "width x 4, / m")
        }
        if found["base"]:
            base, kept, divided = (f"{min(losses):.3f}" if losses else "-" for losses in found.values())
            rows.append({"optimizer": title, "base": base, "rate kept": kept, "matrices' rate / 4": divided})
    return rows


def curve(points, labels, **where):
    """Return rates and mean losses of labels, at the decay that most of the points have."""
    rows = [p for p in points if p["label"] in labels and all(np.isclose(p[k], v, rtol=0.06) for k, v in where.items())]
    rates = sorted({f"{p['rate']:.4g}": p["rate"] for p in rows}.values())
    return rates, [np.mean([p["tuning"] for p in rows if np.isclose(p["rate"], r)]) for r in rates]


def draw(points):
    """Draw the loss over the rate at three widths, left and transferred, and the size of updates over widths."""
    figure, (left, right, sizes) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    right.sharey(left)
    colors = style()[0]
    base = base_of(points)
    decay = base["decay"]
    narrow = curve(points, ["base"], decay=decay)
    for axes, kind in ((left, "left"), (right, "transferred")):
        axes.plot(*narrow, "o-", color=colors[0], label="32 (tuned)")
        for color, factor in zip(colors[1:], (2, 4), strict=False):
            name = f"width x {factor}"
            labels = [f"{name}, one rate"] if kind == "left" else [f"{name}, tuning", f"{name}, curve"]
            rates, losses = curve(points, labels, decay=decay)
            if rates:
                axes.plot(rates, losses, "o-", color=color, label=str(32 * factor))
        axes.axvline(base["rate"], color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="learning rate", xlim=(0.002, 0.023))
        axes.set_xticks([0.0025, 0.005, 0.01, 0.02], ["0.0025", "0.005", "0.01", "0.02"])
        axes.minorticks_off()
    left.set(title="one rate for all leaves", ylabel="loss, nats", ylim=(None, 2.25))
    right.set(title="matrices' rate / m_N (transfer)")
    left.legend(title="width")
    for name, marker in (("left as it was", "s--"), ("transferred", "o-")):
        color = colors[1] if marker == "s--" else colors[0]
        found = []
        for width in coordinates.WIDTHS:
            rules = coordinates.multipliers(width)
            rules = rules if marker == "o-" else dict.fromkeys(rules, 1.0)
            found.append(float(coordinates.changes(width, rules)["hidden"][-1]))
        sizes.plot(coordinates.WIDTHS, np.array(found) / found[0], marker, color=color, label=name)
    sizes.set(xscale="log", yscale="log", xlabel="width of an MLP", title="change of a layer's outputs per update")
    sizes.set_xticks(coordinates.WIDTHS, [str(width) for width in coordinates.WIDTHS])
    sizes.set_yticks([1, 2, 4, 8], ["x 1", "x 2", "x 4", "x 8"])
    sizes.minorticks_off()
    sizes.legend()
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def publish(points):
    """Put the tables between their marks on the page, and draw the picture."""
    text = PAGE.read_text()
    for name, rows in {"targets": targets(points), "others": others(points), "directions": directions(points)}.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if rows and begin in text:
            head, tail = text.split(begin)[0], text.split(end)[1]
            text = f"{head}{begin}\n{table(rows)}\n{end}{tail}"
            print(table(rows))
    PAGE.write_text(text)
    draw(points)
    seconds = sum(p["seconds"] for p in points)
    print(f"{len(points)} trainings, {seconds:.0f} s; branch 1: {mean_of(points, 'probe', branch=1.0):.3f}")
