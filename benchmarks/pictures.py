"""Draw results/*.png from results/*.json: `python -m benchmarks.pictures`, without measuring anything again."""

import json
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = ("trace s", "lower s", "compile s")


def style():
    """Return the palette and the line styles of the library's own plots."""
    from adamw_jax.plot._curves import COLORS, STYLES

    return COLORS, STYLES


def bars(axes, labels, values, xlabel, reference=None):
    """Draw one bar per label, from the top, with its value behind it."""
    if reference is not None:
        axes.axvline(reference, color="black", linewidth=0.8, zorder=0)
    drawn = axes.barh(labels, values, color=style()[0][0])
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8, bbox=box)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)


def step_time(axes, rows):
    """The ratios to the optax peer of each group, in the largest tree measured."""
    trees = [row["tree"] for row in rows]
    largest = "gpt2" if "gpt2" in trees else trees[-1]
    shown = [row for row in rows if row["tree"] == largest and row["peer"] != row["against"]]
    xlabel = f"time of an update against optax's, {largest}, {shown[0]['dtype']}"
    bars(axes, [row["peer"] for row in shown], [row["ratio"] for row in shown], xlabel, reference=1)


def memory(axes, rows):
    """Bytes of state."""
    bars(axes, [row["peer"] for row in rows], [row["state bytes/parameter"] for row in rows], "state, bytes/parameter")


def compile_time(axes, rows):
    """Tracing, lowering and compiling, one behind the other."""
    left = [0.0] * len(rows)
    for stage, color in zip(SECONDS, style()[0], strict=False):
        width = [row[stage] for row in rows]
        axes.barh([row["peer"] for row in rows], width, left=left, label=stage.removesuffix(" s"), color=color)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds, the tree {rows[0]['tree']!r}")
    axes.legend()


def scaling(axes, rows):
    """One panel per cost and what it grows with, one line per peer."""
    colors, styles = style()
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    panels = list(dict.fromkeys((row["cost"], row["against"]) for row in rows))
    for panel, (cost, against) in zip(axes.flat, panels, strict=True):
        for row in rows:
            if (row["cost"], row["against"]) == (cost, against):
                xs, ys = ([float(number) for number in row[key].split(", ")] for key in ("at", "s"))
                index = peers.index(row["peer"])
                milliseconds = [1e3 * y for y in ys]
                panel.plot(xs, milliseconds, "o", color=colors[index], linestyle=styles[index], label=row["peer"])
        panel.set_xticks(xs, [f"{x / 1e6:.0f}M" if x > 1e6 else f"{x:.0f}" for x in xs])
        panel.set(xlim=(0, None), ylim=(0, None), xlabel=against, ylabel=f"{cost}, ms")
    axes.flat[0].legend(fontsize=8)


def quality(axes, rows):
    """Distances of the final losses from float32's, in the standard deviations over its seeds."""
    labels = [f"{row['problem']}: {row['moments']}" for row in rows]
    axes.axvspan(-1, 1, color=style()[0][5], alpha=0.25, linewidth=0, label="one standard deviation")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.plot([row["distance from float32 in its standard deviations"] for row in rows], labels, "o", color="black")
    axes.invert_yaxis()
    axes.set_xlabel("final loss: distance from float32's, in standard deviations")
    axes.legend(fontsize=8, loc="lower right")


def keras_step(axes, rows):
    """The ratios to Keras's own optimizer, one panel per model."""
    colors = style()[0]
    costs = ("trace", "compile", "train_on_batch", "fit")
    models = list(dict.fromkeys(row["model"] for row in rows))
    for panel, model in zip(axes.flat, models, strict=True):
        shown = [row for row in rows if row["model"] == model][1:]
        for index, cost in enumerate(costs):
            at = [place + 0.2 * index for place in range(len(shown))]
            panel.barh(at, [row[cost] for row in shown], height=0.18, label=cost, color=colors[index])
        panel.set_yticks([place + 0.3 for place in range(len(shown))], [row["optimizer"] for row in shown])
        panel.axvline(1, color="black", linewidth=0.8)
        panel.invert_yaxis()
        panel.set_title(model, fontsize=10)
        panel.set_xlabel("ratio to keras.optimizers.AdamW")
    axes.flat[1].tick_params(labelleft=False)
    axes.flat[1].legend(fontsize=8)


def compiled_h100(axes, rows):
    """Bytes that one update moves: the bound, and optax's and this library's programs."""
    colors = style()[0]
    places = range(len(rows))
    bounds = [row["bound, bytes/parameter"] for row in rows]
    for label, color, theirs in (("optax, compiled", colors[1], True), ("adamw_jax, compiled", colors[0], False)):
        shown = [place for place in places if rows[place]["optimizer"].startswith("optax") == theirs]
        axes.barh(shown, [rows[place]["bytes/parameter"] for place in shown], color=color, height=0.7, label=label)
    axes.plot(bounds, places, "|", color="black", markersize=14, markeredgewidth=1.5, label="bound")
    axes.set_yticks(places, [row["optimizer"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("bytes per parameter of an update, compiled for an H100")
    axes.legend(fontsize=8, loc="lower right")


PICTURES = {
    "step_time": (step_time, (7, 4.5), (1, 1)),
    "step_time_bfloat16": (step_time, (7, 2.5), (1, 1)),
    "compile_time": (compile_time, (7, 3), (1, 1)),
    "memory": (memory, (7, 3.5), (1, 1)),
    "scaling": (scaling, (9, 6), (2, 2)),
    "quality": (quality, (7, 4), (1, 1)),
    "compiled_h100": (compiled_h100, (7, 5.5), (1, 1)),
    "keras_step": (keras_step, (11, 5), (1, 2)),
}
"""The function that draws, the size in inches, rows and columns of axes."""


def plot(name, function, size=(7, 4), grid=(1, 1)):
    """Let `function(axes)` draw results/<name>.png, a grid of axes; without matplotlib there is no picture."""
    if not find_spec("matplotlib"):
        return
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(*grid, figsize=size, layout="constrained")
    function(axes)
    figure.savefig(HERE / "results" / f"{name}.png", dpi=110)
    plt.close(figure)


def rows_of(name):
    """Return the rows that were measured."""
    return json.loads((HERE / "results" / f"{name}.json").read_text())["rows"]


def draw(name):
    """Draw one picture of the results that there are."""
    function, size, grid = PICTURES[name]
    plot(name, lambda axes: function(axes, rows_of(name)), size, grid)


if __name__ == "__main__":
    for each in PICTURES:
        draw(each)
