"""Root mean squares and angles of leaves, one for each matrix of a stack."""

from typing import Any, TypeAlias

import chex
import jax
import jax.numpy as jnp

from adamw_jax._tree.width import arithmetic_dtype

Axes: TypeAlias = tuple[int, ...]
"""The axes of a matrix; those of its stack are the others."""


def has_numbers(leaf: Any) -> bool:
    """Return True for a leaf of real or complex floating numbers."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _real(leaf: Any, axes: Axes) -> tuple[chex.Array, Axes]:
    """Return the leaf in real numbers to calculate with, and the axes of a matrix; zeros where it has no numbers."""
    if not has_numbers(leaf) or jnp.size(leaf) == 0:
        stack = [n for axis, n in enumerate(jnp.shape(leaf)) if axis not in axes]
        return jnp.zeros([*stack, 1], jnp.float32), (len(stack),)
    if jnp.iscomplexobj(leaf):
        leaf, axes = jnp.stack([jnp.real(leaf), jnp.imag(leaf)], axis=-1), (*axes, jnp.ndim(leaf))
    return jax.lax.convert_element_type(leaf, arithmetic_dtype(leaf)), axes


def _scaled(leaf: Any, axes: Axes) -> tuple[chex.Array, chex.Array, Axes]:
    """Return x / m, m = max |x| of each matrix or 1, and its axes: squares of x itself under- and overflow."""
    x, axes = _real(leaf, axes)
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    largest = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return x / largest, largest, axes


def rms_of(leaf: Any, axes: Axes) -> chex.Array:
    """Return the root of the mean square of a leaf, or of each matrix of a stack, whatever the unit."""
    x, largest, axes = _scaled(leaf, axes)
    means = largest * jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))
    return means.squeeze(axes).astype(jnp.result_type(float))


def angle_of(weight: Any, step: Any, axes: Axes) -> chex.Array:
    """Return the angle between theta and theta + u: that of u's part across theta and theta's length along itself.

    The arc cosine of the normalized product would have no digits left where the angle is below 1e-3.
    """
    (theta, of_theta, over), (u, of_u, _) = _scaled(weight, axes), _scaled(step, axes)
    if theta.shape != u.shape:
        return jnp.zeros([n for axis, n in enumerate(jnp.shape(weight)) if axis not in axes], jnp.result_type(float))
    square = jnp.sum(theta * theta, axis=over, keepdims=True)
    along = jnp.sum(theta * u, axis=over, keepdims=True) / jnp.where(square == 0, jnp.ones_like(square), square)
    across = jnp.sqrt(jnp.sum(jnp.square(u - along * theta), axis=over, keepdims=True))
    # Lengths in units of the larger of the two, so that neither product overflows.
    unit = jnp.maximum(of_theta, of_u)
    across, along = across * (of_u / unit), (of_theta / unit) + along * (of_u / unit)
    return jnp.arctan2(across, jnp.sqrt(square) * along).squeeze(over).astype(jnp.result_type(float))
