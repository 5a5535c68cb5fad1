"""Heat maps: a sweep over two hyperparameters, and a run as layers x time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import matplotlib.patches
import matplotlib.pyplot as plt
import numpy as np

from adamw_jax._devices.sweep import Sweep
from adamw_jax._explain.reported import QUANTITIES, Report
from adamw_jax._tree import checks


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
    ax.set(xlabel=column_name, ylabel=row_name)
    for (row, column), score in np.ndenumerate(scores):
        luminance = np.dot(image.to_rgba(score)[:3], (0.299, 0.587, 0.114))
        ink = "black" if luminance > 0.5 else "white"
        ax.text(column, row, f"{score:.3g}", ha="center", va="center", fontsize=7, color=ink)
    row, column = divmod(best, len(columns))
    corner = column - 0.5, row - 0.5
    ax.add_patch(matplotlib.patches.Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2))
    return ax


def _of_reports(reports: Sequence[Report], of: str) -> tuple[dict[str, list[float]], list[int]]:
    paths = [row["path"] for row in reports[0].rows]
    for each in reports:
        if [row["path"] for row in each.rows] != paths:
            raise ValueError(f"`history` must be reports of the same parameters, {paths}, got others")
    columns = {path: [each.rows[i][of] for each in reports] for i, path in enumerate(paths)}
    return columns, [each.observed for each in reports]


def _of_mapping(logged: Mapping[str, Any], of: str) -> tuple[dict[str, list[float]], list[int]]:
    ending = f"/{of}"
    columns = {key.removesuffix(ending): list(values) for key, values in logged.items() if key.endswith(ending)}
    lengths = set(map(len, columns.values()))
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"`history` must have keys 'path{ending}' with as many numbers each, got {list(logged)}")
    return columns, list(range(1, lengths.pop() + 1))


def steps(history: Any, *, of: str = "ratio", ax: Any = None) -> Any:
    """Draw what a run did to every parameter: one row a parameter, time from left to right, colours logarithmic.

    Args:
      history: what `report` returned along the run, in its order; or {"path/ratio": numbers}, as a logger has it; or
        what `keras.Model.fit` returned, with the reports in its history.
      of: "ratio", "angle", "step_rms", "gradient_rms" or "weight_rms".
      ax: where to draw; None makes a figure.

    Returns:
      The matplotlib axes. Zeros and numbers that are not finite are grey.

    Raises:
      TypeError, ValueError: no reports, reports of different parameters, an unknown quantity.

    >>> from adamw_jax._explain.reported import Report
    >>> row = {"path": "w", "weight_rms": 1.0, "gradient_rms": 1.0, "step_rms": 0.1, "ratio": 0.1, "angle": 0.0}
    >>> ax = steps([Report([row], 10), Report([row], 20)])
    >>> print(ax.get_xlabel(), "-", ax.get_yticklabels()[0].get_text())
    update - w
    """
    checks.check_choice("of", of, QUANTITIES)
    history = getattr(history, "history", history)
    by_update = not isinstance(history, Mapping)
    if by_update and not (isinstance(history, Sequence) and history and all(isinstance(x, Report) for x in history)):
        raise TypeError(
            f"`history` must be a list of reports, one at least, or what a logger or Keras kept, got {history!r}"
        )
    columns, times = _of_reports(history, of) if by_update else _of_mapping(history, of)
    values = np.asarray(list(columns.values()), float)
    shown = np.ma.masked_invalid(np.where(values > 0, values, np.nan))
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 1.2 + 0.22 * len(columns)), layout="constrained")
    colours = plt.get_cmap("viridis").with_extremes(bad="0.7")
    image = ax.imshow(np.ma.log10(shown), aspect="auto", cmap=colours, interpolation="nearest")
    quantity = "the angle (radians)" if of == "angle" else of.replace("_", " ")
    ax.figure.colorbar(image, ax=ax, label=f"log10 of {quantity}")
    at = np.unique(np.linspace(0, len(times) - 1, min(len(times), 8)).round().astype(int))
    ax.set_xticks(at, [f"{times[i]:,}" for i in at])
    ax.set_yticks(range(len(columns)), list(columns), fontsize="small")
    ax.set_xlabel("update" if by_update else "record")
    return ax
