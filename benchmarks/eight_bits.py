"""An experiment: both moments in one uint16 word per parameter, for quality.py to judge.

A moment x is stored as the position of |x| + c on the logarithmic scale that a float32's bits are, four steps to the
octave, stochastically rounded between two steps (so that the mean of what is read back is x): 7 bits and a sign for
mu with c = 2^-28, 8 bits for nu with c = 2^-56. The largest code stands for all that is not finite.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax.transforms.rounding import noise

SHIFT = 21


class EightBitState(NamedTuple):
    count: jax.Array
    words: optax.Updates


def _bits(x):
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def encode(x, smallest, largest, noise21):
    origin = np.float32(smallest).view(np.uint32)
    code = (_bits(jnp.abs(x) + np.float32(smallest)) + noise21 - origin) >> SHIFT
    return jnp.where(jnp.isfinite(x), jnp.minimum(code, largest - 1), largest).astype(jnp.uint32)


def decode(code, smallest, largest):
    origin = np.float32(smallest).view(np.uint32)
    x = jax.lax.bitcast_convert_type((code << SHIFT) + origin, jnp.float32) - np.float32(smallest)
    return jnp.where(code == largest, jnp.nan, x)


def pack(mu, nu, words):
    low = np.uint32((1 << SHIFT) - 1)
    sign = (_bits(mu) >> 31) << 15
    codes = encode(mu, 2.0**-28, 127, words & low) << 8 | encode(nu, 2.0**-56, 255, (words >> 11) & low)
    return (sign | codes).astype(jnp.uint16)


def unpack(words):
    words = words.astype(jnp.uint32)
    mu, nu = decode((words >> 8) & 127, 2.0**-28, 127), decode(words & 255, 2.0**-56, 255)
    return jnp.where(words >> 15 == 1, -mu, mu), nu


def scale_by_eight_bit_adam(b1=0.9, b2=0.999, eps=1e-8):
    def init(params):
        return EightBitState(jnp.zeros([], jnp.int32), jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.uint16), params))

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        leaves, structure = jax.tree.flatten(updates)
        words, directions = [], []
        for leaf, (g, word) in enumerate(zip(leaves, jax.tree.leaves(state.words), strict=True)):
            mu, nu = unpack(word)
            mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g * g
            words.append(pack(mu, nu, noise(g.shape, count, np.uint32(leaf))))
            mu, nu = unpack(words[-1])
            directions.append(mu / (1 - b1**count) / (jnp.sqrt(nu / (1 - b2**count)) + eps))
        return jax.tree.unflatten(structure, directions), EightBitState(count, jax.tree.unflatten(structure, words))

    return optax.GradientTransformation(init, update)
