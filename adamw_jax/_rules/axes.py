"""Axes that an optimizer hands to its stages; matrices side by side in one leaf."""

import contextvars
import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import optax

from adamw_jax._rules.leaf import Leaf, leaves_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import match_patterns
from adamw_jax._tree.stage import params_or_updates
from adamw_jax._tree.typing import Params, Updates

_AROUND: contextvars.ContextVar[Mapping[str, Leaf] | None] = contextvars.ContextVar("axes", default=None)
"""The leaves of the optimizer around a stage. An extra argument would not do: optax passes none to `init`."""


def with_axes(axes: Any, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give `axes`, as in `leaves_of`, to the stages inside that ask `leaves_inside` without axes; None gives none."""
    inner = optax.with_extra_args_support(inner)
    if axes is None:
        return inner

    def run(function: Any, tree: chex.ArrayTree, *args: Any, **extra_args: Any) -> Any:
        token = _AROUND.set({leaf.path: leaf for leaf in leaves_of(tree, axes)})
        try:
            return function(*args, **extra_args)
        finally:
            _AROUND.reset(token)

    def init(params: Params) -> optax.OptState:
        return run(inner.init, params, params)

    def update(updates: Updates, state: Any, params: Params | None = None, **extra_args: Any) -> tuple[Updates, Any]:
        tree = params_or_updates(updates, params)
        new: tuple[Updates, Any] = run(inner.update, tree, updates, state, params, **extra_args)
        return new

    return optax.GradientTransformationExtraArgs(init, update)


def leaves_inside(tree: chex.ArrayTree, axes: Any) -> list[Leaf]:
    """Return the `Leaf` of every leaf: by `axes`, else by those of the optimizer around, else by names."""
    around = _AROUND.get()
    if axes is not None or around is None:
        return leaves_of(tree, axes)
    return [around.get(leaf.path, leaf) for leaf in leaves_of(tree)]


def matrix_axes(leaf: Leaf) -> tuple[int, ...]:
    """Return the axes of each matrix in a leaf, all but those of its stack; all where its axes are not known.

    >>> matrix_axes(Leaf("w", (12, 4, 8), "matrix", "sio", "name 'w'"))
    (1, 2)
    """
    return tuple(axis for axis, letter in enumerate(leaf.axes or "o" * len(leaf.shape)) if letter != "s")


def check_split(split: Any) -> None:
    """Check the values of `split`: a number of equal parts, or their sizes, for all leaves or by pattern."""
    for value in split.values() if isinstance(split, Mapping) else [] if split is None else [split]:
        sizes = value if isinstance(value, Sequence) and not isinstance(value, str) and value else [value]
        for size in sizes:
            checks.check_count("split", size)


def widths_of(split: Any, leaves: Sequence[Leaf]) -> list[tuple[int, ...]]:
    """Return for every leaf the columns of the matrices side by side along its outputs, () where it is one matrix.

    `split` is a number of equal parts of the first axis of outputs, or their sizes; for all leaves or {pattern: parts}.

    Raises:
      ValueError: a pattern that is found nowhere, an axis that the parts do not make up.
    """
    paths = tuple(leaf.path for leaf in leaves)
    found: Sequence[int | None] = [None if split is None else 0] * len(paths)
    values = [split]
    if isinstance(split, Mapping):
        found, values = match_patterns("split", tuple(split), paths), list(split.values())

    def widths(leaf: Leaf, value: Any) -> tuple[int, ...]:
        if not leaf.sizes("o"):
            return ()
        length, *others = leaf.sizes("o")
        sizes = tuple(map(int, value)) if isinstance(value, Sequence) else (length // int(value),) * int(value)
        if sum(sizes) != length:
            raise ValueError(
                f"`split` must make up the {length} outputs of {leaf.path!r}, of shape {leaf.shape} and axes "
                f"{leaf.axes!r}, got {value!r}"
            )
        return tuple(size * math.prod(others) for size in sizes)

    rows = zip(leaves, found, strict=True)
    every = [() if index is None else widths(leaf, values[index]) for leaf, index in rows]
    return [each if len(each) > 1 else () for each in every]
