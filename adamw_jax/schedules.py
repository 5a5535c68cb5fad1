"""Factors over training, count -> factor: cosine with warm restarts; and the normalization of decays."""

import chex
import jax.numpy as jnp

from adamw_jax import checks
from adamw_jax.cycles import WarmRestarts
from adamw_jax.typing import Scalar


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
    checks.check_number("t_mult", t_mult, low=0, open_low=True)
    checks.check_non_negative("eta_min", eta_min)
    checks.check_non_negative("eta_max", eta_max)
    if not (checks.is_traced(eta_min) or checks.is_traced(eta_max)) and float(eta_min) > float(eta_max):
        raise ValueError(f"`eta_min` must not be above `eta_max`, got {eta_min} and {eta_max}")
    checks.check_number("eta_max_decay", eta_max_decay, low=0, open_low=True)
    checks.check_flag("endpoint", endpoint)
    checks.check_count("warmup", warmup, low=0)
    checks.check_flag("autorestart", autorestart)
    return WarmRestarts(period, t_mult, eta_min, eta_max, eta_max_decay, endpoint, warmup, autorestart)


def normalized_decay(lambda_norm: Scalar, updates: Scalar) -> chex.Array:
    """Return the decay for a run: lambda = lambda_norm sqrt(1 / T).

    Args:
      lambda_norm: the normalized decay, >= 0; it carries over between budgets.
      updates: T, the number of updates of the run (or cycle, or interval), >= 1.

    Returns:
      The decay, a scalar.

    Raises:
      ValueError: a number out of range.

    Source: Loshchilov & Hutter, arXiv 1711.05101, appendix B.1, with T = B T_epochs / b.

    >>> print(normalized_decay(0.05, 100).round(4))
    0.005
    """
    dtype = jnp.result_type(float)
    lambda_norm = checks.check_non_negative("lambda_norm", lambda_norm)
    updates = checks.check_number("updates", updates, low=1)
    return jnp.asarray(lambda_norm, dtype) * jnp.sqrt(1 / jnp.asarray(updates, dtype))
