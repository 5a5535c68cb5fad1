"""Momentum and Nesterov momentum."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax

from adamw_jax._direction.direction import as_direction, of_look_ahead, of_momentum
from adamw_jax._storage.formats import storage_of
from adamw_jax._storage.loop import map_moments
from adamw_jax._tree import checks
from adamw_jax._tree.fit import check_kind
from adamw_jax._tree.typing import MomentDtype, Moments, Params, Scalar, Scalars, Updates
from adamw_jax._tree.width import as_scalar


class NarrowTraceState(NamedTuple):
    """State of `scale_by_momentum` with a bfloat16 velocity.

    Attributes:
      count: updates made, int32: it seeds the rounding.
      trace: the velocity, a tree like the parameters.
    """

    count: chex.Array
    trace: Updates


def _next_velocity(scalars: Scalars, g: chex.Array, velocity: chex.Array) -> tuple[chex.Array, ...]:
    (momentum,) = scalars
    return (momentum * velocity + g,)


def _heavy_ball(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    (velocity,) = new
    return velocity


def _nesterov(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    (momentum,), (velocity,) = scalars, new
    return momentum * velocity + g


def _averages(count: int | None, momentum: Scalar, nesterov: bool, **_: Any) -> float:
    return of_look_ahead(momentum) if nesterov else of_momentum(momentum)


@as_direction(_averages)
def scale_by_momentum(
    momentum: Scalar = 0.9, *, nesterov: bool = False, moment_dtype: MomentDtype = None
) -> optax.GradientTransformation:
    """Accumulate a velocity.

        v <- momentum v + g           d = v           or, with Nesterov's look-ahead,  d = momentum v + g

    Args:
      momentum: the share of the velocity that is kept, in [0, 1).
      nesterov: look ahead by one more step of the velocity.
      moment_dtype: how the velocity is stored. None: in the parameter's dtype, but no narrower than float32; float32
        or wider; bfloat16, stochastically rounded, as "packed" and "packed8" are, too: no second moment shares a word.

    Returns:
      A transformation whose updates are d, of the incoming updates' shapes, dtypes and sign. Its state is
      `optax.TraceState(trace)`, the velocity; in bfloat16 `NarrowTraceState(count, trace)`.

    Raises:
      ValueError: a number out of range. TypeError: parameters that are not real floating.

    Source: Polyak 1964; Sutskever et al., ICML 2013, equations 1 to 4, in the form that keeps the look-ahead point.

    >>> tx = scale_by_momentum(0.5, nesterov=True)
    >>> step, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> print(step, state.trace)
    [1.5] [1.]
    """
    checks.check_number("momentum", momentum, low=0, high=1, open_high=True)
    kernel = _nesterov if checks.check_flag("nesterov", nesterov) else _heavy_ball
    storage = storage_of("moment_dtype", moment_dtype)

    def init(params: Params) -> Any:
        checks.check_floating("params", params)
        (velocity,) = storage.zeros(params, 1)
        return NarrowTraceState(jnp.zeros([], jnp.int32), velocity) if storage.is_narrow else optax.TraceState(velocity)

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        check_kind(state, NarrowTraceState if storage.is_narrow else optax.TraceState)
        count = optax.safe_increment(state.count) if storage.is_narrow else None
        step, velocity = map_moments(
            _next_velocity, kernel, (as_scalar(momentum),), updates, (state.trace,), count, storage
        )
        return step, NarrowTraceState(count, velocity) if storage.is_narrow else optax.TraceState(velocity)

    return optax.GradientTransformation(init, update)
