"""Shapes of parameters, and how many bytes a state takes for them."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp

from adamw_jax._tree import checks
from adamw_jax._tree.state import parameter_of


def abstract(params: chex.ArrayTree) -> chex.ArrayTree:
    """Return the shapes and dtypes of parameters, or of what stands for them."""

    checks.check_arrays("params", params)

    def shape_of(leaf: Any) -> Any:
        dtype = jax.dtypes.result_type(leaf)
        extended = jnp.issubdtype(dtype, jax.dtypes.extended)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), dtype if extended else jax.dtypes.canonicalize_dtype(dtype))

    return jax.tree.map(shape_of, params)


def _bytes(leaf: Any) -> int:
    return math.prod(map(int, leaf.shape)) * int(jnp.dtype(leaf.dtype).itemsize)


def state_bytes_of(state: chex.ArrayTree, params: chex.ArrayTree) -> tuple[list[int], int]:
    """Return the bytes of the trees like the parameters, per leaf, and those of all else."""
    owners = dict(jax.tree.leaves_with_path(params))
    per_leaf = dict.fromkeys(owners, 0)
    rest = 0
    for path, leaf in jax.tree.leaves_with_path(state):
        owner = parameter_of(path, owners)
        # Where the parameters are a bare array, a moment differs from a scalar in its shape alone.
        if owner is None or (owner == () and leaf.shape != owners[owner].shape):
            rest += _bytes(leaf)
        else:
            per_leaf[owner] += _bytes(leaf)
    return list(per_leaf.values()), rest
