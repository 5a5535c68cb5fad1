"""Moving and reading the schedule's position by hand, in any optimizer state that contains it."""

from collections.abc import Callable
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp

from adamw_jax import checks
from adamw_jax.cycles import PENDING
from adamw_jax.transforms.restarts import WarmRestartsState
from adamw_jax.typing import Scalar

State = TypeVar("State")


def _move(state: State, move: Callable[[WarmRestartsState], WarmRestartsState]) -> State:
    found = []

    def visit(node: Any) -> Any:
        if not isinstance(node, WarmRestartsState):
            return node
        found.append(node)
        return move(node._replace(inner_state=_map(node.inner_state)))

    def _map(tree: Any) -> Any:
        return jax.tree.map(visit, tree, is_leaf=lambda node: isinstance(node, WarmRestartsState))

    moved: State = _map(state)
    if not found:
        raise ValueError(f"`state` must contain a WarmRestartsState, got {type(state).__name__} without one")
    return moved


def restart(state: State, *, period: Scalar | None = None) -> State:
    """Begin a new cycle: the next update has t_cur = 0.

    Args:
      state: any optimizer state that contains a `WarmRestartsState` (chained, masked, inside other optimizers). Where
        it contains several, all restart.
      period: length of the new cycle in updates; None keeps that of the cycle that was cut. The cycles after it follow
        from the schedule's t_mult.

    Returns:
      The state with t_cur = 0, cycle + 1, and an eta that the next update computes.

    Raises:
      ValueError: no position in the state, or a period that is no positive integer.

    Source: the manual restart of keras-adamw (t_cur = -1 there), and of arXiv 1711.05101, section 3.

    >>> from adamw_jax.schedules import cosine_warm_restarts
    >>> from adamw_jax.transforms.restarts import scale_by_warm_restarts
    >>> tx = scale_by_warm_restarts(cosine_warm_restarts(3))
    >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> state = restart(state, period=5)
    >>> print(state.t_cur, state.period, state.cycle)
    0 5 1
    """
    if period is not None:
        checks.check_count("period", period)

    def move(node: WarmRestartsState) -> WarmRestartsState:
        return node._replace(
            t_cur=jnp.zeros_like(node.t_cur),
            period=node.period if period is None else jnp.full_like(node.period, period),
            cycle=node.cycle + 1,
            eta=jnp.full_like(node.eta, PENDING),
        )

    return _move(state, move)


def set_position(
    state: State, t_cur: Scalar, *, period: Scalar | None = None, cycle: Scalar | None = None, eta: Scalar | None = None
) -> State:
    """Move the schedule to a position.

    Args:
      state: as in `restart`.
      t_cur: updates made in the cycle, an integer; negative ones lie in the warm-up.
      period, cycle: the cycle's length, >= 1, and index, >= 0; None leaves them.
      eta: the factor of the next update, >= 0; None computes it from the position then.

    Returns:
      The state at that position.

    Raises:
      ValueError: no position in the state, or a number out of range.

    >>> from adamw_jax.schedules import cosine_warm_restarts
    >>> from adamw_jax.transforms.restarts import scale_by_warm_restarts
    >>> tx = scale_by_warm_restarts(cosine_warm_restarts(3))
    >>> updates, state = tx.update(jnp.ones(1), set_position(tx.init(jnp.zeros(1)), 1))
    >>> print(updates.round(3), state.t_cur)
    [0.5] 2
    """
    checks.check_count("t_cur", t_cur, low=-checks.MAX_COUNT)
    new: dict[str, Scalar] = {"t_cur": t_cur, "eta": PENDING}
    if period is not None:
        new["period"] = checks.check_count("period", period)
    if cycle is not None:
        new["cycle"] = checks.check_count("cycle", cycle, low=0)
    if eta is not None:
        new["eta"] = checks.check_non_negative("eta", eta)

    def move(node: WarmRestartsState) -> WarmRestartsState:
        return node._replace(**{name: jnp.full_like(getattr(node, name), value) for name, value in new.items()})

    return _move(state, move)


def current_eta(state: Any) -> chex.Array:
    """Return the factor that the next update will use, a scalar; negative where that update has yet to compute it.

    Args:
      state: any optimizer state that contains exactly one `WarmRestartsState`.

    Raises:
      ValueError: no position in the state, or several.
    """
    etas: list[chex.Array] = []

    def note(node: WarmRestartsState) -> WarmRestartsState:
        etas.append(node.eta)
        return node

    _move(state, note)
    if len(etas) > 1:
        raise ValueError(f"`state` must contain one WarmRestartsState, got {len(etas)}")
    return etas[0]
