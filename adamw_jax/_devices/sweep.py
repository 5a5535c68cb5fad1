"""A grid of hyperparameters as one vmapped program."""

import dataclasses
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar

Grid = Mapping[str, Sequence[Scalar]] | Sequence[Mapping[str, Scalar]]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Result of `sweep`: values with labelled axes.

    Attributes:
      axes: name -> values, one entry per leading axis of the results; of a list of points the one axis "point".
      points: the hyperparameters of every run, in the order of the flattened leading axes.
      values: the results of the training function, a tree of arrays (*axes, ...).
    """

    axes: dict[str, list[Any]]
    points: list[dict[str, Any]]
    values: chex.ArrayTree

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each axis."""
        return tuple(len(values) for values in self.axes.values())

    def best(self, of: Callable[[Any], chex.Array] = lambda values: values, *, largest: bool = False) -> dict[str, Any]:
        """Return the point with the smallest score, or the largest; a score of nan is the worst.

        Args:
          of: values -> the score of each run, of shape `shape`.
          largest: whether the largest score is the best.

        Raises:
          ValueError: scores of another shape; nan for all runs.
        """
        scores = np.asarray(of(self.values))
        if scores.shape != self.shape:
            raise ValueError(f"`of` must return one score per run, shape {self.shape}, got {scores.shape}")
        if np.isnan(scores).all():
            raise ValueError("`of` must return a score that is not nan for one run at least, got nan for all")
        return self.points[int(np.nanargmax(scores) if largest else np.nanargmin(scores))]


def _points(grid: Any) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    if isinstance(grid, Mapping):
        axes = {name: list(values) for name, values in grid.items()}
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    else:
        points = [dict(point) for point in grid]
        axes = {"point": list(range(len(points)))}
    if not points or not points[0]:
        raise ValueError(f"`grid` must have at least one point with one hyperparameter, got {grid!r}")
    for point in points:
        if point.keys() != points[0].keys():
            raise ValueError(
                f"`grid` must name the same hyperparameters in all points, got {list(points[0])} and {point}"
            )
        for name, value in point.items():
            checks.check_number(f"grid {name}", value)
    return axes, points


def _stack(points: Sequence[Mapping[str, Any]]) -> dict[str, chex.Array]:
    least, largest = -checks.MAX_COUNT - 1, checks.MAX_COUNT
    stacked = {}
    for name in points[0]:
        column = np.asarray([point[name] for point in points])
        is_whole = np.issubdtype(column.dtype, np.integer)
        if is_whole and (wide := column[(column > largest) | (column < least)]).size:
            raise ValueError(
                f"`grid` must have integers that int32 holds, from {least} to {largest}, got {name}={wide[0]}: fold a "
                "longer seed into this range, or give it as a float"
            )
        stacked[name] = jnp.asarray(column, jnp.int32 if is_whole else jnp.result_type(float))
    return stacked


def _bytes_needed(compiled: Any) -> int:
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes + analysis.argument_size_in_bytes)


def _bytes_free() -> float:
    statistics = jax.local_devices()[0].memory_stats() or {}
    return 0.9 * float(statistics.get("bytes_limit", math.inf) - statistics.get("bytes_in_use", 0))


def _with_bar(chunks: Sequence[Any], progress: bool) -> Iterable[Any]:
    if not progress or len(chunks) == 1 or importlib.util.find_spec("tqdm") is None:
        return chunks
    bar: Iterable[Any] = importlib.import_module("tqdm").tqdm(chunks, desc="sweep", unit="chunk", disable=None)
    return bar


def sweep(
    train: Callable[..., chex.ArrayTree],
    grid: Grid,
    *,
    chunk_size: int | None = None,
    memory_limit: float | None = None,
    progress: bool = True,
) -> Sweep:
    """Train once per point of a grid, all points at the same time in one program.

    Args:
      train: train(**hyperparameters) -> results, a tree of arrays, in operations that `jax.vmap` supports. It is traced
        once, with a JAX scalar for each hyperparameter (int32 where all values are integers), as presets accept it.
      grid: {name: values} for all combinations; or a sequence of points {name: value}.
      chunk_size: runs at the same time; copies of the last point fill up the last chunk, so that there is one program.
        None: all, or half as many, a quarter, ... until the program fits into `memory_limit`.
      memory_limit: bytes that the compiled program may need; None: 90 % of the device's free memory (no limit on a
        device that does not report it).
      progress: show a bar over the chunks, if tqdm is installed, there are several, and the output is a terminal.

    Returns:
      The results with labelled axes, see `Sweep`; NumPy arrays.

    Raises:
      TypeError, ValueError: an empty grid, values that are no numbers, points with different names, a chunk size or a
        limit out of range.
      MemoryError: not even one run at a time fits.

    >>> runs = sweep(lambda a, b: a * b, {"a": [1.0, 2.0], "b": [3.0, 4.0, 5.0]})
    >>> print(runs.values.tolist(), runs.best())
    [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]] {'a': 1.0, 'b': 3.0}
    """
    axes, points = _points(grid)
    size = len(points) if chunk_size is None else min(int(checks.check_count("chunk_size", chunk_size)), len(points))
    if memory_limit is not None:
        checks.check_number("memory_limit", memory_limit, low=0, open_low=True)
    limit = _bytes_free() if memory_limit is None else memory_limit
    program = jax.jit(jax.vmap(lambda point: train(**point)))
    while True:
        compiled: Any = program.lower(_stack(points[:size])).compile()
        if chunk_size is not None or _bytes_needed(compiled) <= limit:
            break
        if size == 1:
            raise MemoryError(f"one run needs {_bytes_needed(compiled)} bytes, `memory_limit` is {limit:.0f}")
        size = (size + 1) // 2
    filled = points + [points[-1]] * (-len(points) % size)
    starts = range(0, len(filled), size)
    chunks = [jax.device_get(compiled(_stack(filled[i : i + size]))) for i in _with_bar(starts, progress)]
    shape = tuple(len(values) for values in axes.values())

    def join(*parts: Any) -> Any:
        whole = np.concatenate(parts)[: len(points)]
        return whole.reshape(shape + whole.shape[1:])

    return Sweep(axes, points, jax.tree.map(join, *chunks))
