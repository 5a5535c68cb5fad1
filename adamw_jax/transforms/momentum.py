"""Momentum and Nesterov momentum."""

from typing import Any

import chex
import optax

from adamw_jax import checks
from adamw_jax.transforms.leaves import map_leaves, wide, zeros_like_params
from adamw_jax.typing import Params, Scalar, Updates


def _heavy_ball(scalars: Any, g: Any, velocity: Any) -> tuple[chex.Array, ...]:
    (momentum,) = scalars
    velocity = momentum * velocity + g
    return velocity, velocity


def _nesterov(scalars: Any, g: Any, velocity: Any) -> tuple[chex.Array, ...]:
    (momentum,) = scalars
    velocity = momentum * velocity + g
    return momentum * velocity + g, velocity


def scale_by_momentum(
    momentum: Scalar = 0.9, *, nesterov: bool = False, moment_dtype: Any = None
) -> optax.GradientTransformation:
    """Accumulate a velocity.

        v <- momentum v + g           d = v           or, with Nesterov's look-ahead,  d = momentum v + g

    Args:
      momentum: the share of the velocity that is kept, in [0, 1).
      nesterov: look ahead by one more step of the velocity.
      moment_dtype: dtype of the velocity, float32 or wider; None is the parameter's, but no narrower than float32.

    Returns:
      A transformation whose updates are d: the incoming updates' shapes, dtypes and sign. Its state is
      `optax.TraceState(trace)`, the velocity.

    Raises:
      ValueError: a number out of range. TypeError: parameters that are not real floating.

    Source: Polyak 1964; Sutskever et al., ICML 2013, equations 1 to 4, in the form that keeps the look-ahead point.

    >>> import jax.numpy as jnp
    >>> tx = scale_by_momentum(0.5, nesterov=True)
    >>> step, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> print(step, state.trace)
    [1.5] [1.]
    """
    checks.check_number("momentum", momentum, low=0, high=1, open_high=True)
    kernel = _nesterov if checks.check_flag("nesterov", nesterov) else _heavy_ball
    dtype = checks.check_wide_dtype("moment_dtype", moment_dtype)

    def init(params: Params) -> optax.TraceState:
        checks.check_floating("params", params)
        return optax.TraceState(zeros_like_params(params, dtype))

    def update(
        updates: Updates, state: optax.TraceState, params: Params | None = None
    ) -> tuple[Updates, optax.TraceState]:
        del params
        step, velocity = map_leaves(kernel, (wide(momentum),), (updates, state.trace))
        return step, optax.TraceState(velocity)

    return optax.GradientTransformation(init, update)
