"""Lengths of consecutive cycles in 32-bit integers: T_{i+1} = round(T_i t_mult), rounded as Python rounds it."""

import fractions
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._tree import checks
from adamw_jax._tree.checks import MAX_COUNT
from adamw_jax._tree.typing import Scalar
from adamw_jax._tree.width import arithmetic_dtype

WORD = 2**32 - 1
"""The largest uint32."""

POWERS = np.asarray([pow(2, s, 1000) for s in range(64)], np.uint32)
"""2^s modulo 1000, from which the error of thousandths in a float64 follows."""

LIMITS = np.asarray([WORD, *(min(500 * 2**31 // d, WORD) for d in range(1, 501))], np.uint32)
"""`Ratio.limit` where the error is d thousandths of an ulp."""


class Ratio(NamedTuple):
    """t_mult = whole + p / q in integers, 0 <= p <= q <= 2^23: Python's, or uint32 arrays of a traced t_mult.

    `exponent`, `limit` and `is_above` decide ties. Let x be the float64 next to t_mult. Python rounds T x to a float64
    first, which is off the tie if T |x - t_mult| is more than half an ulp of the product. With w = |x - t_mult| in ulps
    of x and f = floor(log2(product)) - floor(log2(x)), that is T 2^-f > 1 / (2 w). As T 2^-f < 2 and 1 / (2 w) >= 1:

        f = floor(log2(T)), and T, shifted to 32 bits, is above limit = 2^31 / (2 w)

    with exponent = floor(log2(x)) + 1, limit at most 2^32 - 1, and is_above where x > t_mult.
    """

    whole: Any
    p: Any
    q: Any
    exponent: Any
    limit: Any
    is_above: Any


def fraction_of(t_mult: Scalar) -> fractions.Fraction:
    """Return a concrete t_mult as the nearest fraction with a denominator of at most 10^6.

    The shortest decimal that its dtype tells apart counts: a float32 1.1 is 11/10, not the 1.10000002384 stored.

    >>> fraction_of(1.1), fraction_of(np.float32(1.1)), fraction_of(1 / 3)
    (Fraction(11, 10), Fraction(11, 10), Fraction(1, 3))
    """
    is_single = getattr(t_mult, "dtype", None) == np.float32
    number = float(str(np.asarray(t_mult)[()])) if is_single else float(t_mult)
    return fractions.Fraction(number).limit_denominator(10**6)


def _ratio(t_mult: Scalar) -> Ratio:
    if checks.is_traced(t_mult):
        return _traced_ratio(jnp.asarray(t_mult))
    fraction = fraction_of(t_mult)
    whole, rest = divmod(fraction, 1)
    p, q, exponent = rest.numerator, rest.denominator, math.frexp(fraction)[1]
    below = p * 2 ** max(53 - exponent, 0) % q
    error = min(below, q - below)
    limit = min(q * 2**30 // error, WORD) if error else WORD
    return Ratio(min(whole, MAX_COUNT), p, q, exponent, np.uint32(limit), 2 * below > q)


def _traced_ratio(t_mult: chex.Array) -> Ratio:
    if jnp.issubdtype(t_mult.dtype, jnp.integer):
        return Ratio(t_mult.astype(jnp.uint32), 0, 1, 0, np.uint32(WORD), False)
    number = jnp.clip(t_mult.astype(arithmetic_dtype(t_mult)), 0, 2.0**31)
    whole = jnp.floor(number)
    part = number - whole
    thousandths = jnp.round(1000 * part)
    is_short = jnp.abs(1000 * part - thousandths) <= 1000 * number * np.finfo(number.dtype).eps
    exponent = jnp.frexp(number)[1]
    below = jnp.where(is_short, thousandths, 0).astype(jnp.uint32) * jnp.asarray(POWERS)[53 - exponent] % 1000
    return Ratio(
        whole.astype(jnp.uint32),
        jnp.where(is_short, thousandths, jnp.round(2.0**23 * part)).astype(jnp.uint32),
        jnp.where(is_short, 1000, 2**23).astype(jnp.uint32),
        exponent,
        jnp.asarray(LIMITS)[jnp.minimum(below, 1000 - below)],
        below > 500,
    )


def next_period(period: chex.Array, t_mult: Scalar) -> chex.Array:
    """Return round(period * t_mult) of an int32 period as Python rounds it, at least 1 and at most 2^31 - 1.

    A concrete t_mult is taken as `fraction_of` it, a traced integer as it is. A traced float within an ulp of a number
    of at most three decimals is that number, any other one the nearest multiple of 2^-23.

    >>> print(next_period(jnp.int32(15), 1.1), round(15 * 1.1), next_period(jnp.int32(55), 1.1), round(55 * 1.1))
    16 16 61 61
    """
    length = period.astype(jnp.uint32)
    whole, p, q, exponent, limit, is_above = _ratio(t_mult)
    product = length * whole
    if checks.is_traced(p) or p:
        # Long division of `length` times p by q, a byte of `length` at a time.
        quotient, rest = jnp.uint32(0), jnp.uint32(0)
        for shift in (24, 16, 8, 0):
            rest = (rest << 8) + ((length >> shift) & 255) * p
            quotient, rest = (quotient << 8) + rest // q, rest % q
        product = product + quotient
        zeros, zeros_after = jax.lax.clz(length), jax.lax.clz(product)
        is_off_tie = ((length << zeros) > limit) & (
            zeros.astype(jnp.int32) - zeros_after.astype(jnp.int32) == exponent - 1
        )
        tie_goes_up = jnp.where(is_off_tie, is_above, product % 2 == 1)
        product = product + jnp.where(2 * rest == q, tie_goes_up, 2 * rest > q).astype(jnp.uint32)
    is_too_long = length > MAX_COUNT // jnp.maximum(jnp.asarray(whole, jnp.uint32), 1)
    return jnp.where(is_too_long, MAX_COUNT, jnp.clip(product, 1, MAX_COUNT)).astype(jnp.int32)


@functools.lru_cache(maxsize=64)
def cycle_table(period: int, t_mult: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return starts and lengths of all cycles up to the one whose length repeats for ever, or past the last count."""
    starts, periods = [0], [period]
    while starts[-1] + periods[-1] <= MAX_COUNT:
        length = max(1, round(min(periods[-1] * t_mult, MAX_COUNT)))
        if length == periods[-1]:
            break
        starts.append(starts[-1] + periods[-1])
        periods.append(length)
    return tuple(starts), tuple(periods)
