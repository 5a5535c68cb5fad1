"""The learning rate and the position of the schedule, read from an optimizer's state."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from adamw_jax._rates.owner import LearningRateState, ScheduleState
from adamw_jax._tree import checks
from adamw_jax._tree.state import nodes_of, state_in, value_of


class Current(NamedTuple):
    """Result of `current`: scalar arrays, with an axis per run in a state of mapped runs; None if the state has none.

    Attributes:
      count: updates made.
      learning_rate: alpha of the latest update; before the first, the one that it will use.
      eta: the schedule's factor of the next update; negative after `restart` and `set_position`, until that update
        computes it.
      rate: alpha eta, negative where eta is; alpha where there is no schedule.
      t_cur: updates made in the current cycle; negative during a warm-up.
      period: updates in the current cycle.
      cycle: index of the current cycle; -1 where the schedule is a number.
    """

    count: Any
    learning_rate: Any
    eta: Any
    rate: Any
    t_cur: Any
    period: Any
    cycle: Any

    def to_dict(self) -> dict[str, Any]:
        """Return {name: Python number} for a logger, lists for mapped runs; without the fields that are None."""
        return {name: np.asarray(value).tolist() for name, value in self._asdict().items() if value is not None}

    def __repr__(self) -> str:
        given = [f"{name}={_text(value)}" for name, value in self._asdict().items() if value is not None]
        return f"Current({', '.join(given)})"


def _text(value: Any) -> str:
    """Return a number with six digits, an integer with all, a list for mapped runs, the type of a traced number."""
    if checks.is_traced(value):
        return str(jax.typeof(value))
    numbers = np.asarray(value)
    if numbers.ndim:
        return f"[{', '.join(map(_text, numbers))}]"
    return str(int(numbers)) if np.issubdtype(numbers.dtype, np.integer) else f"{float(numbers):.6g}"


def injected(state: Any) -> dict[str, Any]:
    """Return {name: number of the next update} of the hyperparameters that `optax.inject_hyperparams` holds in a state.

    The number is None for a function of the count, whose next number is not stored.
    """

    def is_injecting(node: Any) -> bool:
        return "hyperparams" in getattr(node, "_fields", ())

    found: dict[str, Any] = {}
    for node in filter(is_injecting, jax.tree.leaves(state, is_leaf=is_injecting)):
        moving = getattr(node, "hyperparams_states", {})
        found |= {name: None if name in moving else value for name, value in node.hyperparams.items()}
        found |= injected(node.inner_state)
    return found


def current(state: optax.OptState) -> Current:
    """Return learning rate and position of the schedule from an optimizer's state, also inside `jax.jit`.

    Args:
      state: any state that contains a `LearningRateState`, a `ScheduleState` or both, one of each: chained, masked,
        inside other optimizers, in a framework's boxes, or with a leading axis per run; or a Keras optimizer of this
        package, or a model compiled with one.

    Returns:
      A `Current`, which prints in one line and has `to_dict()`.

    Raises:
      ValueError: neither in the state, or several of a kind; a schedule that `optax.inject_hyperparams` evaluates, for
        its next factor is not in the state.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import adamw, cosine_warm_restarts
    >>> current(adamw(0.5, schedule=cosine_warm_restarts(10)).init(jnp.zeros(1)))
    Current(count=0, learning_rate=0.5, eta=1, rate=0.5, t_cur=0, period=10, cycle=0)
    """
    state = state_in(state)
    found: dict[type, Any] = {}
    for kind in (LearningRateState, ScheduleState):
        nodes = nodes_of(state, kind)
        if len(nodes) > 1:
            raise ValueError(f"`state` must contain one {kind.__name__}, got several")
        found.update((kind, node) for node in nodes)
    if not found:
        raise ValueError(
            f"`state` must contain a LearningRateState or a ScheduleState, got {type(state).__name__} without one"
        )

    def read(kind: type, *names: str) -> list[Any]:
        return [value_of(getattr(found[kind], name)) if kind in found else None for name in names]

    count, learning_rate = read(LearningRateState, "count", "learning_rate")
    eta, *position = read(ScheduleState, "eta", "t_cur", "period", "cycle")
    hyperparameters = injected(state)
    if eta is not None and "schedule" in hyperparameters:
        eta = hyperparameters["schedule"]
        if eta is None:
            raise ValueError(
                "`state` must hold the next factor of its schedule, but optax.inject_hyperparams keeps only the latest "
                'number of a function: write inject_hyperparams(..., static_args="schedule"), got a state with the '
                "hyperparameter 'schedule'"
            )
    rate = eta if learning_rate is None else learning_rate if eta is None else learning_rate * eta
    return Current(count, learning_rate, eta, rate, *position)
