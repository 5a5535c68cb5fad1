"""The owners of the learning rate and of the schedule's position, and their states."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax

from adamw_jax._rates.position import Position, cycles_of
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Params, ScalarOrSchedule, Updates
from adamw_jax._tree.width import as_scalar, own


class LearningRateState(NamedTuple):
    """State of `with_learning_rate`.

    Attributes:
      count: updates made, int32.
      learning_rate: alpha of the latest update, at the start that of the first.
      inner_state: state of the stages inside.
    """

    count: chex.Array
    learning_rate: chex.Array
    inner_state: optax.OptState


class ScheduleState(NamedTuple):
    """State of `with_schedule`: the position of the next update, and the stages' own state.

    Attributes:
      t_cur: updates made in the current cycle, int32; negative during a warm-up.
      period: updates in the current cycle, int32.
      cycle: index of the current cycle, int32; -1 where the schedule is a number.
      eta: the factor of the next update. Negative after `restart` and `set_position`: the next update computes it.
      inner_state: state of the stages inside.
    """

    t_cur: chex.Array
    period: chex.Array
    cycle: chex.Array
    eta: chex.Array
    inner_state: optax.OptState


def with_learning_rate(
    learning_rate: ScalarOrSchedule, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with the learning rate alpha_t and the count of updates as its extra arguments `alpha` and `count`.

    Args:
      learning_rate: a number >= 0, or a schedule: count of updates made -> rate.
      inner: the stages that need alpha, `scale_by_rates` among them, or the count, as rules with schedules do.

    Returns:
      A transformation whose updates are those of `inner`.

    Raises:
      ValueError, TypeError: a rate that is negative, not finite, or neither a number nor callable; in `update`, another
        state.

    Source: alpha in Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2.

    >>> from adamw_jax import scale_by_rates
    >>> tx = with_learning_rate(lambda count: 0.5 ** count, scale_by_rates("alpha"))
    >>> state = tx.init(jnp.zeros(1))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state)
    >>> print(updates, state.learning_rate)
    [0.5] 0.5
    """
    if not callable(learning_rate):
        checks.check_non_negative("learning_rate", learning_rate)
    inner = checks.check_transformation("inner", inner)

    def rate(count: chex.Array) -> chex.Array:
        if not callable(learning_rate):
            return as_scalar(learning_rate)
        return as_scalar(checks.check_returned("learning_rate(count)", learning_rate(count)))

    def init(params: Params) -> LearningRateState:
        count = jnp.zeros([], jnp.int32)
        return LearningRateState(count, own(rate(count)), inner.init(params))

    def update(
        updates: Updates, state: LearningRateState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, LearningRateState]:
        if not isinstance(state, LearningRateState):
            kind = type(state).__name__
            raise TypeError(
                f"`state` must be what init(params) returned, as in update(updates, state, params), got a {kind}"
            )
        alpha = rate(state.count)
        provided = {**extra_args, "alpha": alpha, "count": state.count}
        updates, inner_state = inner.update(updates, state.inner_state, params, **provided)
        return updates, LearningRateState(optax.safe_increment(state.count), own(alpha), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def with_schedule(
    schedule: ScalarOrSchedule | None, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with the schedule's factor eta_t and period T_i as its extra arguments `eta` and `period`.

    The position lives in the state: after k updates without a move by hand, (t_cur, period, cycle, eta) is the
    schedule's at count k. `restart`, `set_position` and `reschedule` move it.

    Args:
      schedule: from `cosine_warm_restarts`; or any function count -> factor, which is one endless cycle with t_cur as
        its count and provides no `period`; or a number, which counts as well but always has its own value as eta; or
        None: `inner` then has no position, and gets no `eta` or `period` from outside either.
      inner: the stages that need eta or the period, `scale_by_rates` among them.

    Returns:
      A transformation whose updates are those of `inner`.

    Raises:
      ValueError, TypeError: a schedule that is neither callable nor a number >= 0.

    Source: eta_t in Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2.

    >>> from adamw_jax import cosine_warm_restarts, scale_by_rates
    >>> tx = with_schedule(cosine_warm_restarts(3), scale_by_rates("eta"))
    >>> state = tx.init(jnp.zeros(1))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state)
    >>> print(updates.round(3), state.t_cur, state.eta)
    [0.5] 2 0.0
    """
    inner = checks.check_transformation("inner", inner)
    if schedule is None:
        return _without_schedule(inner)
    cycles = cycles_of(schedule)

    def state_at(position: Position, inner_state: optax.OptState) -> ScheduleState:
        t_cur, period, cycle = map(own, position)
        return ScheduleState(t_cur, period, cycle, own(cycles.eta(position)), inner_state)

    def init(params: Params) -> ScheduleState:
        return state_at(cycles.start(), inner.init(params))

    def update(
        updates: Updates, state: ScheduleState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ScheduleState]:
        position = Position(state.t_cur, state.period, state.cycle)
        eta = cycles.factor(position, state.eta)
        provided = {**extra_args, "eta": eta, "period": state.period if isinstance(cycles, WarmRestarts) else None}
        updates, inner_state = inner.update(updates, state.inner_state, params, **provided)
        return updates, state_at(cycles.advance(position), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _without_schedule(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        updates, state = inner.update(updates, state, params, **{**extra_args, "eta": None, "period": None})
        return updates, state

    return optax.GradientTransformationExtraArgs(inner.init, update)
