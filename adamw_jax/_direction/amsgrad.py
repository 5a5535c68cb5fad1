"""AMSGrad's direction."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax

from adamw_jax._direction.adam import (
    adam_direction,
    adam_scalars,
    check_moments,
    correction,
    denominator,
    moment_weights,
    next_moments,
    of_moments,
)
from adamw_jax._direction.direction import as_direction, of_momentum
from adamw_jax._storage.formats import storage_of
from adamw_jax._tree import checks
from adamw_jax._tree.typing import MomentDtype, Moments, Rules, Scalar, Scalars, Updates
from adamw_jax._tree.width import as_scalar


class PackedAmsgradState(NamedTuple):
    """State of `scale_by_amsgrad` with packed moments.

    Attributes:
      count: updates made, int32.
      moments: mu and nu in one word per parameter, a tree like the parameters.
      nu_max: the largest second moment so far, bfloat16, likewise.
    """

    count: chex.Array
    moments: Updates
    nu_max: Updates


def _next_of_nu(
    scalars: Scalars, g: chex.Array, mu: chex.Array, nu: chex.Array, nu_max: chex.Array
) -> tuple[chex.Array, ...]:
    mu, nu = next_moments(scalars, g, mu, nu)
    return mu, nu, jnp.maximum(nu_max, nu)


def _amsgrad(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    mu, _, nu_max = new
    return adam_direction(scalars, g, (mu, nu_max), old)


def _next_of_nu_hat(
    scalars: Scalars, g: chex.Array, mu: chex.Array, nu: chex.Array, nu_max: chex.Array
) -> tuple[chex.Array, ...]:
    *_, c2, _, _ = scalars
    mu, nu = next_moments(scalars, g, mu, nu)
    return mu, nu, jnp.maximum(nu_max, nu / c2)


def _amsgrad_of_nu_hat(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    mu, _, nu_max = new
    *_, c1, _, eps, eps_root = scalars
    return mu / c1 / denominator(nu_max, eps, eps_root)


@as_direction(averages=lambda count, b1, **_: of_momentum(b1))
def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Rules = 1e-8,
    eps_root: Rules = 0.0,
    *,
    epsilon_hat: bool = False,
    max_of: str = "nu",
    moment_dtype: MomentDtype = None,
) -> optax.GradientTransformation:
    """Turn gradients into AMSGrad's direction: Adam's with the largest second moment so far.

        nu_max <- max(nu_max, nu)           d = mu_hat / (sqrt(nu_max / (1 - b2^t) + eps_root) + eps)

    and with `max_of="nu_hat"`, the bias is corrected before the maximum is taken:

        nu_max <- max(nu_max, nu_hat)       d = mu_hat / (sqrt(nu_max + eps_root) + eps)

    Args:
      b1, b2, eps, eps_root, epsilon_hat, moment_dtype: as in `scale_by_adam`.
      max_of: "nu" as PyTorch and Keras take it, "nu_hat" as optax does.

    Returns:
      A transformation whose updates are the direction d, with state `optax.ScaleByAmsgradState(count, mu, nu, nu_max)`,
      or, packed, `PackedAmsgradState`, whose nu_max is bfloat16.

    Raises:
      ValueError: a number out of range, an unknown `max_of`, `epsilon_hat` together with "nu_hat" (nobody's form).
      TypeError: parameters that are not real floating.

    Source: Reddi, Kale & Kumar, arXiv 1904.09237, Algorithm 2.

    >>> tx = scale_by_amsgrad()
    >>> direction, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
    >>> print(direction)
    [ 1. -1.]
    """
    check_moments(b1, b2, eps, eps_root)
    checks.check_flag("epsilon_hat", epsilon_hat)
    kernels = {"nu": (_next_of_nu, _amsgrad), "nu_hat": (_next_of_nu_hat, _amsgrad_of_nu_hat)}
    checks.check_choice("max_of", max_of, tuple(kernels))
    if max_of == "nu_hat" and epsilon_hat:
        raise ValueError("`epsilon_hat` must be False with max_of='nu_hat', got True")
    storage = storage_of("moment_dtype", moment_dtype)
    state_type: Any = PackedAmsgradState if storage.packs else optax.ScaleByAmsgradState

    def prepare(count: chex.Array, state: Any) -> Any:
        def scalars_of(eps: Any, eps_root: Any) -> tuple[Any, ...]:
            if max_of == "nu":
                return adam_scalars(count, b1, b2, eps, eps_root, epsilon_hat)
            c1, c2 = correction(b1, count), correction(b2, count)
            return *moment_weights(b1, b2), c1, c2, as_scalar(eps), as_scalar(eps_root)

        return (), scalars_of

    return of_moments(state_type, storage, kernels[max_of], prepare, eps, eps_root, number=3)
