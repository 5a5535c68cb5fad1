"""Stochastic rounding to bfloat16 from a counter-based hash: reproducible, unbiased, and without a key to carry."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

HIGH, LOW = np.uint32(0xFFFF0000), np.uint32(0x0000FFFF)
"""The upper half of a float32's bits, which is a bfloat16, and the lower half."""

_NAN = np.uint32(0x7FC00000)
"""The quiet NaN that replaces every NaN: adding noise to its bits does not overflow into the sign."""


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


@jax.jit
def seed_of(count: chex.Array) -> chex.Array:
    """Return mix(count) modulo 2^32 - 1, uint32: the seed of an update's noise, a scalar that all leaves share."""
    # The `rem` stops XLA from fusing, and so repeating, this hash in every loop.
    return jax.lax.rem(mix(count.astype(jnp.uint32)), np.uint32(0xFFFFFFFF))


def noise(shape: tuple[int, ...], seed: chex.Array, salt: chex.Array) -> chex.Array:
    """Return uniform 32-bit words that depend on an element's index, the update's seed and a salt.

        mix(index ^ seed ^ salt)          index: in row-major order, modulo 2^32

    The salt, the bits of the gradients, makes leaves of one shape differ. (With a constant per leaf in its place, they
    could not share a compiled program.)

    Args:
      shape: the leaf's shape.
      seed: a uint32 scalar, see `seed_of`.
      salt: uint32, a scalar or of the leaf's shape.
    """
    # One iota, reshaped: a sum over the axes has several operands, so XLA would store it as an array for all loops.
    index = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return mix(index ^ seed ^ salt)


def noisy_bits(x: chex.Array, noise16: chex.Array) -> chex.Array:
    """Return bits(x) + noise16, uint32, whose upper half is x rounded to bfloat16; the quiet NaN's bits for NaN."""
    return jnp.where(jnp.isnan(x), _NAN, jax.lax.bitcast_convert_type(x, jnp.uint32) + noise16)


def round_bits(x: chex.Array, noise16: chex.Array) -> chex.Array:
    """Return the bits of float32 numbers stochastically rounded to bfloat16: up with the probability of the rest.

        the upper half of  bits(x) + noise16,  noise16 uniform in 0 .. 2^16 - 1

    A number that bfloat16 can represent stays unchanged, infinities among them, and every NaN becomes the quiet one
    without sign and payload. Finite numbers above bfloat16's largest may become infinite, as in rounding to nearest.

    Args:
      x: float32.
      noise16: uint32 below 2^16, of the same shape.

    Returns:
      uint32 words whose lower half is zero.
    """
    return noisy_bits(x, noise16) & HIGH


def _upper(bits: chex.Array) -> chex.Array:
    return jax.lax.bitcast_convert_type((bits >> np.uint32(16)).astype(jnp.uint16), jnp.bfloat16)


def round_to_bfloat16(x: chex.Array, noise16: chex.Array) -> chex.Array:
    """Return float32 numbers stochastically rounded to bfloat16, as `round_bits` does."""
    # The `where` comes last: XLA repeats a loop that ends in a unary operation wherever its result is used.
    # NumPy's NaN: one made by JAX outside of a program would stop a run under jax_debug_nans.
    return jnp.where(jnp.isnan(x), np.array(np.nan, jnp.bfloat16), _upper(bits_of(x) + noise16))


def to_float32(x: chex.Array) -> chex.Array:
    """Return bfloat16 numbers as float32, exactly."""
    # By their bits: XLA removes a conversion to bfloat16 and back, and with it the rounding.
    upper = jax.lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(upper << np.uint32(16), jnp.float32)
