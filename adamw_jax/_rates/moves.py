"""Moves of a schedule's position by hand, in any state that contains one."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from adamw_jax._rates.owner import ScheduleState
from adamw_jax._rates.position import CONSTANT, PENDING, cycles_of
from adamw_jax._rates.readout import injected
from adamw_jax._tree import checks
from adamw_jax._tree.checks import MAX_COUNT
from adamw_jax._tree.state import edit_nodes, nodes_of, value_of
from adamw_jax._tree.typing import Scalar, ScalarOrSchedule

State = TypeVar("State")


def _nodes_to_move(state: Any) -> list[ScheduleState]:
    nodes = nodes_of(state, ScheduleState)
    if hasattr(state, "set_optax_state"):
        raise TypeError(
            "`state` must be a state, got a Keras optimizer: pass optimizer.optax_state(), and what is returned to "
            "optimizer.set_optax_state(...)"
        )
    if not nodes:
        raise ValueError(f"`state` must contain a ScheduleState, got {type(state).__name__} without one")
    if "schedule" in injected(state):
        raise ValueError(
            "`state` must hold the position of its schedule, but optax.inject_hyperparams gives the optimizer the "
            "schedule's factors as numbers, which no position moves: write inject_hyperparams(..., "
            "static_args=\"schedule\"), got a state with the hyperparameter 'schedule'"
        )
    return nodes


def _holds(field: Any, number: int) -> bool:
    """Return True if a scalar field, or one with an axis per run, is known to be `number` everywhere."""
    value = value_of(field)
    return not checks.is_traced(value) and bool(np.all(np.asarray(value) == number))


def _check_has_cycles(nodes: list[ScheduleState], **given: Any) -> None:
    """Raise a ValueError for a period or a cycle where the schedule has no cycles: it would do nothing."""
    for name, value in given.items():
        if value is not None and any(_holds(node.period, MAX_COUNT) for node in nodes):
            raise ValueError(
                f"`{name}` must be None: the schedule of this state is a function of the count or a number and has no "
                f"cycles, got {value}: after a change to cosine_warm_restarts, call reschedule(state, schedule) first"
            )


def _pending_eta(node: ScheduleState) -> Any:
    """Return PENDING; where the schedule is a number, its eta, which no move changes."""
    return jnp.where(value_of(node.cycle) == CONSTANT, value_of(node.eta), PENDING)


def restart(state: State, *, period: Scalar | None = None) -> State:
    """Begin a new cycle: the next update has t_cur = 0.

    Args:
      state: any state that contains a `ScheduleState`, also chained, masked, inside other optimizers or in a
        framework's boxes. If it contains several, all restart.
      period: length of the new cycle in updates; None keeps that of the present one. The next cycles follow from it by
        the schedule's t_mult.

    Returns:
      The state with t_cur = 0 and cycle + 1; the next update computes its eta.

    Raises:
      ValueError: no position in the state, one that `optax.inject_hyperparams` overrules, a period that is no positive
        integer, or one for a schedule without cycles: a function of the count, which begins again, or a number.

    Source: the manual restart of keras-adamw (t_cur = -1 there), and of arXiv 1711.05101, section 3.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import cosine_warm_restarts, scale_by_rates, with_schedule
    >>> tx = with_schedule(cosine_warm_restarts(3), scale_by_rates("eta"))
    >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> state = restart(state, period=5)
    >>> print(state.t_cur, state.period, state.cycle)
    0 5 1
    """
    if period is not None:
        checks.check_count("period", period)
    _check_has_cycles(_nodes_to_move(state), period=period)

    def new(node: ScheduleState) -> Mapping[str, Any]:
        cycle = value_of(node.cycle)
        fields = {"t_cur": 0, "cycle": jnp.where(cycle == CONSTANT, cycle, cycle + 1), "eta": _pending_eta(node)}
        return fields if period is None else {**fields, "period": period}

    return edit_nodes(state, ScheduleState, new)


def set_position(
    state: State, t_cur: Scalar, *, period: Scalar | None = None, cycle: Scalar | None = None, eta: Scalar | None = None
) -> State:
    """Move the schedule to a position in its cycle.

    Args:
      state: as in `restart`.
      t_cur: updates made in the cycle, an integer below its period; negative ones lie in the warm-up. For the number of
        all updates made, see `reschedule`.
      period, cycle: the cycle's length, >= 1, and index, >= 0; None leaves them.
      eta: the factor of the next update, >= 0; None: that update computes it from the position.

    Returns:
      The state at that position.

    Raises:
      ValueError: no position in the state, a number out of range, a period or cycle for a schedule without cycles, an
        eta for a schedule that is a number.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import cosine_warm_restarts, scale_by_rates, with_schedule
    >>> tx = with_schedule(cosine_warm_restarts(3), scale_by_rates("eta"))
    >>> updates, state = tx.update(jnp.ones(1), set_position(tx.init(jnp.zeros(1)), 1))
    >>> print(updates.round(3), state.t_cur)
    [0.5] 2
    """
    checks.check_count("t_cur", t_cur, low=-MAX_COUNT)
    fields: dict[str, Any] = {"t_cur": t_cur}
    if period is not None:
        fields["period"] = checks.check_count("period", period)
    if cycle is not None:
        fields["cycle"] = checks.check_count("cycle", cycle, low=0)
    if eta is not None:
        fields["eta"] = checks.check_non_negative("eta", eta)
    nodes = _nodes_to_move(state)
    _check_has_cycles(nodes, period=period, cycle=cycle)
    if eta is not None and any(_holds(node.cycle, CONSTANT) for node in nodes):
        raise ValueError(f"`eta` must be None, for the schedule of this state is a number, its own factor, got {eta}")
    for node in nodes:
        length = fields.get("period", value_of(node.period))
        is_known = not (checks.is_traced(length) or checks.is_traced(t_cur))
        if is_known and np.any(np.asarray(t_cur) >= np.asarray(length)):
            raise ValueError(
                f"`t_cur` must be below the period of the cycle, {np.min(np.asarray(length))}, got {t_cur}: a count of "
                "all updates goes into reschedule(state, schedule, count=...)"
            )
    return edit_nodes(state, ScheduleState, lambda node: {"eta": _pending_eta(node), **fields})


def reschedule(state: State, schedule: ScalarOrSchedule, *, count: Scalar = 0) -> State:
    """Put the position where a schedule is after `count` updates, whatever schedule the state had before.

    An optimizer with another schedule would go on from the position, period and factor that the state holds, so
    reschedule a run before it is resumed under another schedule.

    Args:
      state: as in `restart`.
      schedule: the schedule of the optimizer that goes on: from `cosine_warm_restarts`, a function of the count, or a
        number.
      count: updates after which the schedule is to be, an integer >= 0; 0 is its start.

    Returns:
      The state, in which only the position is new.

    Raises:
      ValueError, TypeError: no position in the state, a schedule or a count of another kind.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import adamw, cosine_warm_restarts, linear_warmup
    >>> state = adamw(0.1, schedule=linear_warmup(2)).init(jnp.zeros(1))
    >>> from adamw_jax import current
    >>> now = current(reschedule(state, cosine_warm_restarts(4), count=5))
    >>> print(now.t_cur, now.period, now.cycle, now.eta.round(2))
    1 4 1 0.75
    """
    cycles = cycles_of(schedule)
    checks.check_count("count", count, low=0)
    _nodes_to_move(state)
    position = cycles.position(count)
    fields = {**position._asdict(), "eta": cycles.eta(position)}
    return edit_nodes(state, ScheduleState, lambda node: fields)
