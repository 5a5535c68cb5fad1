"""NAdam's direction: Adam with Nesterov's look-ahead and a momentum schedule."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax
from jax.lax import add, div, mul

from adamw_jax._direction.adam import (
    check_moments,
    denominator,
    moment_weights,
    next_moments,
    of_moments,
    scaled_by_root,
)
from adamw_jax._direction.direction import as_direction, of_look_ahead
from adamw_jax._storage.formats import Words8, storage_of
from adamw_jax._storage.words8 import bounded
from adamw_jax._tree import checks
from adamw_jax._tree.typing import MomentDtype, Moments, Rules, Scalar, Scalars, Updates
from adamw_jax._tree.width import as_scalar


class ScaleByNadamState(NamedTuple):
    """State of `scale_by_nadam`.

    Attributes:
      count: updates made, int32.
      mu_product: mu_1 mu_2 ... mu_count, the product of the momenta so far.
      mu, nu: first and second moment, trees like the parameters.
    """

    count: chex.Array
    mu_product: chex.Array
    mu: Updates
    nu: Updates


class PackedNadamState(NamedTuple):
    """State of `scale_by_nadam` with packed moments.

    Attributes:
      count, mu_product: as in `ScaleByNadamState`.
      moments: mu and nu in one word per parameter, a tree like the parameters.
    """

    count: chex.Array
    mu_product: chex.Array
    moments: Updates


def _nadam(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    mu, nu = new
    *_, from_moment, from_gradient, eps, eps_root = scalars
    return div(add(mul(mu, from_moment), mul(g, from_gradient)), denominator(nu, eps, eps_root))


def _momentum_at(t: chex.Numeric, b1: Scalar, momentum_decay: Scalar | None) -> chex.Array:
    if momentum_decay is None:
        return as_scalar(b1)
    return as_scalar(b1) * (1 - 0.96 ** (t * as_scalar(momentum_decay)) / 2)


def _nadam_of_codes(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    """Return NAdam's direction for moments in 8 bits: nu may have underflowed where the gradient has not."""
    mu, nu = new
    return _nadam(scalars, g, (mu, bounded(scalars[:4], mu, nu, g)), old)


def _averages(count: int | None, b1: Scalar, momentum_decay: Scalar | None, **_: Any) -> float:
    if count is not None:
        return of_look_ahead(b1, _momentum_at(count + 1, b1, momentum_decay))
    is_constant = momentum_decay is not None and checks.equals(momentum_decay, 0)
    return of_look_ahead(b1, _momentum_at(0, b1, momentum_decay) if is_constant else None)


@as_direction(_averages)
def scale_by_nadam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Rules = 1e-8,
    eps_root: Rules = 0.0,
    *,
    momentum_decay: Scalar | None = 0.004,
    shared_correction: bool = False,
    moment_dtype: MomentDtype = None,
) -> optax.GradientTransformation:
    """Turn gradients into NAdam's direction.

    With t = 1, 2, ... the number of the update, the moments of `scale_by_adam`, and

        mu_t = b1 (1 - 0.96^(t momentum_decay) / 2)              Pi_t = mu_1 mu_2 ... mu_t
        d = (mu_{t+1} m / (1 - Pi_{t+1}) + (1 - mu_t) g / (1 - Pi_t)) / (sqrt(nu_hat + eps_root) + eps)

    where m is the first moment and nu_hat the corrected second one. Without a momentum schedule, mu_t = b1.

    Args:
      b1, b2, eps, eps_root, moment_dtype: as in `scale_by_adam`.
      momentum_decay: psi, how fast the momentum approaches b1, >= 0; None for the constant mu_t = b1.
      shared_correction: divide the first term, too, by 1 - Pi_t (timm's form).

    Returns:
      A transformation whose updates are the direction d, of the gradients' shapes, dtypes and sign. Its state
      is `ScaleByNadamState`, or packed `PackedNadamState`.

    Raises:
      ValueError: a number out of range. TypeError: parameters that are not real floating.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", 2016, Algorithm 2 and its momentum schedule;
    `momentum_decay` is named as in PyTorch's NAdam.

    >>> tx = scale_by_nadam()
    >>> direction, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
    >>> print(direction.round(3))
    [ 1.056 -1.056]
    """
    check_moments(b1, b2, eps, eps_root)
    if momentum_decay is not None:
        checks.check_non_negative("momentum_decay", momentum_decay)
    checks.check_flag("shared_correction", shared_correction)
    storage = storage_of("moment_dtype", moment_dtype)
    kernel = _nadam_of_codes if isinstance(storage, Words8) else _nadam

    state_type: Any = PackedNadamState if storage.packs else ScaleByNadamState

    def momentum_at(t: chex.Numeric) -> chex.Array:
        return _momentum_at(t, b1, momentum_decay)

    def start() -> tuple[chex.Array, ...]:
        return (jnp.ones([], jnp.result_type(float)),)

    def prepare(count: chex.Array, state: Any) -> Any:
        t = as_scalar(count)
        product = state.mu_product * momentum_at(t)
        next_product = product if shared_correction else product * momentum_at(t + 1)

        def scalars_of(eps: Any, eps_root: Any) -> tuple[Any, ...]:
            root, *of_denominator = scaled_by_root(count, b2, eps, eps_root)
            from_moment = root * momentum_at(t + 1) / (1 - next_product)
            from_gradient = root * (1 - momentum_at(t)) / (1 - product)
            return *moment_weights(b1, b2), from_moment, from_gradient, *of_denominator

        return (product,), scalars_of

    return of_moments(state_type, storage, (next_moments, kernel), prepare, eps, eps_root, start=start)
