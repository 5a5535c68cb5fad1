"""Which weights' lengths the loss ignores."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rules.axes import matrix_axes
from adamw_jax._rules.leaf import leaves_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.width import arithmetic_dtype

POINTS = 4
"""Points at which every leaf is tested: a product is small at all four by chance in one case of a hundred thousand."""

DISTANCE = 0.5
"""How far the points are from the parameters, in the root mean square of each leaf (in 1 where a leaf is all zero)."""

TOLERANCE = 0.05
"""Largest |sum of g theta| over the root of the sum of (g theta)^2: about 1 for numbers of random sign, 0 but for
rounding and for the small constant under a normalization's root where the loss ignores the length."""


def _is_trained(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating)) and jnp.size(leaf) > 0


def _moved(key: chex.PRNGKey, leaf: Any) -> chex.Array:
    dtype = arithmetic_dtype(leaf)
    wide = jnp.asarray(leaf, dtype)
    size = jnp.sqrt(jnp.mean(jnp.square(wide)))
    noise = jax.random.normal(key, wide.shape, dtype) * jnp.where(size > 0, size, 1.0)
    return (wide + DISTANCE * noise).astype(jnp.result_type(leaf))


def _product(gradient: Any, weight: Any, axes: tuple[int, ...]) -> chex.Array:
    """Return the sum of g theta over the root of the sum of (g theta)^2, the largest of a stack's matrices.

    It is infinite where the gradient of a matrix is zero.
    """
    dtype = arithmetic_dtype(weight)
    g, theta = gradient.astype(dtype), weight.astype(dtype)
    # Gradients may be so small that their squares vanish.
    largest = jnp.max(jnp.abs(g), axis=axes, keepdims=True)
    terms = g / jnp.where(largest > 0, largest, 1.0) * theta
    root = jnp.sqrt(jnp.sum(jnp.square(terms), axis=axes, keepdims=True))
    sums = jnp.abs(jnp.sum(terms, axis=axes, keepdims=True))
    return jnp.max(jnp.where(largest > 0, sums / jnp.where(root > 0, root, 1.0), jnp.inf))


def scale_invariant(
    loss: Callable[..., chex.Array], params: chex.ArrayTree, *args: Any, axes: Any = None
) -> chex.ArrayTree:
    """Find the parameters whose length the loss ignores: loss(c theta) = loss(theta) for every c > 0.

    That is so where a normalization follows a layer, and then, by Euler,

        <dL/dtheta, theta> = 0      at every theta

    which is tested at four random points, half a root mean square of each leaf away from the parameters, for all leaves
    at once: a leaf is invariant if, at all four, the sum is below 0.05 times its size for terms of random sign. A leaf
    with the gradient zero, which the loss ignores altogether, is not.

    Args:
      loss: loss(params, *args) -> a scalar, differentiable, as it is in training (with batch statistics, not running
        ones), and without random numbers.
      params: the parameters; leaves that are not floating are not moved, and not invariant.
      *args: further arguments of the loss, such as a batch: enough examples that no layer's gradient is zero.
      axes: which axes of the leaves are stacks, as in `decoupled`: a stack is invariant if every matrix in it is.

    Returns:
      A tree of True and False with the parameters' structure, as `Corrected(layers=...)`, masks and rules take it.

    Raises:
      TypeError: a loss that is no scalar, or parameters that are traced.
      ValueError: gradients that are not finite at one of the points, with the first leaf's path.

    Source: van Laarhoven, arXiv 1706.05350, section 2; Li & Arora, arXiv 1910.07454, lemma 1.1.

    >>> def loss(params, x):
    ...     hidden = x @ params["body"]
    ...     return jnp.mean(hidden / jnp.linalg.norm(hidden) @ params["head"])
    >>> params = {"body": jnp.ones((3, 4)), "head": jnp.ones(4)}
    >>> scale_invariant(loss, params, jnp.arange(6.0).reshape(2, 3))
    {'body': True, 'head': False}
    """
    leaves = jax.tree.leaves(params)
    structure: Any = jax.tree.structure(params)
    if any(map(checks.is_traced, leaves)):
        raise TypeError("`params` must have known numbers as leaves, got traced ones: flags are decided before `jit`")
    trained = [_is_trained(leaf) for leaf in leaves]

    def whole(floating: list[Any]) -> chex.ArrayTree:
        rest = iter(floating)
        return structure.unflatten([next(rest) if flag else leaf for leaf, flag in zip(leaves, trained, strict=True)])

    def value(floating: list[Any]) -> chex.Array:
        result = loss(whole(floating), *args)
        if jnp.shape(result) != () or not jnp.issubdtype(jnp.result_type(result), jnp.floating):
            raise TypeError(f"`loss` must return a real floating scalar, got {jax.typeof(result)}")
        return jnp.asarray(result)

    def products(key: chex.PRNGKey, floating: list[Any]) -> tuple[list[chex.Array], list[chex.Array]]:
        points = list(map(_moved, jax.random.split(key, len(floating)), floating))
        gradients = jax.grad(value)(points)
        return list(map(_product, gradients, points, over)), [jnp.isfinite(g).all() for g in gradients]

    over = [matrix_axes(leaf) for leaf, flag in zip(leaves_of(params, axes), trained, strict=True) if flag]
    floating = [leaf for leaf, flag in zip(leaves, trained, strict=True) if flag]
    if not floating:
        return structure.unflatten([False] * len(leaves))
    tried = jax.jit(products)
    found, finite = zip(*(tried(jax.random.key(i), floating) for i in range(POINTS)), strict=True)
    paths = [path for path, flag in zip(leaf_paths(params), trained, strict=True) if flag]
    for path, flags in zip(paths, np.all(np.asarray(finite), axis=0), strict=True):
        if not flags:
            raise ValueError(f"`loss` must have finite gradients around `params`, got others at {path!r}")
    invariant = iter(np.all(np.asarray(found) < TOLERANCE, axis=0).tolist())
    return structure.unflatten([flag and next(invariant) for flag in trained])
