"""Where an optimizer stands, read from its state."""

from typing import Any, NamedTuple

import jax
import optax

from adamw_jax.transforms.rates import LearningRateState
from adamw_jax.transforms.restarts import WarmRestartsState


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


_OWNERS = (LearningRateState, WarmRestartsState)


def _owners(state: Any) -> list[Any]:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, _OWNERS))
    owners = [node for node in nodes if isinstance(node, _OWNERS)]
    return owners + [below for owner in owners for below in _owners(owner.inner_state)]


def current(state: optax.OptState) -> Current:
    """Return learning rate and position of the schedule from an optimizer's state, also inside `jax.jit`.

    Args:
      state: any state that contains a `LearningRateState`, a `WarmRestartsState` or both, one of each: chained, masked,
        inside other optimizers, or with a leading axis per run.

    Raises:
      ValueError: neither in the state, or several of a kind.

    >>> from adamw_jax.presets import adamw
    >>> from adamw_jax.schedules import cosine_warm_restarts
    >>> import jax.numpy as jnp
    >>> state = adamw(0.5, schedule=cosine_warm_restarts(10)).init(jnp.zeros(1))
    >>> print(current(state).learning_rate, current(state).eta, current(state).t_cur)
    0.5 1.0 0
    """
    found: dict[type, Any] = {}
    for owner in _owners(state):
        if type(owner) in found:
            raise ValueError(f"`state` must contain one {type(owner).__name__}, got several")
        found[type(owner)] = owner
    if not found:
        raise ValueError(
            f"`state` must contain a LearningRateState or a WarmRestartsState, got {type(state).__name__} without one"
        )
    rate, position = found.get(LearningRateState), found.get(WarmRestartsState)
    return Current(
        count=None if rate is None else rate.count,
        learning_rate=None if rate is None else rate.alpha,
        eta=None if position is None else position.eta,
        t_cur=None if position is None else position.t_cur,
        period=None if position is None else position.period,
        cycle=None if position is None else position.cycle,
    )
