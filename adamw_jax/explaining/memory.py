"""Shapes of parameters, and how many bytes a state takes for them."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp

from adamw_jax import checks


def abstract(params: chex.ArrayTree) -> chex.ArrayTree:
    """Return the shapes and dtypes of parameters, or of what stands for them."""

    def shape_of(path: Any, leaf: Any) -> Any:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")) and not checks.is_number(leaf):
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise TypeError(f"`params` must have arrays or their shapes as leaves, got {leaf!r} at {where!r}")
        return jax.eval_shape(lambda: jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)))

    return jax.tree_util.tree_map_with_path(shape_of, params)


def _bytes(leaf: Any) -> int:
    return math.prod(map(int, leaf.shape)) * int(jnp.dtype(leaf.dtype).itemsize)


def state_bytes_of(state: chex.ArrayTree, params: chex.ArrayTree) -> tuple[list[int], int]:
    """Return the bytes of the trees like the parameters, per leaf, and those of all else."""
    structure: Any = jax.tree.structure(params)
    bare: Any = jax.tree.structure(0)
    shape = jax.tree.leaves(params)[0].shape if structure == bare else None

    def is_like_params(node: Any) -> bool:
        # Where the parameters are a bare array, only its shape tells a moment from a scalar.
        return jax.tree.structure(node) == structure and (shape is None or node.shape == shape)

    parts = jax.tree.leaves(state, is_leaf=is_like_params)
    trees = [jax.tree.leaves(part) for part in parts if is_like_params(part)]
    per_leaf = [sum(map(_bytes, leaves)) for leaves in zip(*trees, strict=True)] or [0] * structure.num_leaves
    return per_leaf, sum(map(_bytes, jax.tree.leaves(state))) - sum(per_leaf)
