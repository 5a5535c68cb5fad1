"""The schedule's position: its owner, and the stage that multiplies by its factor."""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax

from adamw_jax._rates.owner import scale_by_rates
from adamw_jax._rates.position import Cycles, Position, WarmRestarts
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Params, ScalarOrSchedule, Updates
from adamw_jax._tree.width import own, wide


class WarmRestartsState(NamedTuple):
    """State of `with_warm_restarts`: the position of the next update, and the stages' own state.

    Attributes:
      t_cur: updates made in the current cycle, int32; negative during a warm-up.
      period: updates in the current cycle, int32.
      cycle: index of the current cycle, int32.
      eta: the factor of the next update. Negative after `restart` and `set_position`: the next update computes it.
      inner_state: state of the stages inside.
    """

    t_cur: chex.Array
    period: chex.Array
    cycle: chex.Array
    eta: chex.Array
    inner_state: optax.OptState


@dataclasses.dataclass(frozen=True, eq=False)
class Counted(Cycles):
    """A function of the count as one endless cycle; or a number, which is used as it is, whatever the state says."""

    schedule: ScalarOrSchedule

    def __call__(self, count: chex.Numeric) -> chex.Array:
        """Return the schedule's factor at a count."""
        return wide(self.schedule(count) if callable(self.schedule) else self.schedule)

    def start(self) -> Position:
        """Return count 0 of a cycle of the greatest length."""
        return self.position(0)

    def position(self, count: chex.Numeric) -> Position:
        """Return a count as the place in a cycle of the greatest length."""
        period = jnp.full([], checks.MAX_COUNT, jnp.int32)
        return Position(jnp.asarray(count, jnp.int32), period, jnp.zeros([], jnp.int32))

    def advance(self, position: Position) -> Position:
        """Return the next count."""
        return position._replace(t_cur=jnp.minimum(position.t_cur, checks.MAX_COUNT - 1) + 1)

    def eta(self, position: Position) -> chex.Array:
        """Return the schedule's factor at this count."""
        return self(position.t_cur)

    def factor(self, position: Position, eta: chex.Array) -> chex.Array:
        """Return the number; or what every schedule returns."""
        return super().factor(position, eta) if callable(self.schedule) else self.eta(position)


def cycles_of(schedule: ScalarOrSchedule) -> Cycles:
    """Return a schedule as one that knows its position.

    Raises:
      ValueError, TypeError: it is neither callable nor a number >= 0.
    """
    if not callable(schedule):
        checks.check_non_negative("schedule", schedule)
    return schedule if isinstance(schedule, Cycles) else Counted(schedule)


def with_warm_restarts(
    schedule: ScalarOrSchedule, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with the schedule's factor eta_t and period T_i as its extra arguments `eta` and `period`.

    The position lives in the state: after k updates in which nobody intervened, (t_cur, period, cycle, eta) is the
    schedule's at count k. `restart` and `set_position` move it.

    Args:
      schedule: from `cosine_warm_restarts`; or any function count -> factor, which is one endless cycle with t_cur as
        its count and provides no `period`; or a number, which is used as it is, whatever the state says.
      inner: the stages that need eta or the period, `scale_by_eta` among them.

    Returns:
      A transformation whose updates are those of `inner`.

    Raises:
      ValueError, TypeError: a schedule that is neither callable nor a number >= 0.

    Source: eta_t in Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2.

    >>> from adamw_jax._rates.shapes import cosine_warm_restarts
    >>> tx = with_warm_restarts(cosine_warm_restarts(3), scale_by_eta())
    >>> state = tx.init(jnp.zeros(1))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state)
    >>> print(updates.round(3), state.t_cur, state.eta)
    [0.5] 2 0.0
    """
    cycles = cycles_of(schedule)
    inner = optax.with_extra_args_support(inner)

    def state_at(position: Position, inner_state: optax.OptState) -> WarmRestartsState:
        t_cur, period, cycle = map(own, position)
        return WarmRestartsState(t_cur, period, cycle, own(cycles.eta(position)), inner_state)

    def init(params: Params) -> WarmRestartsState:
        return state_at(cycles.start(), inner.init(params))

    def update(
        updates: Updates, state: WarmRestartsState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, WarmRestartsState]:
        position = Position(state.t_cur, state.period, state.cycle)
        eta = cycles.factor(position, state.eta)
        provided = {**extra_args, "eta": eta, "period": state.period if isinstance(cycles, WarmRestarts) else None}
        updates, inner_state = inner.update(updates, state.inner_state, params, **provided)
        return updates, state_at(cycles.advance(position), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def with_schedule(
    schedule: ScalarOrSchedule | None, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Return `with_warm_restarts`; without a schedule `inner` itself, to which no eta and no period of others come."""
    if schedule is not None:
        return with_warm_restarts(schedule, inner)
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        updates, state = inner.update(updates, state, params, **{**extra_args, "eta": None, "period": None})
        return updates, state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def scale_by_eta() -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by the factor that `with_warm_restarts` around this stage provides: u <- eta u."""
    return scale_by_rates("eta")


def scale_by_warm_restarts(schedule: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by the schedule's factor: u <- eta_t u, with the position in the state.

    Args:
      schedule: as in `with_warm_restarts`.

    >>> from adamw_jax._rates.shapes import cosine_warm_restarts
    >>> tx = scale_by_warm_restarts(cosine_warm_restarts(3))
    >>> updates, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> print(updates, state.t_cur)
    [1.] 1
    """
    return with_warm_restarts(schedule, scale_by_eta())
