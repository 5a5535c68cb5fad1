"""A sweep over two hyperparameters as a heat map."""

from collections.abc import Callable
from typing import Any

import chex
import matplotlib.patches
import matplotlib.pyplot as plt
import numpy as np

from adamw_jax._devices.sweep import Sweep


def heat_map(
    runs: Sweep,
    of: Callable[[Any], chex.Array] = lambda values: values,
    *,
    label: str | None = None,
    largest: bool = False,
    ax: Any = None,
) -> Any:
    """Draw the scores of a sweep over two hyperparameters, with the best cell marked.

    Args:
      runs: from `sweep`, with two axes.
      of: values -> the score of each run.
      label: what the scores are; None is "loss", or with `largest` "score".
      largest: whether more is better. Dark is good either way.
      ax: where to draw; None makes a figure.

    Returns:
      The matplotlib axes; rows are the first hyperparameter, columns the second.

    Raises:
      ValueError: another number of axes, or scores of another shape.
    """
    if len(runs.axes) != 2:
        raise ValueError(f"`runs` must have two axes to be drawn, got {list(runs.axes)}")
    best = runs.points.index(runs.best(of, largest=largest))
    scores = np.asarray(of(runs.values))
    (row_name, rows), (column_name, columns) = runs.axes.items()
    if ax is None:
        _, ax = plt.subplots(figsize=(1.5 + 0.7 * len(columns), 1.2 + 0.5 * len(rows)), layout="constrained")
    image = ax.imshow(scores, aspect="auto", cmap="viridis_r" if largest else "viridis")
    name, good = (label or "score", "larger") if largest else (label or "loss", "smaller")
    ax.figure.colorbar(image, ax=ax, label=f"{name} (dark: {good}, better)")
    ax.set_xticks(range(len(columns)), [f"{value:.3g}" for value in columns], rotation=45)
    ax.set_yticks(range(len(rows)), [f"{value:.3g}" for value in rows])
    ax.set_xlabel(column_name)
    ax.set_ylabel(row_name)
    for (row, column), score in np.ndenumerate(scores):
        luminance = np.dot(image.to_rgba(score)[:3], (0.299, 0.587, 0.114))
        ink = "black" if luminance > 0.5 else "white"
        ax.text(column, row, f"{score:.3g}", ha="center", va="center", fontsize=7, color=ink)
    row, column = divmod(best, len(columns))
    ax.add_patch(
        matplotlib.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=2)
    )
    return ax
