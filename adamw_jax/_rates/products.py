"""The product of a count and a factor as Python rounds it, in 32-bit integers: no float64 in anybody's program.

A number is some 32-bit words, the lowest first, and how many of its bits are behind the binary point.
"""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar

_Words = tuple[Any, Any, Any]

_DIGITS = 53
"""Bits of a float64's mantissa."""


class Binary(NamedTuple):
    """A number >= 0 in binary: (low + 2^32 high) / 2^fraction, low and high uint32, fraction int32."""

    low: Any
    high: Any
    fraction: Any


def _word(x: Any) -> Any:
    return jnp.asarray(x, jnp.uint32)


def _times(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the lower and the upper word of a product of two words, from products of their halves."""
    low_a, high_a, low_b, high_b = a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16
    low, middle = low_a * low_b, low_a * high_b
    middle = middle + (low >> 16)
    crossed = high_a * low_b + (middle & 0xFFFF)
    return (crossed << 16) | (low & 0xFFFF), high_a * high_b + (middle >> 16) + (crossed >> 16)


def _length(words: _Words) -> Any:
    low, high, top = (32 - jax.lax.clz(word).astype(jnp.int32) for word in words)
    return jnp.where(top > 0, 64 + top, jnp.where(high > 0, 32 + high, low))


def _shifted(words: _Words, n: Any) -> _Words:
    """Return the words without their n lowest bits, n from 0 to 96."""
    whole, rest = n // 32, _word(n % 32)
    picked = [sum(jnp.where(whole == k, words[i + k], _word(0)) for k in range(3 - i)) for i in range(3)]
    above = [*picked[1:], _word(0)]
    # In two shifts, because shifting by 32 is not defined.
    low, high, top = ((word >> rest) | ((more << (31 - rest)) << 1) for word, more in zip(picked, above, strict=True))
    return low, high, top


def _rounded(words: _Words, n: Any) -> _Words:
    """Return words / 2^n rounded to an integer, ties to even; the words have 95 bits at most."""
    low, high, top = words
    doubled = low << 1, (high << 1) | (low >> 31), (top << 1) | (high >> 31)
    kept_and_half = _shifted(doubled, n)
    low, high, top = _shifted(kept_and_half, jnp.int32(1))
    below = [jnp.clip(n - 32 * i, 0, 32) for i in range(3)]
    masks = [jnp.where(bits == 32, _word(0xFFFFFFFF), (_word(1) << _word(bits % 32)) - 1) for bits in below]
    more = sum(((word & mask) != 0).astype(jnp.uint32) for word, mask in zip(doubled, masks, strict=True)) > 0
    up = (kept_and_half[0] & 1) & (more | ((low & 1) == 1)).astype(jnp.uint32)
    low = low + up
    up = up & (low == 0).astype(jnp.uint32)
    high = high + up
    return low, high, top + (up & (high == 0).astype(jnp.uint32))


def _to_float64(words: _Words, fraction: Any) -> tuple[_Words, Any]:
    """Round to the 53 bits of a float64, ties to even."""
    dropped = jnp.maximum(_length(words) - _DIGITS, 0)
    return _rounded(words, dropped), fraction - dropped


def _thousandths(k: Any) -> Binary:
    """Return the float64 nearest to k / 1000, k from 1 to 10^6: a long division by 125 to 56 bits or more."""
    zeros = jax.lax.clz(k)
    first, rest = jax.lax.div(k << zeros, _word(125)), jax.lax.rem(k << zeros, _word(125))
    second, rest = jax.lax.div(rest << 15, _word(125)), jax.lax.rem(rest << 15, _word(125))
    third, rest = jax.lax.div(rest << 15, _word(125)), jax.lax.rem(rest << 15, _word(125))
    low = (first << 31) | (second << 16) | (third << 1) | (rest > 0).astype(jnp.uint32)
    words, fraction = _to_float64((low, first >> 1, _word(0)), zeros.astype(jnp.int32) + 34)
    return Binary(words[0], words[1], fraction)


def _of_float32(x: chex.Array) -> Binary:
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    exponent = (bits >> 23).astype(jnp.int32)
    mantissa = (bits & 0x7FFFFF) | jnp.where(exponent > 0, _word(1 << 23), _word(0))
    fraction = 150 - jnp.maximum(exponent, 1)
    exact = Binary(mantissa << 29, mantissa >> 3, fraction + 29)
    # k / 1000 is the number if it is nearest among all float32; with 2^-fraction as the unit, within half of one.
    places = jnp.clip(fraction - 3, 1, 27)
    k = (mantissa * 125 + (_word(1) << _word(places - 1))) >> _word(places)
    off = (mantissa * 125 - (k << _word(places))).astype(jnp.int32)
    written = (x >= 2.0**-7) & (x < 1000) & (jnp.abs(off) <= 62)
    short = _thousandths(jnp.maximum(k, 1))
    return Binary(*(jnp.where(written, a, b) for a, b in zip(short, exact, strict=True)))


def as_written(factor: Scalar) -> float:
    """Return a concrete factor as float64: of a float32, the number of at most three decimals that it stands for.

    >>> as_written(np.float32(1.1)), as_written(np.float32(1 / 3))
    (1.1, 0.3333333432674408)
    """
    number = float(factor)
    if getattr(factor, "dtype", None) == np.float32 and 2.0**-7 <= number < 1000:
        short = round(1000 * number) / 1000
        return short if np.float32(short) == np.float32(number) else number
    return number


def binary_of(factor: Scalar) -> Binary:
    """Return a factor in binary: exactly, but a float32 is the number of at most three decimals that it stands for.

    Whoever writes 1.1 means 1.1, and not the 1.10000002384 that JAX makes of it: 15 times that is no tie any more.

    Args:
      factor: > 0 and finite, concrete or traced; no wider than float32 if traced.
    """
    if checks.is_traced(factor):
        traced = jnp.asarray(factor)
        if jnp.issubdtype(traced.dtype, jnp.integer):
            return Binary(_word(traced), _word(0), jnp.int32(0))
        return _of_float32(traced.astype(jnp.float32))
    mantissa, exponent = math.frexp(as_written(factor))
    digits = int(mantissa * 2**_DIGITS)
    return Binary(np.uint32(digits & 0xFFFFFFFF), np.uint32(digits >> 32), np.int32(_DIGITS - exponent))


@jax.jit
def rounded_product(count: chex.Array, factor: Binary) -> chex.Array:
    """Return count times factor as Python's round(count * factor) gives it, at least 1 and at most 2^31 - 1.

    The product is rounded twice, both times to even where it is a tie: to a float64, and then to an integer.

    Args:
      count: int32, >= 0.
      factor: from `binary_of`.

    >>> print(rounded_product(jnp.int32(15), binary_of(1.1)), round(15 * 1.1))
    16 16
    """
    count = count.astype(jnp.uint32)
    low, carried = _times(count, _word(factor.low))
    high, top = _times(count, _word(factor.high))
    high = high + carried
    words = low, high, top + (high < carried).astype(jnp.uint32)
    # What has no bit behind the point is an integer below 2^53, or beyond all counts.
    words, fraction = _to_float64(words, jnp.asarray(factor.fraction, jnp.int32))
    low, high, top = _rounded(words, jnp.clip(fraction, 0, 96))
    beyond = ((high | top) > 0) | (low > checks.MAX_COUNT)
    return jnp.clip(jnp.where(beyond, _word(checks.MAX_COUNT), low), 1).astype(jnp.int32)
