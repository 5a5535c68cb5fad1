"""Factors over training, count -> factor: cosine with warm restarts, linear warm-up, warmup-stable-decay."""

from collections.abc import Callable

import chex
import jax.numpy as jnp

from adamw_jax._rates.position import WarmRestarts
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar, Schedule


def cosine_warm_restarts(
    period: Scalar,
    *,
    t_mult: Scalar = 1,
    eta_min: Scalar = 0.0,
    eta_max: Scalar = 1.0,
    eta_max_decay: Scalar = 1.0,
    endpoint: bool = True,
    warmup: Scalar = 0,
    autorestart: bool = True,
) -> WarmRestarts:
    """Return a cosine schedule with warm restarts, count -> factor.

    In cycle i of T_i updates, t_cur = 0, ..., T_i - 1:

        eta = eta_min + (peak_i - eta_min) (1 + cos(pi t_cur / D)) / 2
        D = T_i - 1 with `endpoint`, else T_i;   peak_i = max(eta_max eta_max_decay^i, eta_min)
        T_0 = period;   T_{i+1} = round(T_i t_mult), at least 1

    Cycles follow each other without limit. All counting is in integers, right at every restart up to count 2^31 - 1.

    Args:
      period: T_0 in updates, a positive integer.
      t_mult: ratio of the lengths of consecutive cycles, > 0. A float32, traced or not, that is nearest to a number of
        at most three decimals stands for that number, so that 1.1 makes the same cycles in whatever width it arrives.
      eta_min, eta_max: the factor's range, 0 <= eta_min <= eta_max.
      eta_max_decay: ratio of the peaks of consecutive cycles, > 0.
      endpoint: spend the last update of each cycle at exactly eta_min, as keras-adamw does; else stop one update short
        of it, as the paper and PyTorch do. The first update of a cycle has the peak either way.
      warmup: number of updates before the first cycle over which the factor grows in equal steps: update k = 0, 1, ...
        has the weight (k + 1) / (warmup + 1) between eta_min and the peak. Restarts do not warm up again.
      autorestart: False runs past the end of the cycle, where the cosine comes back up, as in keras-adamw.

    Returns:
      A callable from the count of updates made (int32, any shape) to the factor. Given to a preset or to
      `with_warm_restarts`, its position is kept in the optimizer's state instead, where it can be read and moved.

    Raises:
      TypeError, ValueError: an argument of another kind or out of range.

    Source: Loshchilov & Hutter, arXiv 1608.03983, equation 5, and arXiv 1711.05101, equation 14.

    >>> schedule = cosine_warm_restarts(3, t_mult=2)
    >>> print(schedule(jnp.arange(5)).round(2))
    [1.  0.5 0.  1.  0.9]
    """
    checks.check_count("period", period)
    checks.check_number("t_mult", t_mult, low=0, open_low=True, exact=True)
    checks.check_non_negative("eta_min", eta_min)
    checks.check_non_negative("eta_max", eta_max)
    if not (checks.is_traced(eta_min) or checks.is_traced(eta_max)) and float(eta_min) > float(eta_max):
        raise ValueError(f"`eta_min` must not be above `eta_max`, got {eta_min} and {eta_max}")
    checks.check_number("eta_max_decay", eta_max_decay, low=0, open_low=True)
    checks.check_flag("endpoint", endpoint)
    checks.check_count("warmup", warmup, low=0)
    checks.check_flag("autorestart", autorestart)
    return WarmRestarts(period, t_mult, eta_min, eta_max, eta_max_decay, endpoint, warmup, autorestart)


SHAPES: dict[str, Callable[[chex.Array], chex.Array]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + jnp.cos(jnp.pi * x)) / 2,
    "sqrt": lambda x: 1 - jnp.sqrt(x),
}
"""How the factor falls from 1 to 0 while x goes from 0 to 1."""


def linear_warmup(warmup: Scalar) -> Schedule:
    """Return the schedule that grows in equal steps and then stays: eta_k = min((k + 1) / (warmup + 1), 1).

    Args:
      warmup: number of updates with a factor below 1, an integer >= 0.

    Returns:
      A callable from the count k of updates made to the factor in (0, 1].

    Raises:
      ValueError, TypeError: a number of another kind or out of range.

    >>> print(linear_warmup(3)(jnp.arange(5)))
    [0.25 0.5  0.75 1.   1.  ]
    """
    checks.check_count("warmup", warmup, low=0)

    def schedule(count: chex.Numeric) -> chex.Array:
        dtype, steps = jnp.result_type(float), jnp.asarray(warmup, jnp.int32)
        # Compared as integers: large counts are not exact in float32.
        k = jnp.minimum(jnp.asarray(count, jnp.int32), steps)
        return (k.astype(dtype) + 1) / (steps.astype(dtype) + 1)

    return schedule


def warmup_stable_decay(
    updates: Scalar, *, warmup: Scalar = 0, decay: Scalar, shape: str = "linear", eta_min: Scalar = 0.0
) -> Schedule:
    """Return the schedule that warms up, stays at 1, and decays over the last updates of the run.

        k < warmup                   eta_k = (k + 1) / (warmup + 1)
        k <= updates - 1 - decay     eta_k = 1
        else                         eta_k = eta_min + (1 - eta_min) f(x),  x = (k - (updates - 1 - decay)) / decay

    so that the last update, k = updates - 1, uses exactly eta_min, and `decay` updates are below 1.

    Args:
      updates: length of the run, an integer.
      warmup, decay: lengths of the two ends, integers >= 0 and >= 1; together less than `updates`.
      shape: f, "linear": 1 - x; "cosine": (1 + cos(pi x)) / 2; "sqrt": 1 - sqrt(x).
      eta_min: the last factor, in [0, 1].

    Returns:
      A callable from the count k of updates made to the factor; past the end it stays at eta_min.

    Raises:
      ValueError, TypeError: a number of another kind or out of range, an unknown shape.

    Source: Hu et al., "MiniCPM", arXiv 2404.06395, section 4; Hägele et al., arXiv 2405.18392, for the shape "sqrt".

    >>> print(warmup_stable_decay(8, warmup=1, decay=4)(jnp.arange(8)))
    [0.5  1.   1.   1.   0.75 0.5  0.25 0.  ]
    """
    checks.check_count("updates", updates)
    checks.check_count("warmup", warmup, low=0)
    checks.check_count("decay", decay)
    checks.check_number("eta_min", eta_min, low=0, high=1)
    fall = SHAPES[checks.check_choice("shape", shape, tuple(SHAPES))]
    if not any(map(checks.is_traced, (updates, warmup, decay))) and float(warmup) + float(decay) >= float(updates):
        raise ValueError(f"`updates` must be more than `warmup` and `decay` together, got {updates}, {warmup}, {decay}")
    rise = linear_warmup(warmup)

    def schedule(count: chex.Numeric) -> chex.Array:
        dtype = jnp.result_type(float)
        k, last, length = (jnp.asarray(x, jnp.int32) for x in (count, updates, decay))
        # Subtracted as integers: large counts are not exact in float32.
        x = jnp.clip(k - (last - 1 - length), 0, length).astype(dtype) / length.astype(dtype)
        low = jnp.asarray(eta_min, dtype)
        return jnp.where(x > 0, low + (1 - low) * fall(x), rise(count))

    return schedule
