"""Stochastic rounding to bfloat16 from a counter-based hash: reproducible, unbiased, and without a key to carry."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

HIGH = np.uint32(0xFFFF0000)
"""The half of a float32's bits that is a bfloat16."""

LOW = np.uint32(0x0000FFFF)
"""The other half."""

_QUIET = np.uint32(0x00400000)
"""The bit that keeps a NaN a NaN when its lower half is cut off."""


def mix(x: chex.Array) -> chex.Array:
    """Return a hash of 32-bit words: a bijection in which every input bit flips every output bit half of the time.

    Source: Wellons, "Prospecting for Hash Functions" (2018), `lowbias32`: two multiplications.
    """
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def bits_of(x: chex.Array) -> chex.Array:
    """Return the bits of the numbers as float32, uint32 words."""
    return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)


def noise(shape: tuple[int, ...], count: chex.Array, salt: chex.Array) -> chex.Array:
    """Return uniform 32-bit words that depend on an element's index, the number of the update and a salt.

        mix(index ^ mix(count) ^ salt)

    The salt is what makes leaves of one shape differ: the bits of their gradients. A number per leaf would do it, too,
    but it would be a constant of its own in every compiled loop, so that no two leaves could share one.

    Args:
      shape: the leaf's shape.
      count: number of the update, an integer scalar.
      salt: uint32, a scalar or of the leaf's shape.
    """
    strides = np.cumprod((1, *shape[:0:-1]), dtype=np.uint64).astype(np.uint32)[::-1]
    index = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(strides[: len(shape)]):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return mix(index ^ mix(count.astype(jnp.uint32)) ^ salt)


def round_bits(x: chex.Array, noise16: chex.Array) -> chex.Array:
    """Return the bits of float32 numbers rounded to bfloat16, up with the probability of the part that is lost.

        the upper half of  bits(x) + noise16,  noise16 uniform in 0 .. 2^16 - 1

    A number that bfloat16 can represent stays what it is, infinities among them, and NaN stays NaN. Finite numbers
    above bfloat16's largest may become infinite, as in rounding to nearest.

    Args:
      x: float32.
      noise16: uint32 below 2^16, of the same shape.

    Returns:
      uint32 words whose lower half is zero.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(jnp.isnan(x), bits | _QUIET, bits + noise16) & HIGH


def _upper(bits: chex.Array) -> chex.Array:
    return jax.lax.bitcast_convert_type((bits >> np.uint32(16)).astype(jnp.uint16), jnp.bfloat16)


def round_to_bfloat16(x: chex.Array, noise16: chex.Array) -> chex.Array:
    """Return float32 numbers stochastically rounded to bfloat16, as `round_bits` does."""
    # The choice comes last: a loop that ends in a unary operation would be computed anew wherever its result is used.
    bits = bits_of(x)
    return jnp.where(jnp.isnan(x), _upper(bits | _QUIET), _upper(bits + noise16))


def widen(x: chex.Array) -> chex.Array:
    """Return bfloat16 numbers as float32, exactly."""
    # By their bits: XLA would drop a conversion there and back, and compute what was rounded a second time instead.
    upper = jax.lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(upper << np.uint32(16), jnp.float32)
