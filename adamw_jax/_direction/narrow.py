"""Any direction's state in half the memory: trees like the parameters as bfloat16, stochastically rounded."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._direction.by_path import directions
from adamw_jax._direction.moments import refuse_derivative
from adamw_jax._direction.rounding import LOW, bits_of, noise, round_to_bfloat16
from adamw_jax._direction.storage import storage_of
from adamw_jax._leaves import arithmetic_dtype, structure_of
from adamw_jax._state import parameter_of
from adamw_jax._typing import Params, Updates


class NarrowState(NamedTuple):
    """State of `with_narrow_state`.

    Attributes:
      count: updates made, int32: it seeds the rounding.
      inner_state: the direction's state, in which trees like the parameters are bfloat16.
    """

    count: chex.Array
    inner_state: optax.OptState


def _flags(state: Any, shapes: Any) -> list[bool]:
    """Return for every leaf of a state whether it is a floating tree's leaf of its parameter's shape."""
    params = dict(jax.tree.leaves_with_path(shapes))

    def is_like_params(path: Any, leaf: Any) -> bool:
        owner = parameter_of(path, params)
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return bool(floating and owner is not None and jnp.shape(params[owner]) == jnp.shape(leaf))

    return [is_like_params(path, leaf) for path, leaf in jax.tree.leaves_with_path(state)]


def with_narrow_state(
    direction: optax.GradientTransformation, dtype: Any = "bfloat16"
) -> optax.GradientTransformationExtraArgs:
    """Keep every tree like the parameters in the state of a direction as bfloat16, stochastically rounded.

        s <- round(s')           (d, s') = direction(g, s)           E[round(x)] = x

    The direction calculates in float32 and sees what it stored an update before. What is no tree like the parameters
    (counts, factored statistics) stays as it is.

    Args:
      direction: any transformation, of this library or of optax. (The Adams and momentum of this library take a
        `moment_dtype` themselves, which saves a rounding.)
      dtype: "bfloat16".

    Returns:
      A transformation with the state `NarrowState(count, inner_state)`; its updates are the direction's.

    Raises:
      ValueError, TypeError: another dtype; no transformation.

    Source: Gupta et al., arXiv 1502.02551, section 3.1, for the rounding.

    >>> tx = with_narrow_state(optax.scale_by_lion())
    >>> print(tx.init({"w": jnp.zeros(2)}).inner_state.mu["w"].dtype)
    bfloat16
    """
    inner = directions(direction)
    if not (storage := storage_of("dtype", dtype)).is_narrow or storage.packs:
        raise ValueError(f"`dtype` must be 'bfloat16', got {dtype!r}")

    def narrowed(state: Any, shapes: Any, count: chex.Array) -> Any:
        leaves = jax.tree.leaves(state)

        def store(index: int, leaf: Any) -> Any:
            salt = bits_of(leaf) ^ np.uint32(index * 0x9E3779B9 & 0xFFFFFFFF)
            return round_to_bfloat16(refuse_derivative(leaf.astype(jnp.float32)), noise(leaf.shape, count, salt) & LOW)

        rows = enumerate(zip(leaves, _flags(state, shapes), strict=True))
        return structure_of(state).unflatten([store(i, leaf) if flag else leaf for i, (leaf, flag) in rows])

    def init(params: Params) -> NarrowState:
        count = jnp.zeros([], jnp.int32)
        return NarrowState(count, narrowed(inner.init(params), params, count))

    def update(
        updates: Updates, state: NarrowState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, NarrowState]:
        count = optax.safe_increment(state.count)
        leaves, structure = jax.tree.leaves(state.inner_state), structure_of(state.inner_state)
        flags = _flags(state.inner_state, updates)
        wide = [leaf.astype(arithmetic_dtype(leaf)) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]
        direction, new = inner.update(updates, structure.unflatten(wide), params, **extra_args)
        return direction, NarrowState(count, narrowed(new, updates, count))

    return optax.GradientTransformationExtraArgs(init, update)
