"""Both moments of a parameter in one uint16 word: positions on a logarithmic scale, stochastically rounded."""

import dataclasses
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._storage.rounding import bits_of

_SHIFT = np.uint32(21)
"""Bits of a float32 below one code: four codes to the octave, linear in the number between two codes."""

_BELOW = np.uint32((1 << 21) - 1)

_SIGN = np.uint32(1 << 15)
"""The sign of mu in a word."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Codes 0, 1, ... for magnitudes 0, ..., four to the octave from `smallest` on, linear below it.

        code(x) = (bits(|x| + smallest) - bits(smallest)) / 2^21

    Attributes:
      smallest: a power of two, the magnitude that is added.
      not_a_number: the largest code, for infinities and NaN; too large finite magnitudes get the code below it.
    """

    smallest: float
    not_a_number: int

    def encode(self, x: chex.Array, noise21: chex.Array) -> chex.Array:
        """Return the uint32 codes of float32 magnitudes, stochastically rounded; noise21 is uniform below 2^21."""
        smallest = np.float32(self.smallest)
        code = (bits_of(x + smallest) - smallest.view(np.uint32) + noise21) >> _SHIFT
        code = jnp.minimum(code, np.uint32(self.not_a_number - 1))
        return jnp.where(jnp.isfinite(x), code, np.uint32(self.not_a_number))

    def decode(self, shifted: chex.Array) -> chex.Array:
        """Return the float32 magnitudes of codes, NaN for the largest.

        Args:
          shifted: the codes times 2^21, uint32, from a shift and a mask of the word.
        """
        smallest = np.float32(self.smallest)
        magnitude = jax.lax.bitcast_convert_type(shifted + smallest.view(np.uint32), jnp.float32) - smallest
        return jnp.where(shifted == np.uint32(self.not_a_number) << _SHIFT, jnp.nan, magnitude)


MU = Scale(2.0**-28, 127)
"""The first moment: 7 bits and a sign, up to 11."""

NU = Scale(2.0**-56, 255)
"""The second moment: 8 bits, up to 181."""


def pack8(mu: chex.Array, nu: chex.Array, bits: chex.Array) -> chex.Array:
    """Return uint16 words: the sign of mu, its code in 7 bits, the code of nu in 8.

    Args:
      mu, nu: float32 arrays, nu >= 0.
      bits: uint32 noise of the same shape: the lowest 21 bits round mu, the highest nu.
    """
    sign = (bits_of(mu) >> np.uint32(16)) & _SIGN
    upper = sign | (MU.encode(jnp.abs(mu), bits & _BELOW) << np.uint32(8))
    # Both are narrowed before they meet: XLA repeats a loop that ends in a unary operation wherever its result is used.
    return upper.astype(jnp.uint16) | NU.encode(nu, bits >> np.uint32(11)).astype(jnp.uint16)


def unpack8(words: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Return the float32 moments (mu, nu) of the words.

    >>> words = pack8(jnp.array([-0.5]), jnp.array([0.25]), jnp.zeros(1, jnp.uint32))
    >>> print(*unpack8(words))
    [-0.5] [0.25]
    """
    words = words.astype(jnp.uint32)
    mu = MU.decode((words << np.uint32(13)) & (np.uint32(127) << _SHIFT))
    return jnp.where(words >= _SIGN, -mu, mu), NU.decode((words << _SHIFT) & (np.uint32(255) << _SHIFT))


def bounded(weights: Sequence[chex.Array], mu: chex.Array, nu: chex.Array, g: chex.Array | None = None) -> chex.Array:
    """Return nu, where its code has few digits or none, no smaller than exact moments with this mu can have it.

        nu >= (1 - b2) (1 - b1^2 / b2) / (1 - b1)^2 mu^2          and with g,   nu >= (1 - b2) g^2

    The first bound is Cauchy and Schwarz's inequality for two exponential averages of one sequence of gradients. So
    gradients too small for the code of nu, and not for that of mu, turn into steps as long as exact moments allow.

    Args:
      weights: b1, 1 - b1, b2, 1 - b2.
      mu, nu: what `unpack8` returned.
      g: the gradients of this update, for a direction that looks at them.
    """
    b1, rest_1, b2, rest_2 = weights
    share = jnp.maximum(1 - jnp.square(b1) / jnp.maximum(b2, np.finfo(np.float32).tiny), 0) / jnp.square(rest_1)
    least = rest_2 * share * jnp.square(mu)
    if g is not None:
        least = jnp.maximum(least, rest_2 * jnp.square(g))
    return jnp.where(nu < jnp.asarray(NU.smallest, nu.dtype), jnp.maximum(nu, least.astype(nu.dtype)), nu)
