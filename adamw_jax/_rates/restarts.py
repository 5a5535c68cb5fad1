"""Cosine with warm restarts: the cycles, counted in integers, and the factor in them."""

import dataclasses
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rates.periods import cycle_table, fraction_of, next_period
from adamw_jax._rates.position import Cycles, Position
from adamw_jax._tree import checks
from adamw_jax._tree.checks import MAX_COUNT
from adamw_jax._tree.typing import Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class WarmRestarts(Cycles):
    """The schedule that `cosine_warm_restarts` returns: a function of the count, and the steps of its position."""

    period: Scalar
    t_mult: Scalar
    eta_min: Scalar
    eta_max: Scalar
    eta_max_decay: Scalar
    endpoint: bool
    warmup: Scalar
    autorestart: bool
    label: ClassVar[str] = "cosine_warm_restarts"

    def __call__(self, count: chex.Numeric) -> chex.Array:
        """Return the factor of the update that `count` updates precede."""
        return self.eta(self.position(count))

    def start(self) -> Position:
        """Return the position before the first update."""
        warmup, period = jnp.asarray(self.warmup, jnp.int32), jnp.asarray(self.period, jnp.int32)
        return Position(-warmup, period, jnp.zeros([], jnp.int32))

    def position(self, count: chex.Numeric) -> Position:
        """Return the position after `count` updates without a move by hand: closed form, integers only."""
        t_cur, period, cycle = self.start()
        t_cur = t_cur + jnp.asarray(count, jnp.int32)
        if not self.autorestart:
            return Position(t_cur, *jnp.broadcast_arrays(period, cycle, t_cur)[:2])
        if checks.is_traced(self.period) or checks.is_traced(self.t_mult):
            start, period, cycle = jnp.vectorize(self._walk)(t_cur)
        else:
            starts, periods = cycle_table(int(self.period), float(fraction_of(self.t_mult)))
            found = jnp.searchsorted(jnp.asarray(starts, jnp.int32), t_cur, side="right") - 1
            cycle = jnp.maximum(found, 0).astype(jnp.int32)
            start, period = jnp.asarray(starts, jnp.int32)[cycle], jnp.asarray(periods, jnp.int32)[cycle]
        # Past the last start, all cycles have one length.
        passed = jnp.maximum(t_cur - start, 0)
        return Position(jnp.where(t_cur < 0, t_cur, passed % period), period, cycle + passed // period)

    def _walk(self, t_cur: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        """Find the cycle of t_cur for traced numbers, one step per cycle until the lengths stay the same."""

        def goes_on(carry: tuple[chex.Array, chex.Array, chex.Array]) -> chex.Array:
            start, period, _ = carry
            return (t_cur - start >= period) & (next_period(period, self.t_mult) != period)

        def step(carry: tuple[chex.Array, chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array, chex.Array]:
            start, period, cycle = carry
            return start + period, next_period(period, self.t_mult), cycle + 1

        zero = jnp.zeros([], jnp.int32)
        found: tuple[chex.Array, chex.Array, chex.Array] = jax.lax.while_loop(
            goes_on, step, (zero, jnp.asarray(self.period, jnp.int32), zero)
        )
        return found

    def peaks(self, updates: int) -> np.ndarray:
        """Return the counts at which cycles begin, and the last of the run: its largest eta and all T_i are there.

        Of many cycles of one length, they are the first and the last.
        """
        last, warmup = updates - 1, int(self.warmup)
        starts, periods = cycle_table(int(self.period), float(fraction_of(self.t_mult)))
        last_start = starts[-1] + max(last - warmup - starts[-1], 0) // periods[-1] * periods[-1]
        counts = np.asarray([*starts, last_start] if self.autorestart else [0], np.int64) + warmup
        return np.append(counts[counts < last], last)

    def advance(self, position: Position) -> Position:
        """Return the position one update later: t_cur + 1, or the start of the next cycle."""
        t_cur, period, cycle = position
        moved = jnp.where(t_cur < MAX_COUNT, t_cur + 1, t_cur)
        if not self.autorestart:
            return Position(moved, period, cycle)
        ends = moved >= period
        if not checks.equals(self.t_mult, 1):
            period = jnp.where(ends, next_period(period, self.t_mult), period)
        return Position(jnp.where(ends, 0, moved), period, jnp.where(ends, cycle + 1, cycle))

    def eta(self, position: Position) -> chex.Array:
        """Return the factor at a position, in the default float width."""
        t_cur, period, cycle = position
        dtype = jnp.result_type(float)
        eta_min, peak, decay = (jnp.asarray(x, dtype) for x in (self.eta_min, self.eta_max, self.eta_max_decay))
        if not checks.equals(self.eta_max_decay, 1):
            peak = jnp.maximum(peak * decay ** cycle.astype(dtype), eta_min)
        since = jnp.maximum(t_cur, 0)
        last = jnp.maximum(period - 1, 1) if self.endpoint else period
        if self.autorestart:
            weight = (1 + jnp.cos(jnp.pi * (since.astype(dtype) / last.astype(dtype)))) / 2
        else:
            # cos(pi (k + f)) = (-1)^k cos(pi f): whole half-turns are counted in integers.
            sign = (1 - 2 * (since // last % 2)).astype(dtype)
            weight = (1 + sign * jnp.cos(jnp.pi * ((since % last).astype(dtype) / last.astype(dtype)))) / 2
        if not checks.equals(self.warmup, 0):
            warmup = jnp.asarray(self.warmup, jnp.int32)
            ramp = jnp.maximum(t_cur + warmup + 1, 1).astype(dtype) / (warmup + 1).astype(dtype)
            weight = jnp.where(t_cur < 0, ramp, weight)
        return peak * weight + eta_min * (1 - weight)


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

    Cycles follow each other without limit. Counting is in integers, exact at every restart up to count 2^31 - 1.

    Args:
      period: T_0 in updates, a positive integer.
      t_mult: ratio of the lengths of consecutive cycles, > 0. A concrete number is taken as the nearest fraction with a
        denominator up to 10^6. Of a traced float, three decimals are exact (1.1 makes the same cycles in float32),
        others the nearest multiple of 2^-23; a traced integer is exact.
      eta_min, eta_max: the factor's range, 0 <= eta_min <= eta_max.
      eta_max_decay: ratio of the peaks of consecutive cycles, > 0.
      endpoint: spend the last update of each cycle at exactly eta_min, as keras-adamw does; else stop one update short
        of it, as the paper and PyTorch do. The first update of a cycle has the peak either way.
      warmup: number of updates before the first cycle over which the factor grows in equal steps: update k = 0, 1, ...
        has the weight (k + 1) / (warmup + 1) between eta_min and the peak. Restarts do not warm up again.
      autorestart: False runs past the end of the cycle, where the cosine comes back up, as in keras-adamw.

    Returns:
      A callable from the count of updates made (int32, any shape) to the factor. Given to a preset or to
      `with_schedule`, its position is kept in the optimizer's state instead, where it can be read and moved.

    Raises:
      TypeError, ValueError: an argument of another kind or out of range, or a ratio of cycles with autorestart=False.

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
    for name, ratio in (("t_mult", t_mult), ("eta_max_decay", eta_max_decay)):
        if not (autorestart or checks.is_traced(ratio) or checks.equals(ratio, 1)):
            raise ValueError(f"`{name}` must be 1 with autorestart=False, for no further cycle begins, got {ratio}")
    return WarmRestarts(period, t_mult, eta_min, eta_max, eta_max_decay, endpoint, warmup, autorestart)
