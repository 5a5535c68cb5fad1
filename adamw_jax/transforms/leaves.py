"""What all stages share: the one loop over the leaves, the dtype of their arithmetic, and running branches."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax.typing import Params, Updates

Kernel = Callable[..., tuple[chex.Array, ...]]
"""kernel(scalars, *leaves, *values) -> new leaves, all in one dtype."""


def wide(x: Any) -> chex.Array:
    """Return a number as a floating JAX scalar of the default width, so that traced and plain ones act alike."""
    return jnp.asarray(x, dtype=jnp.result_type(float))


def arithmetic_dtype(*leaves: Any) -> np.dtype[Any]:
    """Return the dtype to calculate in: the widest of the leaves', but no narrower than float32."""
    return jnp.result_type(jnp.float32, *(jnp.result_type(leaf) for leaf in leaves))


def zeros_like_params(params: chex.ArrayTree, dtype: Any = None) -> chex.ArrayTree:
    """Return zeros of the parameters' shapes and shardings, in `dtype` or else the dtype to calculate in."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or arithmetic_dtype(p)), params)


def map_leaves(
    kernel: Kernel,
    scalars: Sequence[chex.Array],
    trees: Sequence[chex.ArrayTree],
    values: Sequence[Any] | None = None,
) -> tuple[chex.ArrayTree, ...]:
    """Apply `kernel` to the corresponding leaves of `trees`: one cast in, one cast out.

    Args:
      kernel: `kernel(scalars, *leaves)`, or `kernel(scalars, *leaves, value)` where `values` are given. It returns a
        tuple; its i-th entry becomes a leaf of the i-th result, in the dtype of the i-th tree's leaf.
      scalars: what all leaves share, computed once.
      trees: the first gives the structure; the others have it, too.
      values: one entry per leaf, passed on as it is.

    Returns:
      As many trees as the kernel returns leaves; with no leaf at all, `trees` as they are.

    Raises:
      ValueError: the trees' structures differ.
    """
    structure: Any = jax.tree.structure(trees[0])
    for tree in trees[1:]:
        if jax.tree.structure(tree) != structure:
            raise ValueError(
                "updates, parameters and the state's moments must have one structure, "
                f"got {structure} and {jax.tree.structure(tree)}"
            )
    if structure.num_leaves == 0:
        return tuple(trees)
    columns = [jax.tree.leaves(tree) for tree in trees]
    cast_scalars: dict[Any, list[chex.Array]] = {}
    results = []
    for index, leaves in enumerate(zip(*columns, strict=True)):
        dtype = arithmetic_dtype(*leaves)
        if dtype not in cast_scalars:
            cast_scalars[dtype] = [scalar.astype(dtype) for scalar in scalars]
        extra = () if values is None else (values[index],)
        new = kernel(cast_scalars[dtype], *(jnp.asarray(leaf, dtype) for leaf in leaves), *extra)
        results.append([out.astype(jnp.result_type(leaf)) for out, leaf in zip(new, leaves, strict=False)])
    return tuple(jax.tree.unflatten(structure, column) for column in zip(*results, strict=True))


def in_wide_arithmetic(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run `inner` on updates widened to float32, and give its updates back in the dtypes that came in.

    Between the stages of a chain nothing is rounded to the gradients' dtype then.
    """
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        widened = jax.tree.map(lambda u: jnp.asarray(u, arithmetic_dtype(u)), updates)
        new_updates, state = inner.update(widened, state, params, **extra_args)
        return jax.tree.map(lambda new, u: new.astype(jnp.result_type(u)), new_updates, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def add_branches(*branches: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run every branch on the same updates and add up what they return: u <- branch_1(u) + branch_2(u) + ..."""
    wrapped = [optax.with_extra_args_support(branch) for branch in branches]

    def init(params: Params) -> tuple[optax.OptState, ...]:
        return tuple(branch.init(params) for branch in wrapped)

    def update(
        updates: Updates, state: tuple[optax.OptState, ...], params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, tuple[optax.OptState, ...]]:
        results = [
            branch.update(updates, each, params, **extra_args) for branch, each in zip(wrapped, state, strict=True)
        ]
        total = functools.reduce(optax.tree.add, (updates for updates, _ in results))
        return total, tuple(each for _, each in results)

    return optax.GradientTransformationExtraArgs(init, update)
