"""The leaves of a larger model beside those of a smaller one: which belong together, and how each has grown."""

import difflib
import math
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from adamw_jax._rules.leaf import MATRICES, Leaf, leaves_of, require_axes
from adamw_jax._tree.paths import leaf_paths


class Grown(NamedTuple):
    """A leaf of the larger model.

    Attributes:
      leaf: path, shape, role and axes.
      row: its row in a table of `Rule`: "matrix", "head", "embedding", "vector" or "scalar".
      width: the growth of its inputs; of its features where it has no inputs, or only its outputs grow.
      stack: the growth of its stacks.
      like: indices of the corresponding leaves of the smaller model, several for a block that only the larger one has.
    """

    leaf: Leaf
    row: str
    width: float
    stack: float
    like: tuple[int, ...]


def _alike(path: str, paths: tuple[str, ...]) -> tuple[int, ...]:
    """Return the indices of the paths that differ from a path in the fewest numbers and in nothing else."""
    parts = re.split(r"(\d+)", path)
    found: dict[int, list[int]] = {}
    for index, other in enumerate(paths):
        others = re.split(r"(\d+)", other)
        if others[::2] == parts[::2]:
            found.setdefault(sum(a != b for a, b in zip(others, parts, strict=True)), []).append(index)
    return tuple(found[min(found)]) if found else ()


def _corresponding(base_paths: tuple[str, ...], paths: tuple[str, ...], deeper: bool) -> list[tuple[int, ...]]:
    """Return for every path the indices of the base's paths that it corresponds to."""
    place = {path: index for index, path in enumerate(base_paths)}
    for owner, others, other_name in ((paths, base_paths, "base"), (base_paths, paths, "target")):
        for path in sorted(set(owner) - set(others)):
            alike = _alike(path, others)
            if alike and not deeper:
                raise ValueError(
                    f"`depth` must be given for both runs, different numbers of residual blocks, where the one has "
                    f"parameters that the other lacks, got {path!r}, which the {other_name} has only as "
                    f"{others[alike[0]]!r}"
                )
            if not alike:
                near = difflib.get_close_matches(path, others, n=1, cutoff=0.0)
                raise ValueError(
                    "the parameters of `base` and `target` must correspond, path by path up to the numbers of blocks, "
                    f"got {path!r}, which the {other_name} has not; its nearest is {near[0] if near else None!r}"
                )
    return [(place[path],) if path in place else _alike(path, base_paths) for path in paths]


def _product(growth: list[float], letters: str, letter: str) -> float:
    return math.prod(factor for factor, each in zip(growth, letters, strict=True) if each == letter)


def _sides_of(growth: list[float], guess: bool) -> tuple[float, float] | None:
    """Return the growths of inputs and outputs as far as the growing axes show them; else None.

    The last axis is outputs. With `guess`, inputs end where both sides grow by one factor, as in (in, heads, head_dim)
    and (heads, head_dim, out).
    """
    growing = [axis for axis, factor in enumerate(growth) if factor != 1]
    total = math.prod(growth)
    if growing in ([], [len(growth) - 1]):
        return 1.0, total
    if not guess:
        return None
    if len(growth) == 4 and growing == [2]:
        return total, 1.0
    sides = [math.prod(growth[axis] for axis in growing[:k]) for k in range(1, len(growing))]
    alike = [side for side in sides if math.isclose(side, total / side)]
    if not alike and len(growing) == 2 and growing[1] == len(growth) - 1:
        alike = sides
    return (alike[0], total / alike[0]) if alike else None


def _grown(names: tuple[str, str, str], leaf: Leaf, base: tuple[int, ...], like: tuple[int, ...], guess: bool) -> Grown:
    caller, small, large = names
    if len(base) != len(leaf.shape):
        raise ValueError(
            f"`{small}` must have leaves with as many axes as `{large}`, {len(leaf.shape)} at {leaf.path!r}, "
            f"got {len(base)}"
        )
    if not all(leaf.shape + base):
        raise ValueError(f"`{large}` must not have empty leaves, got {leaf.shape} and {base} at {leaf.path!r}")
    growth = [new / old for new, old in zip(leaf.shape, base, strict=True)]
    if leaf.role not in MATRICES:
        stack = _product(growth, leaf.axes, "s") if leaf.axes else 1.0
        return Grown(leaf, "scalar" if leaf.role == "scalar" else "vector", math.prod(growth) / stack, stack, like)
    sides = None if leaf.axes is not None else _sides_of(growth, guess)
    if sides is None:
        inputs, outputs, stack = (_product(growth, require_axes(caller, leaf), each) for each in "ios")
    else:
        (inputs, outputs), stack = sides, 1.0
    row, width = leaf.role, inputs
    if row == "embedding":
        width = outputs
    elif row == "matrix" and inputs == 1 and outputs != 1:
        row, width = "embedding", outputs
    elif row == "matrix" and inputs != 1 and outputs == 1:
        row = "head"
    return Grown(leaf, row, width, stack, like)


def growth_of(
    base_params: chex.ArrayTree,
    params: chex.ArrayTree,
    axes: Any = None,
    *,
    deeper: bool = False,
    guess: bool = False,
    names: tuple[str, str, str] = ("transfer", "base", "target"),
) -> list[Grown]:
    """Return how every leaf has grown, in the order of `jax.tree.leaves(params)`.

    A matrix of which only the outputs grow is an input layer, which is treated as an embedding; one of which only the
    inputs grow is an output layer, a head (Yang et al., arXiv 2203.03466, appendix B).

    Args:
      base_params, params: the parameters of the two models, or their shapes.
      axes: see `leaves_of`.
      deeper: whether the numbers of blocks differ, so that "blocks/3" of one model corresponds to any "blocks/<n>".
      guess: whether the growing axes decide which are a matrix's inputs where names do not, see `_sides_of`.
      names: of the caller, and of its arguments for the small model and the large one, for the errors.

    Raises:
      ValueError: trees that do not correspond; a matrix that grows and whose inputs are not known.

    >>> import jax.numpy as jnp
    >>> base = {"dense": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}}
    >>> large = {"dense": {"kernel": jnp.ones((16, 32)), "bias": jnp.ones(32)}}
    >>> [(each.leaf.path, each.row, each.width) for each in growth_of(base, large)]
    [('dense/bias', 'vector', 4.0), ('dense/kernel', 'matrix', 2.0)]
    """
    like = _corresponding(leaf_paths(base_params), leaf_paths(params), deeper)
    shapes = [tuple(jnp.shape(leaf)) for leaf in jax.tree.leaves(base_params)]
    found: list[Grown] = []
    for leaf, indices in zip(leaves_of(params, axes), like, strict=True):
        grown = {
            (each.row, each.width): each for each in (_grown(names, leaf, shapes[i], indices, guess) for i in indices)
        }
        if len(grown) > 1:
            raise ValueError(
                f"blocks that only the larger model has must look like all blocks of the base, got {leaf.path!r}, "
                f"which has grown by {sorted(width for _, width in grown)}"
            )
        found.extend(grown.values())
    return found
