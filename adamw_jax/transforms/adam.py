"""Adam's direction, and what all directions with two moments share."""

from typing import Any

import chex
import jax.numpy as jnp
import optax

from adamw_jax import checks
from adamw_jax.transforms.leaves import wide
from adamw_jax.transforms.packed import PackedMomentsState, map_moments, zero_moments
from adamw_jax.typing import Params, Scalar, Updates


def check_moments(b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar) -> None:
    """Check the numbers that all directions with two moments share."""
    checks.check_number("b1", b1, low=0, high=1, open_high=True)
    checks.check_number("b2", b2, low=0, high=1, open_high=True)
    checks.check_number("eps", eps, low=0, open_low=True)
    checks.check_non_negative("eps_root", eps_root)


def moment_weights(b1: Scalar, b2: Scalar) -> tuple[chex.Array, ...]:
    """Return b1, 1 - b1, b2, 1 - b2: the first four scalars of every kernel that calls `next_moments`."""
    return wide(b1), 1 - wide(b1), wide(b2), 1 - wide(b2)


def next_moments(scalars: Any, g: Any, mu: Any, nu: Any) -> tuple[chex.Array, ...]:
    """Return mu <- b1 mu + (1 - b1) g and nu <- b2 nu + (1 - b2) g^2."""
    b1, rest_1, b2, rest_2, *_ = scalars
    return b1 * mu + rest_1 * g, b2 * nu + rest_2 * jnp.square(g)


def correction(decay: chex.Array, count: chex.Array) -> chex.Array:
    """Return 1 - decay^count, what a moment that started at zero is divided by."""
    return 1 - decay ** count.astype(decay.dtype)


def adam_scalars(
    count: chex.Array, b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar, epsilon_hat: bool
) -> tuple[chex.Array, ...]:
    """Return the scalars of Adam's kernels: the moments' weights, 1 - b1^t, 1 - b2^t, epsilon and its root's."""
    c1, c2 = correction(wide(b1), count), correction(wide(b2), count)
    scaled_eps = wide(eps) / jnp.sqrt(c2) if epsilon_hat else wide(eps)
    return *moment_weights(b1, b2), c1, c2, scaled_eps, wide(eps_root)


def adam_direction(scalars: Any, g: Any, mu: Any, nu: Any) -> chex.Array:
    """Return mu_hat / (sqrt(nu_hat + eps_root) + eps)."""
    del g
    *_, c1, c2, eps, eps_root = scalars
    return mu / c1 / (jnp.sqrt(nu / c2 + eps_root) + eps)


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    *,
    epsilon_hat: bool = False,
    moment_dtype: Any = None,
) -> optax.GradientTransformation:
    """Turn gradients into Adam's direction.

    With t = 1, 2, ... the number of the update:

        mu <- b1 mu + (1 - b1) g                      mu_hat = mu / (1 - b1^t)
        nu <- b2 nu + (1 - b2) g^2                    nu_hat = nu / (1 - b2^t)
        d = mu_hat / (sqrt(nu_hat + eps_root) + eps)

    and with `epsilon_hat`, epsilon is added before the correction of nu:

        d = sqrt(1 - b2^t) / (1 - b1^t) * mu / (sqrt(nu + (1 - b2^t) eps_root) + eps)

    Args:
      b1, b2: decay rates of the moments, in [0, 1).
      eps: added to the root, > 0; relative to the unit of the gradient.
      eps_root: added under the root, >= 0; in the gradient's unit squared.
      epsilon_hat: Keras's convention for epsilon.
      moment_dtype: how mu and nu are stored. None: in the parameter's dtype, but no narrower than float32; float32 or
        wider; bfloat16, stochastically rounded; "packed": both as bfloat16 in one 32-bit word, likewise rounded.

    Returns:
      A transformation whose updates are the direction d: the gradients' shapes and dtypes, and their sign. Its state
      is `optax.ScaleByAdamState(count, mu, nu)`, or with "packed" `PackedMomentsState(count, moments)`: see
      `read_moments`.

    Raises:
      ValueError: a number out of range. TypeError: parameters that are not real floating.

    Source: Kingma & Ba, arXiv 1412.6980, Algorithm 1; its section 2 for epsilon hat.

    >>> tx = scale_by_adam()
    >>> direction, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
    >>> print(direction)
    [ 1. -1.]
    """
    check_moments(b1, b2, eps, eps_root)
    checks.check_flag("epsilon_hat", epsilon_hat)
    dtype = checks.check_moment_dtype("moment_dtype", moment_dtype)

    new_state: Any = PackedMomentsState if dtype == "packed" else optax.ScaleByAdamState

    def init(params: Params) -> Any:
        checks.check_floating("params", params)
        return new_state(jnp.zeros([], jnp.int32), *zero_moments(params, 2, dtype))

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        del params
        count = optax.safe_increment(state.count)
        scalars = adam_scalars(count, b1, b2, eps, eps_root, epsilon_hat)
        _, *stored = state
        direction, *stored = map_moments(next_moments, adam_direction, scalars, updates, stored, count, dtype)
        return direction, new_state(count, *stored)

    return optax.GradientTransformation(init, update)
