"""Where an optimizer stands, read from its state."""

from typing import Any, NamedTuple

import optax

from adamw_jax._rates.owner import LearningRateState, ScheduleState
from adamw_jax._tree.state import nodes_of, value_of


class Current(NamedTuple):
    """What `current` returns: scalar arrays, None for what the state does not have.

    Attributes:
      count: updates made.
      learning_rate: alpha of the latest update; before the first, the one that it will use.
      eta: the schedule's factor for the next update; negative where that update has yet to compute it.
      t_cur: updates made in the current cycle; negative during a warm-up.
      period: updates in the current cycle.
      cycle: index of the current cycle.
    """

    count: Any
    learning_rate: Any
    eta: Any
    t_cur: Any
    period: Any
    cycle: Any


def current(state: optax.OptState) -> Current:
    """Return learning rate and position of the schedule from an optimizer's state, also inside `jax.jit`.

    Args:
      state: any state that contains a `LearningRateState`, a `ScheduleState` or both, one of each: chained, masked,
        inside other optimizers, in a framework's boxes, or with a leading axis per run.

    Raises:
      ValueError: neither in the state, or several of a kind.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import adamw, cosine_warm_restarts
    >>> state = adamw(0.5, schedule=cosine_warm_restarts(10)).init(jnp.zeros(1))
    >>> print(current(state).learning_rate, current(state).eta, current(state).t_cur)
    0.5 1.0 0
    """
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

    return Current(
        *read(LearningRateState, "count", "learning_rate"), *read(ScheduleState, "eta", "t_cur", "period", "cycle")
    )
