"""Arithmetic with lengths, one for each matrix, row, column or leaf: over some axes of an array."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from adamw_jax._tree.width import arithmetic_dtype, placed_like

Axes = tuple[int, ...]


def _wide(*arrays: Any) -> list[chex.Array]:
    return [x.astype(arithmetic_dtype(x)) for x in arrays]


def _scaled(x: chex.Array, axes: Axes) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Return x / m, its norms, and m = max |x|, or 1 for zeros: squares of x itself under- and overflow."""
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
    largest = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    scaled = x / largest
    return scaled, jnp.sqrt(jnp.sum(jnp.square(scaled), axis=axes, keepdims=True)), largest


def norms_over(x: chex.Array, axes: Axes) -> chex.Array:
    """Return the Euclidean norms of x over some axes, which keep the length 1; of a shape, zeros."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jnp.zeros([1 if axis in axes else n for axis, n in enumerate(x.shape)], x.dtype)
    _, norm, largest = _scaled(x, axes)
    return norm * largest


def on_sphere(x: chex.Array, radius: chex.Array, axes: Axes) -> chex.Array:
    """Return x with the norms `radius`; zero stays zero."""
    scaled, norm, _ = _scaled(x, axes)
    return scaled * (radius / jnp.where(norm > 0, norm, jnp.ones_like(norm)))


@functools.partial(jax.jit, static_argnames="axes")
def hold(u: Any, p: Any, radius: Any, rate: Any, axes: Axes) -> tuple[chex.Array, chex.Array]:
    """Return the update that holds the norms, and the radii: those of p itself where they were 0."""
    wide_p, wide_u = _wide(p, u)
    own = norms_over(wide_p, axes)
    radius = jnp.where(radius > 0, radius, placed_like(own.squeeze(axes).astype(radius.dtype), radius))
    rate, length = jnp.asarray(rate, wide_u.dtype), jnp.expand_dims(radius, axes).astype(wide_u.dtype)
    length = placed_like(length, own)
    held = wide_p - on_sphere(wide_p - rate * on_sphere(wide_u, length, axes), length, axes)
    return jnp.where(length > 0, held, wide_u).astype(u.dtype), radius


@functools.partial(jax.jit, static_argnames="axes")
def brake(u: Any, p: Any, outward: Any, axes: Axes) -> chex.Array:
    """Return the update that lets a norm grow by a share `outward` of what u asks.

        theta' = k theta+,   k = |theta'| / |theta+|,   so that   u' = u + (1 - k) (theta - u)

    and |theta+| - |theta| = <u, u - 2 theta> / (|theta+| + |theta|), which cancels no digits.
    """
    wide_p, wide_u = _wide(p, u)
    scaled, norm, largest = _scaled(wide_p, axes)
    step = wide_u / largest
    after = norms_over(scaled - step, axes)
    growth = jnp.sum(step * (step - 2 * scaled), axis=axes, keepdims=True) / jnp.where(after > 0, after + norm, 1)
    lost = (1 - jnp.asarray(outward, wide_u.dtype)) * growth / jnp.where(after > 0, after, 1)
    return jnp.where(growth > 0, wide_u + lost * (wide_p - wide_u), wide_u).astype(u.dtype)


@functools.partial(jax.jit, static_argnames="axes")
def floor(u: Any, p: Any, ratio: Any, axes: Axes) -> chex.Array:
    """Return the update, longer where it is shorter than a share `ratio` of p."""
    wide_p, wide_u = _wide(p, u)
    least = jnp.asarray(ratio, wide_u.dtype) * norms_over(wide_p, axes)
    return jnp.where(norms_over(wide_u, axes) < least, on_sphere(wide_u, least, axes), wide_u).astype(u.dtype)
