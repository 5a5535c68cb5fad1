"""The picture of `digits.py`."""

import matplotlib.pyplot as plt
import numpy as np


def draw(path, maps, rates, decays, rows):
    """Write the picture: the sweeps, and the errors at the best pairs and when the rate alone is raised.

    Args:
      path: of the picture.
      maps: {optimizer: validation errors (rate, decay)}, in percent.
      rates, decays: the axes: {optimizer: rates}, and decays for all.
      rows: {optimizer: {"test error", "raised": one value per seed}}.
    """
    figure = plt.figure(figsize=(13, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = below.subplots(1, len(maps), sharex=True)
    smallest = min(errors.min() for errors in maps.values())
    for ax, (name, errors) in zip(axes, maps.items(), strict=True):
        image = ax.imshow(errors, cmap="viridis", vmin=smallest, vmax=30, aspect="auto", origin="lower")
        row, column = np.unravel_index(errors.argmin(), errors.shape)
        ax.plot(column, row, "o", color="white", markerfacecolor="none", markersize=13, markeredgewidth=2)
        ax.set_xticks(range(0, len(decays), 2), [f"{decay:g}" for decay in decays[::2]], fontsize=8)
        ax.set_yticks(range(len(rates[name])), [f"{rate:.2g}" for rate in rates[name]], fontsize=8)
        ax.set(title=name, xlabel="weight decay")
    axes[0].set_ylabel("learning rate")
    below.colorbar(image, ax=axes, label="validation error % (dark is good)", extend="max")
    below.suptitle("How the pairs were found: the same sweep for each, the ring is its best pair", fontsize=12)
    bars = above.subplots()
    names = list(rows)
    for offset, key, color, label in (
        (-0.2, "test error", "#0072B2", "at the best pair"),
        (0.2, "raised", "#D55E00", "3.2 times the rate, the same decay"),
    ):
        values = [np.mean(row[key]) for row in rows.values()]
        spread = [np.std(row[key], ddof=1) for row in rows.values()]
        bars.barh(np.arange(len(names)) + offset, values, 0.38, xerr=spread, color=color, label=label, capsize=3)
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    bars.legend(loc="upper right", fontsize=9)
    bars.set_xlim(right=1.5 * max(np.mean(row["raised"]) for row in rows.values()))
    bars.set(
        xlabel="test error (%), mean and deviation over seeds",
        title="What each reaches at its best pair, and what is left when the rate alone is raised",
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
