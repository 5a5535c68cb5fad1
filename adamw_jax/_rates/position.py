"""The position of a schedule: how it starts and advances, and the factor at it."""

import abc
import dataclasses
from typing import NamedTuple

import chex
import jax.numpy as jnp

from adamw_jax._tree import checks
from adamw_jax._tree.typing import ScalarOrSchedule
from adamw_jax._tree.width import as_scalar

PENDING = -1.0
"""The value of eta that makes the next update compute it from the position: no factor is negative."""

CONSTANT = -1
"""Index of the cycle where the schedule is a number."""


class Position(NamedTuple):
    """Position of a schedule with restarts before an update.

    Attributes:
      t_cur: updates made in the current cycle, int32; negative during the warm-up.
      period: length T_i of the current cycle, in updates, int32.
      cycle: index i of the current cycle, int32; -1 where the schedule is a number.
    """

    t_cur: chex.Array
    period: chex.Array
    cycle: chex.Array


class Cycles(abc.ABC):
    """A schedule as steps of a position, which `with_schedule` keeps in the state, and a factor at each position."""

    @abc.abstractmethod
    def __call__(self, count: chex.Numeric) -> chex.Array:
        """Return the factor of the update that `count` updates precede."""

    @abc.abstractmethod
    def start(self) -> Position:
        """Return the position before the first update."""

    @abc.abstractmethod
    def position(self, count: chex.Numeric) -> Position:
        """Return the position after `count` updates without a move by hand."""

    @abc.abstractmethod
    def advance(self, position: Position) -> Position:
        """Return the position one update later."""

    @abc.abstractmethod
    def eta(self, position: Position) -> chex.Array:
        """Return the factor at a position, in the default float width."""

    def factor(self, position: Position, eta: chex.Array) -> chex.Array:
        """Return the stored eta, or where that is pending, the factor at the position."""
        return jnp.where(eta < 0, self.eta(position), eta)


@dataclasses.dataclass(frozen=True, eq=False)
class Counted(Cycles):
    """Adapts a plain schedule or a constant to `Cycles`: one cycle that never ends."""

    schedule: ScalarOrSchedule

    def __call__(self, count: chex.Numeric) -> chex.Array:
        """Return the schedule's factor at a count."""
        if not callable(self.schedule):
            return as_scalar(self.schedule)
        return as_scalar(checks.check_returned("schedule(count)", self.schedule(count)))

    def start(self) -> Position:
        """Return count 0 of a cycle of the greatest length."""
        return self.position(0)

    def position(self, count: chex.Numeric) -> Position:
        """Return a count as the position in a cycle of the greatest length."""
        t_cur = jnp.asarray(count, jnp.int32)
        cycle = jnp.full(t_cur.shape, 0 if callable(self.schedule) else CONSTANT, jnp.int32)
        return Position(t_cur, jnp.full(t_cur.shape, checks.MAX_COUNT, jnp.int32), cycle)

    def advance(self, position: Position) -> Position:
        """Return the next count; the greatest one stays."""
        return position._replace(t_cur=jnp.minimum(position.t_cur, checks.MAX_COUNT - 1) + 1)

    def eta(self, position: Position) -> chex.Array:
        """Return the schedule's factor at this count."""
        return self(position.t_cur)

    def factor(self, position: Position, eta: chex.Array) -> chex.Array:
        """Return a constant itself, not the stored one, so that changing it takes effect at once."""
        return super().factor(position, eta) if callable(self.schedule) else self.eta(position)


def cycles_of(schedule: ScalarOrSchedule) -> Cycles:
    """Return a schedule as `Cycles`.

    Raises:
      ValueError, TypeError: it is neither callable nor a number >= 0.
    """
    if not callable(schedule):
        checks.check_non_negative("schedule", schedule)
    return schedule if isinstance(schedule, Cycles) else Counted(schedule)
