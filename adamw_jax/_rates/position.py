"""Schedules that know their position: how it starts and advances, and the factor that belongs to it."""

import abc
import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from adamw_jax._rates.products import as_written, binary_of, rounded_product
from adamw_jax._tree import checks
from adamw_jax._tree.checks import MAX_COUNT
from adamw_jax._tree.typing import Scalar

PENDING = -1.0
"""What eta holds while it waits to be computed from t_cur: no factor is negative."""


class Position(NamedTuple):
    """Where a schedule with restarts stands before an update.

    Attributes:
      t_cur: updates made in the current cycle, int32; negative during the warm-up.
      period: length T_i of the current cycle, in updates, int32.
      cycle: index i of the current cycle, int32.
    """

    t_cur: chex.Array
    period: chex.Array
    cycle: chex.Array


class Cycles(abc.ABC):
    """A schedule by position: what `with_warm_restarts` keeps in the state and asks for the factor."""

    @abc.abstractmethod
    def __call__(self, count: chex.Numeric) -> chex.Array:
        """Return the factor of the update that `count` updates precede."""

    @abc.abstractmethod
    def start(self) -> Position:
        """Return the position before the first update."""

    @abc.abstractmethod
    def position(self, count: chex.Numeric) -> Position:
        """Return the position after `count` updates in which nobody intervened."""

    @abc.abstractmethod
    def advance(self, position: Position) -> Position:
        """Return the position one update later."""

    @abc.abstractmethod
    def eta(self, position: Position) -> chex.Array:
        """Return the factor at a position, in the default float width."""

    def factor(self, position: Position, eta: chex.Array) -> chex.Array:
        """Return the factor of the update at a position: the kept eta, or while that is pending, the position's."""
        return jnp.where(eta < 0, self.eta(position), eta)


def _next_period(period: int, t_mult: float) -> int:
    return min(max(1, round(period * t_mult)), MAX_COUNT)


@functools.lru_cache(maxsize=64)
def _cycle_table(period: int, t_mult: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return starts and lengths of all cycles up to the one whose length repeats for ever, or past the last count."""
    starts, periods = [0], [period]
    while starts[-1] + periods[-1] <= MAX_COUNT and (length := _next_period(periods[-1], t_mult)) != periods[-1]:
        starts.append(starts[-1] + periods[-1])
        periods.append(length)
    return tuple(starts), tuple(periods)


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

    def __call__(self, count: chex.Numeric) -> chex.Array:
        """Return the factor of the update that `count` updates precede."""
        return self.eta(self.position(count))

    def start(self) -> Position:
        """Return the position before the first update."""
        warmup, period = jnp.asarray(self.warmup, jnp.int32), jnp.asarray(self.period, jnp.int32)
        return Position(-warmup, period, jnp.zeros([], jnp.int32))

    def position(self, count: chex.Numeric) -> Position:
        """Return the position after `count` updates in which nobody intervened: closed form, integers only."""
        t_cur, period, cycle = self.start()
        t_cur = t_cur + jnp.asarray(count, jnp.int32)
        if not self.autorestart:
            return Position(t_cur, period, cycle)
        if checks.is_traced(self.period) or checks.is_traced(self.t_mult):
            start, period, cycle = jnp.vectorize(self._walk)(t_cur)
        else:
            starts, periods = _cycle_table(int(self.period), as_written(self.t_mult))
            found = jnp.searchsorted(jnp.asarray(starts, jnp.int32), t_cur, side="right") - 1
            cycle = jnp.maximum(found, 0).astype(jnp.int32)
            start, period = jnp.asarray(starts, jnp.int32)[cycle], jnp.asarray(periods, jnp.int32)[cycle]
        # What lies past the last start found is made of cycles of one length.
        passed = jnp.maximum(t_cur - start, 0)
        return Position(jnp.where(t_cur < 0, t_cur, passed % period), period, cycle + passed // period)

    def _walk(self, t_cur: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        """Find the cycle of t_cur where no table can be made: as many steps as there are cycles of new lengths."""

        def goes_on(carry: tuple[chex.Array, chex.Array, chex.Array]) -> chex.Array:
            start, period, _ = carry
            return (t_cur - start >= period) & (self._lengthen(period) != period)

        def step(carry: tuple[chex.Array, chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array, chex.Array]:
            start, period, cycle = carry
            return start + period, self._lengthen(period), cycle + 1

        zero = jnp.zeros([], jnp.int32)
        found: tuple[chex.Array, chex.Array, chex.Array] = jax.lax.while_loop(
            goes_on, step, (zero, jnp.asarray(self.period, jnp.int32), zero)
        )
        return found

    def advance(self, position: Position) -> Position:
        """Return the position one update later: t_cur + 1, or the start of the next cycle."""
        t_cur, period, cycle = position
        moved = jnp.where(t_cur < MAX_COUNT, t_cur + 1, t_cur)
        if not self.autorestart:
            return Position(moved, period, cycle)
        ends = moved >= period
        if not checks.equals(self.t_mult, 1):
            period = jnp.where(ends, self._lengthen(period), period)
        return Position(jnp.where(ends, 0, moved), period, jnp.where(ends, cycle + 1, cycle))

    def _lengthen(self, period: chex.Array) -> chex.Array:
        factor: Any = self.t_mult
        if checks.is_traced(factor) and factor.dtype == jnp.float64:
            length = jnp.round(period.astype(jnp.float64) * factor)
            return jnp.clip(length, 1, MAX_COUNT).astype(jnp.int32)
        if not checks.is_traced(factor) and float(factor).is_integer():
            whole = min(int(factor), MAX_COUNT)
            return jnp.where(period > MAX_COUNT // whole, MAX_COUNT, period * whole)
        return rounded_product(period, binary_of(factor))

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
