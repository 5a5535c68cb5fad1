"""How far Muon's steps are from orthogonal: a number for each matrix of an update that `observe` looks at."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from adamw_jax._direction.by_path import direction_per_leaf
from adamw_jax._direction.direction import About, about
from adamw_jax._direction.iteration import Orthogonalization
from adamw_jax._direction.stacks import Layout
from adamw_jax._optimizer.plan import Plan
from adamw_jax._rules.axes import widths_of
from adamw_jax._rules.leaf import Leaf, leaves_of
from adamw_jax._tree.state import unique_paths
from adamw_jax._tree.typing import Directions
from adamw_jax._tree.width import arithmetic_dtype

STEPS = 12
"""Steps of the iteration that a step is held against."""

_NAMES = ("muon", "orthogonalize")
"""The directions whose steps are orthogonalized matrices."""


def orthogonalizes(plan: Plan | None) -> bool:
    """Return True for an optimizer of which a direction is Muon's."""
    if plan is None:
        return False
    every = plan.direction.values() if isinstance(plan.direction, Mapping) else [plan.direction]
    return any(about(each).name in _NAMES for each in every)


class Orthogonalized(NamedTuple):
    """The leaves that one direction orthogonalizes.

    Attributes:
      about: facts about the direction.
      options: its options.
      indices: the leaves' places in the tree.
      leaves: the leaves by the direction's own axes, where it has any.
    """

    about: About
    options: Orthogonalization
    indices: list[int]
    leaves: list[Leaf]


def orthogonalized(direction: Directions, tree: chex.ArrayTree, known: Sequence[Leaf]) -> list[Orthogonalized]:
    """Return the leaves that are orthogonalized and not empty, by direction.

    Args:
      direction: one for all leaves, or {pattern: direction}.
      tree: the parameters, or their shapes.
      known: their leaves by the optimizer's axes, which hold where a direction has none of its own.
    """
    paths, arrays = unique_paths(tree), jax.tree.leaves(tree)
    members: dict[int, tuple[About, list[int]]] = {}
    for i, each in enumerate(direction_per_leaf(direction, tree)):
        facts = about(each)
        if facts.name in _NAMES and all(known[i].shape):  # no axis of length 0
            members.setdefault(id(each), (facts, []))[1].append(i)
    found = []
    for facts, indices in members.values():
        options = Orthogonalization.among(facts.arguments) if facts.arguments else Orthogonalization()
        leaves = [known[i] for i in indices]
        if options.letters is not None:
            own = {leaf.path: leaf for leaf in leaves_of({paths[i]: arrays[i] for i in indices}, options.letters)}
            leaves = [own[paths[i]] for i in indices]
        found.append(Orthogonalized(facts, options, indices, leaves))
    return found


def layouts_of(plan: Plan | None, tree: chex.ArrayTree, known: Sequence[Leaf]) -> list[Layout | None]:
    """Return for every leaf how it is a stack of matrices; None for leaves whose direction is not Muon's.

    Args:
      plan: of the optimizer, if it has one.
      tree: the parameters.
      known: their leaves by the optimizer's axes, which hold where the direction has none of its own.
    """
    found: list[Layout | None] = [None] * len(known)
    if plan is None or not orthogonalizes(plan):
        return found
    for group in orthogonalized(plan.direction, tree, known):
        widths = widths_of(group.options.split, group.leaves)
        for i, leaf, its in zip(group.indices, group.leaves, widths, strict=True):
            if {"i", "o"} <= set(leaf.axes or ""):
                found[i] = Layout(leaf.axes or "", ((),) * len(leaf.shape), its)
    return found


def stack_of(leaf: Any, layout: Layout) -> tuple[int, ...]:
    """Return the shape of a leaf's stack, () for one matrix."""
    return tuple(n for n, letter in zip(jnp.shape(leaf), layout.letters, strict=True) if letter == "s")


def _sine(u: chex.Array) -> chex.Array:
    """Return the sine of the angle between each matrix (k, rows, columns) and its orthogonal factor; 0 for zeros."""
    over: Any = {"axis": (-2, -1), "keepdims": True}
    u = u.mT if u.shape[-2] > u.shape[-1] else u
    largest = jnp.max(jnp.abs(u), **over)
    u = u / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    # The largest sum of a row bounds the squared singular values.
    bound = jnp.max(jnp.sum(jnp.abs(u @ u.mT), axis=-1, keepdims=True), axis=-2, keepdims=True)
    z = u * jax.lax.rsqrt(jnp.where(bound > 0, bound, jnp.ones_like(bound)))
    z = jax.lax.fori_loop(0, STEPS, lambda _, z: 1.5 * z - 0.5 * (z @ z.mT) @ z, z)

    def unit(x: chex.Array) -> chex.Array:
        square = jnp.sum(x * x, **over)
        return x * jax.lax.rsqrt(jnp.where(square > 0, square, jnp.ones_like(square)))

    u, z = unit(u), unit(z)
    return jnp.sqrt(jnp.sum(jnp.square(u - jnp.sum(u * z, **over) * z), axis=(-2, -1)))


def residual_of(step: chex.Array, layout: Layout) -> chex.Array:
    """Return how far a step U is from orthogonal, for each matrix of a stack; the largest of those side by side.

        sin(U, Z) = |U / |U| - cos(U, Z) Z / |Z||       with the norms of Frobenius

    where Z, with the singular vectors of U, is what `STEPS` of Z <- 3/2 Z - 1/2 Z Z^T Z make of it: singular values
    above about a thirtieth of the largest become 1, and those of directions that a gradient does not have stay 0.
    Whatever the length of U, 0 where its singular values are equal.
    """
    sharding = jax.typeof(step).sharding
    if AxisType.Explicit in sharding.mesh.axis_types:  # products of matrices that are split have no type
        step = jax.sharding.reshard(step, jax.NamedSharding(sharding.mesh, jax.P()))
    x = layout.as_stack(step)
    x = x.astype(arithmetic_dtype(x))
    ends = [sum(layout.widths[: i + 1]) for i in range(len(layout.widths) - 1)]
    each = jnp.stack([_sine(u) for u in jnp.split(x, ends, axis=2)])
    return jnp.max(each, axis=0).reshape(stack_of(step, layout)).astype(jnp.result_type(float))
