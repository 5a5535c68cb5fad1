"""The width of the arithmetic: float32 or wider between the stages, and numbers and buffers of that width."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType

from adamw_jax._tree.typing import Params, Updates


def as_scalar(x: Any) -> Any:
    """Return a number as a floating scalar of the default width.

    Python and NumPy numbers become NumPy scalars, which are constants in the loops of `map_leaves`; JAX arrays stay
    arrays.
    """
    dtype = jnp.result_type(float)
    return jnp.asarray(x, dtype) if isinstance(x, jax.Array) else np.asarray(x, dtype)[()]


def own(x: Any) -> chex.Array:
    """Return a copy of `x`, so that the state that holds it can be donated; zeros for a `jax.ShapeDtypeStruct`."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jnp.zeros_like(x)
    return jnp.array(x, copy=True)


def with_own_buffers(state: optax.OptState, others: chex.ArrayTree) -> optax.OptState:
    """Return a state in which no leaf is one of `others` or another leaf, so that it can be donated."""
    seen = set(map(id, jax.tree.leaves(others)))

    def each(leaf: Any) -> Any:
        if id(leaf) in seen:
            return own(leaf)
        seen.add(id(leaf))
        return leaf

    return jax.tree.map(each, state)


@functools.lru_cache(maxsize=256)
def _is_floating(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _dtype_of(leaf: Any) -> Any:
    """Return `jax.dtypes.result_type(leaf)`, which is slow and not needed for JAX's arrays of less than 64 bits."""
    dtype = getattr(leaf, "dtype", None)
    is_known = isinstance(dtype, np.dtype) and dtype.itemsize < 8 and not isinstance(leaf, (np.ndarray, np.generic))
    return dtype if is_known else jax.dtypes.result_type(leaf)


def is_floating(leaf: Any) -> bool:
    """Return True if a leaf has a real floating dtype: no integers, flags, random keys or float0."""
    return _is_floating(_dtype_of(leaf))


def arithmetic_dtype(*leaves: Any) -> np.dtype[Any]:
    """Return the dtype to calculate in: the widest of the floating leaves', but no narrower than float32."""
    sizes = [_dtype_of(leaf).itemsize for leaf in leaves if is_floating(leaf)]
    return np.dtype(np.float64 if max(sizes, default=0) == 8 else np.float32)


def cast(leaf: Any, dtype: Any) -> Any:
    """Return a leaf, or the shape of one, in another floating dtype; what is not floating stays as it is."""
    if not is_floating(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.update(dtype=dtype)
    if getattr(leaf, "weak_type", True) is False and leaf.dtype == dtype:
        return leaf  # as `convert_element_type` does, in a tenth of its time
    return jax.lax.convert_element_type(leaf, dtype)


def zeros_like_params(params: chex.ArrayTree, dtype: Any = None) -> chex.ArrayTree:
    """Return zeros of the parameters' shapes and shardings, in `dtype` or else the dtype to calculate in."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or arithmetic_dtype(p)), params)


def placed_like(x: chex.Array, like: chex.Array) -> chex.Array:
    """Return x in the sharding of `like`, where the mesh has explicit axes; the norms of a split stack need this."""
    wanted = jax.typeof(like).sharding
    if AxisType.Explicit not in wanted.mesh.axis_types or jax.typeof(x).sharding == wanted:
        return x
    placed: chex.Array = jax.sharding.reshard(x, wanted)
    return placed


def widen(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Return a tree with its floating leaves in the dtype of the arithmetic: float32, or float64."""
    return jax.tree.map(lambda leaf: cast(leaf, arithmetic_dtype(leaf)), tree)


def cast_like(tree: chex.ArrayTree, like: chex.ArrayTree) -> chex.ArrayTree:
    """Return a tree with the dtypes of another."""
    return jax.tree.map(lambda leaf, to: cast(leaf, jnp.result_type(to)), tree, like)


def widen_updates(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run `inner` on updates widened to float32 or float64; its updates get the wider dtype of gradient and parameter.

    So no stage rounds to a narrower dtype, and a float32 parameter gets a small decay that the dtype of a bfloat16
    gradient would round away.
    """
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        new_updates, state = inner.update(widen(updates), state, params, **extra_args)

        def narrow(new: Any, u: Any, p: Any) -> Any:
            of_u, of_p = _dtype_of(u), _dtype_of(p)
            return cast(new, of_p if is_floating(p) and of_p.itemsize > of_u.itemsize else of_u)

        return jax.tree.map(narrow, new_updates, updates, updates if params is None else params), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
