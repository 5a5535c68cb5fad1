"""The width of the arithmetic: float32 or wider between the stages, and buffers and numbers that fit it."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._tree.typing import Params, Updates


def wide(x: Any) -> Any:
    """Return a number as a floating scalar of the default width, so that traced and plain ones act alike.

    A plain number stays one, NumPy's: `map_leaves` makes it a constant of the loops. What is JAX's stays JAX's.
    """
    dtype = jnp.result_type(float)
    return jnp.asarray(x, dtype) if isinstance(x, jax.Array) else np.asarray(x, dtype)[()]


def own(x: Any) -> chex.Array:
    """Return `x` as an array whose buffer nobody else has, so that it can be donated with the state it is in."""
    return jnp.array(x, copy=True)


def is_floating(leaf: Any) -> bool:
    """Return True if a leaf has a real floating dtype: no integers, flags, random keys or float0."""
    return bool(jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.floating))


def arithmetic_dtype(*leaves: Any) -> np.dtype[Any]:
    """Return the dtype to calculate in: the widest of the floating leaves', but no narrower than float32."""
    sizes = [jnp.result_type(leaf).itemsize for leaf in leaves if is_floating(leaf)]
    return np.dtype(np.float64 if max(sizes, default=0) == 8 else np.float32)


def cast(leaf: Any, dtype: Any) -> Any:
    """Return a leaf in another floating dtype; what is not floating stays as it is."""
    return jax.lax.convert_element_type(leaf, dtype) if is_floating(leaf) else leaf


def zeros_like_params(params: chex.ArrayTree, dtype: Any = None) -> chex.ArrayTree:
    """Return zeros of the parameters' shapes and shardings, in `dtype` or else the dtype to calculate in."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or arithmetic_dtype(p)), params)


def widened(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Return a tree whose floating leaves are as wide as the arithmetic."""
    return jax.tree.map(lambda leaf: cast(leaf, arithmetic_dtype(leaf)), tree)


def cast_like(tree: chex.ArrayTree, like: chex.ArrayTree) -> chex.ArrayTree:
    """Return a tree with the dtypes of another."""
    return jax.tree.map(lambda leaf, to: cast(leaf, jnp.result_type(to)), tree, like)


def in_wide_arithmetic(
    inner: optax.GradientTransformation, *, keep: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` on updates widened to float32, so that nothing between its stages is rounded to a narrower dtype.

    Args:
      inner: the stages.
      keep: leave the updates wide, for stages whose updates no narrower dtype can hold.

    Returns:
      A transformation whose updates are as wide as the wider of gradient and parameter, so that a small decay, which a
      narrow gradient's dtype could not hold, reaches a wide parameter.
    """
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        new_updates, state = inner.update(widened(updates), state, params, **extra_args)
        if keep:
            return new_updates, state

        def narrow(new: Any, u: Any, p: Any) -> Any:
            of_u, of_p = jnp.result_type(u), jnp.result_type(p)
            return cast(new, of_p if is_floating(p) and of_p.itemsize > of_u.itemsize else of_u)

        return jax.tree.map(narrow, new_updates, updates, updates if params is None else params), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
