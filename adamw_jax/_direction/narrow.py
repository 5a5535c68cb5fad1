"""Any direction's state in half the memory: trees like the parameters as bfloat16, stochastically rounded."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._direction.by_path import directions
from adamw_jax._direction.direction import About, Direction, about
from adamw_jax._storage.loop import refuse_derivative
from adamw_jax._storage.rounding import LOW, bits_of, noise, round_to_bfloat16, seed_of
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import parameter_of
from adamw_jax._tree.typing import Params, Updates
from adamw_jax._tree.width import arithmetic_dtype, is_floating, own


class NarrowState(NamedTuple):
    """State of `with_narrow_state`.

    Attributes:
      count: updates made, int32: it seeds the rounding.
      inner_state: the direction's state, in which trees like the parameters are bfloat16.
    """

    count: chex.Array
    inner_state: optax.OptState


_WIDE = "`direction` must keep its state wide, without `with_narrow_state`,"


def _owners(state: Any, params: Any, init: Any) -> list[Any]:
    """Return for every leaf of a state the leaf of its parameter, if it is floating and of that shape; else None."""
    leaves = dict(jax.tree.leaves_with_path(params))
    rows = jax.tree.leaves_with_path(state)
    is_moment = [True] * len(rows)
    if () in leaves:
        # Parameters that are one array have the empty path, with which the path of a scalar ends, too.
        flags = optax.tree.map_params(init, lambda _: True, state, transform_non_params=lambda _: False)
        is_moment = jax.tree.leaves(flags)

    def owner(path: Any, leaf: Any) -> Any:
        found = parameter_of(path, leaves)
        if found is None or not is_floating(leaf) or jnp.shape(leaves[found]) != jnp.shape(leaf):
            return None
        return leaves[found]

    return [owner(path, leaf) if moment else None for (path, leaf), moment in zip(rows, is_moment, strict=True)]


def _narrowed(state: Any, owners: list[Any], count: chex.Array) -> Any:
    """Return the state with its moments rounded: the leaves that have owners, whose bits are the salt of the noise."""
    seed = seed_of(count)

    def store(index: int, leaf: Any, u: Any) -> Any:
        salt = bits_of(u) ^ np.uint32(index * 0x9E3779B9 & 0xFFFFFFFF)
        wide = refuse_derivative(leaf.astype(jnp.float32), _WIDE)
        return round_to_bfloat16(wide, noise(leaf.shape, seed, salt) & LOW)

    rows = enumerate(zip(jax.tree.leaves(state), owners, strict=True))
    return structure_of(state).unflatten([leaf if u is None else store(i, leaf, u) for i, (leaf, u) in rows])


def with_narrow_state(direction: optax.GradientTransformation, dtype: Any = "bfloat16") -> Direction:
    """Keep every tree like the parameters in the state of a direction as bfloat16, stochastically rounded.

        s <- round(s')           (d, s') = direction(g, s)           E[round(x)] = x

    The direction calculates in float32 from the state that the update before stored. Other leaves of the state (counts,
    factored statistics) keep their dtypes.

    Args:
      direction: any transformation, of this library or of optax. (The Adams and momentum of this library take a
        `moment_dtype` themselves, which saves a rounding.)
      dtype: "bfloat16".

    Returns:
      A transformation with the state `NarrowState(count, inner_state)`; its updates are the direction's.

    Raises:
      ValueError, TypeError: another dtype; no transformation; a derivative taken through an update.

    Source: Gupta et al., arXiv 1502.02551, section 3.1, for the rounding.

    >>> tx = with_narrow_state(optax.scale_by_lion())
    >>> print(tx.init({"w": jnp.zeros(2)}).inner_state.mu["w"].dtype)
    bfloat16
    """
    inner = directions(direction)
    if getattr(dtype, "__name__", str(dtype)) != "bfloat16":
        raise ValueError(f"`dtype` must be 'bfloat16', got {dtype!r}")

    def init(params: Params) -> NarrowState:
        count = jnp.zeros([], jnp.int32)
        known = jax.tree.map(lambda p: own(p) if isinstance(p, jax.ShapeDtypeStruct) else p, params)
        state = inner.init(params)
        return NarrowState(count, _narrowed(state, _owners(state, known, inner.init), count))

    def update(
        updates: Updates, state: NarrowState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, NarrowState]:
        count = optax.safe_increment(state.count)
        stored, structure = jax.tree.leaves(state.inner_state), structure_of(state.inner_state)
        owners = _owners(state.inner_state, updates, inner.init)
        wide = [x if u is None else x.astype(arithmetic_dtype(x)) for x, u in zip(stored, owners, strict=True)]
        direction, new = inner.update(updates, structure.unflatten(wide), params, **extra_args)
        return direction, NarrowState(count, _narrowed(new, owners, count))

    its = about(direction)
    facts = About(f"narrow {its.name}", {"direction": direction}, its.averages)
    return Direction.made(optax.GradientTransformationExtraArgs(init, update), facts)
