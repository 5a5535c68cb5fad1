"""The learning rate: its owner, and the stages that multiply by it and by the schedule's factor."""

import functools
import operator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._tree import checks
from adamw_jax._tree.loop import extra_arg, map_leaves
from adamw_jax._tree.typing import Params, ScalarOrSchedule, Updates
from adamw_jax._tree.width import own, wide


class LearningRateState(NamedTuple):
    """State of `with_learning_rate`.

    Attributes:
      count: updates made, int32.
      alpha: the rate that the latest update used; before the first, the one that it will use.
      inner_state: state of the stages inside.
    """

    count: chex.Array
    alpha: chex.Array
    inner_state: optax.OptState


def with_learning_rate(
    learning_rate: ScalarOrSchedule, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with the learning rate alpha_t and the count of updates as its extra arguments `alpha` and `count`.

    Args:
      learning_rate: a number >= 0, or a schedule: count of updates made -> rate.
      inner: the stages that need alpha, `scale_by_alpha` among them, or the count, as rules with schedules do.

    Returns:
      A transformation whose updates are those of `inner`.

    Raises:
      ValueError, TypeError: a rate that is negative, not finite, or neither a number nor callable; in `update`, another
        state.

    Source: alpha in Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2.

    >>> tx = with_learning_rate(lambda count: 0.5 ** count, scale_by_alpha())
    >>> state = tx.init(jnp.zeros(1))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state)
    >>> print(updates, state.alpha)
    [0.5] 0.5
    """
    if not callable(learning_rate):
        checks.check_non_negative("learning_rate", learning_rate)
    inner = optax.with_extra_args_support(inner)

    def rate(count: chex.Array) -> chex.Array:
        return wide(learning_rate(count) if callable(learning_rate) else learning_rate)

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


def _scale(scalars: Any, u: Any) -> tuple[chex.Array, ...]:
    (factor,) = scalars
    return (jax.lax.mul(u, factor),)


def scale_by_rates(*names: str) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by the product of the scalars that owners around this stage pass as extra arguments.

    Args:
      names: "alpha", "eta", both or neither. Both are one multiplication per element.
    """

    def init(params: Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.EmptyState]:
        del params
        if not names:
            return updates, state
        factor = functools.reduce(operator.mul, (wide(extra_arg(name, extra_args)) for name in names))
        (updates,) = map_leaves(_scale, (factor,), (updates,))
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_alpha() -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by the learning rate that `with_learning_rate` around this stage provides: u <- alpha u.

    >>> tx = with_learning_rate(0.1, scale_by_alpha())
    >>> updates, _ = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> print(updates)
    [0.1]
    """
    return scale_by_rates("alpha")


def _negate(scalars: Any, u: Any) -> tuple[chex.Array, ...]:
    del scalars
    return (jax.lax.neg(u),)


def negate() -> optax.GradientTransformation:
    """Turn what climbs into what descends: u <- -u. `optax.scale(-1.0)`, with one trace for leaves that are alike.

    >>> updates, _ = negate().update(jnp.ones(1), optax.EmptyState())
    >>> print(updates)
    [-1.]
    """
    return optax.stateless(lambda updates, params: map_leaves(_negate, (), (updates,))[0])
