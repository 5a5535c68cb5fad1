"""Adam's direction, and what all directions with two moments share."""

from collections.abc import Callable
from typing import Any

import chex
import jax.numpy as jnp
import optax
from jax.lax import add, convert_element_type, div, mul, pow, sqrt, square, sub

from adamw_jax._direction.direction import as_direction, of_momentum
from adamw_jax._direction.epsilon import check_epsilons, epsilons, with_epsilons
from adamw_jax._storage.formats import Storage, storage_of
from adamw_jax._storage.loop import Direction, PackedMomentsState, map_moments
from adamw_jax._tree import checks
from adamw_jax._tree.fit import check_kind
from adamw_jax._tree.loop import Kernel
from adamw_jax._tree.typing import MomentDtype, Moments, Params, Rules, Scalar, Scalars, Updates
from adamw_jax._tree.width import as_scalar


def check_moments(b1: Scalar, b2: Scalar, eps: Rules, eps_root: Rules) -> None:
    """Check the numbers that all directions with two moments share."""
    checks.check_number("b1", b1, low=0, high=1, open_high=True)
    checks.check_number("b2", b2, low=0, high=1, open_high=True)
    check_epsilons(eps, eps_root)


def moment_weights(b1: Scalar, b2: Scalar) -> tuple[Any, ...]:
    """Return b1, 1 - b1, b2, 1 - b2: the first four scalars of every kernel that calls `next_moments`."""
    return as_scalar(b1), 1 - as_scalar(b1), as_scalar(b2), 1 - as_scalar(b2)


def next_moments(scalars: Scalars, g: chex.Array, mu: chex.Array, nu: chex.Array) -> tuple[chex.Array, ...]:
    """Return mu <- b1 mu + (1 - b1) g and nu <- b2 nu + (1 - b2) g^2."""
    b1, rest_1, b2, rest_2, *_ = scalars
    return add(mul(mu, b1), mul(g, rest_1)), add(mul(nu, b2), mul(square(g), rest_2))


def correction(decay: Scalar, count: chex.Array) -> chex.Array:
    """Return 1 - decay^count, the divisor that corrects a moment for its start at zero."""
    decay = as_scalar(decay)
    return sub(jnp.ones_like(decay), pow(decay, convert_element_type(count, decay.dtype)))


def denominator(nu: chex.Array, eps: Any, eps_root: Any) -> chex.Array:
    """Return sqrt(nu + eps_root) + eps."""
    return add(sqrt(nu if checks.equals(eps_root, 0) else add(nu, eps_root)), eps)


def scaled_by_root(count: chex.Array, b2: Scalar, eps: Scalar, eps_root: Scalar) -> tuple[chex.Array, Any, Any]:
    """Return r, r eps and r^2 eps_root with r^2 = 1 - b2^t.

    A direction whose numerator and denominator are multiplied by r corrects nu without a division per element.
    """
    c2 = correction(b2, count)
    root = sqrt(c2)
    return root, mul(root, as_scalar(eps)), 0.0 if checks.equals(eps_root, 0) else mul(c2, as_scalar(eps_root))


def adam_scalars(
    count: chex.Array, b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar, epsilon_hat: bool
) -> tuple[Any, ...]:
    """Return the scalars of Adam's kernels: the moments' weights, r / (1 - b1^t), and epsilon and its root's with r."""
    root, scaled_eps, scaled_eps_root = scaled_by_root(count, b2, eps, eps_root)
    factor = div(root, correction(b1, count))
    return *moment_weights(b1, b2), factor, as_scalar(eps) if epsilon_hat else scaled_eps, scaled_eps_root


def adam_direction(scalars: Scalars, g: chex.Array, new: Moments, old: Moments) -> chex.Array:
    """Return mu_hat / (sqrt(nu_hat + eps_root) + eps), with numerator and denominator multiplied by r."""
    (mu, nu), (*_, factor, eps, eps_root) = new, scalars
    return div(mul(mu, factor), denominator(nu, eps, eps_root))


def of_moments(
    state_type: Any,
    storage: Storage,
    kernels: tuple[Kernel, Direction],
    prepare: Callable[..., tuple[tuple[Any, ...], Callable[[Any, Any], tuple[Any, ...]]]],
    eps: Rules,
    eps_root: Rules,
    *,
    number: int = 2,
    start: Callable[[], tuple[chex.Array, ...]] = tuple,
) -> optax.GradientTransformation:
    """Return the transformation of kernels whose last two scalars are from eps and eps_root.

    Args:
      state_type: (count, *scalars, *moments as stored) -> the state.
      kernels: `advance` and `direction` of `map_moments`.
      prepare: (count of this update, state) -> the state's new scalars, and (eps, eps_root) -> the kernels' scalars.
      number: of the moments.
      start: () -> the scalars of a fresh state.
    """

    def init(params: Params) -> Any:
        checks.check_floating("params", params)
        epsilons(eps, eps_root, params)
        return state_type(jnp.zeros([], jnp.int32), *start(), *storage.zeros(params, number))

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        check_kind(state, state_type)
        count = optax.safe_increment(state.count)
        kept, scalars_of = prepare(count, state)
        scalars, of_leaf = with_epsilons(eps, eps_root, updates, scalars_of)
        moments = state[1 + len(kept) :]
        direction, *moments = map_moments(*kernels, scalars, updates, moments, count, storage, of_leaf)
        return direction, state_type(count, *kept, *moments)

    return optax.GradientTransformation(init, update)


@as_direction(averages=lambda count, b1, **_: of_momentum(b1))
def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Rules = 1e-8,
    eps_root: Rules = 0.0,
    *,
    epsilon_hat: bool = False,
    moment_dtype: MomentDtype = None,
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
      eps: added to the root, > 0; in the gradient's unit: a number, or a rule that gives each leaf one: {pattern: eps},
        1e-8 where no pattern matches, a function (path, leaf) -> eps, or a tree of numbers.
      eps_root: added under the root, >= 0; in the gradient's unit squared; likewise, 0 where no pattern matches.
      epsilon_hat: Keras's convention for epsilon.
      moment_dtype: how mu and nu are stored. None: in the parameter's dtype, but no narrower than float32; float32 or
        wider; bfloat16, stochastically rounded; "packed": both as bfloat16 in one 32-bit word, likewise rounded;
        "packed8": both as 8-bit codes in one 16-bit word, four to the octave, for moments mu from 4e-9 to 11 and nu
        from 1e-17 to 181 in the gradients' unit. The direction takes a nu below that range as the least that exact
        moments with this mu can have: nu >= (1 - b2) (1 - b1^2 / b2) / (1 - b1)^2 mu^2.

    Returns:
      A transformation whose updates are the direction d, of the gradients' shapes, dtypes and sign. Its state
      is `optax.ScaleByAdamState(count, mu, nu)`, or packed `PackedMomentsState(count, moments)`: see
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
    storage = storage_of("moment_dtype", moment_dtype)
    state_type: Any = PackedMomentsState if storage.packs else optax.ScaleByAdamState

    def prepare(count: chex.Array, state: Any) -> Any:
        return (), lambda eps, eps_root: adam_scalars(count, b1, b2, eps, eps_root, epsilon_hat)

    return of_moments(state_type, storage, (next_moments, adam_direction), prepare, eps, eps_root)
