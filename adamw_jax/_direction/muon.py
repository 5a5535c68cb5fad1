"""Muon's direction: a momentum, orthogonalized, and scaled by the shape of the matrix."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import optax
from typing_extensions import Unpack

from adamw_jax._direction.adam import correction
from adamw_jax._direction.direction import as_direction
from adamw_jax._direction.iteration import MatrixOptions, Orthogonalization, one_of
from adamw_jax._direction.orthogonalize import orthogonalize
from adamw_jax._storage.formats import storage_of
from adamw_jax._storage.loop import map_moments
from adamw_jax._tree import checks
from adamw_jax._tree.typing import MomentDtype, Params, Scalar, Updates
from adamw_jax._tree.width import as_scalar, cast_like, widen


class ScaleByMuonState(NamedTuple):
    """State of `scale_by_muon`.

    Attributes:
      count: updates made, int32.
      mu: the momentum, a tree like the parameters.
    """

    count: chex.Array
    mu: Updates


def _next_momentum(scalars: Any, g: Any, mu: Any) -> tuple[chex.Array, ...]:
    beta, rest, *_ = scalars
    return (beta * mu + rest * g,)


def _heavy_ball(scalars: Any, g: Any, new: Any, old: Any) -> Any:
    *_, from_moment, _ = scalars
    return from_moment * new[0]


def _look_ahead(scalars: Any, g: Any, new: Any, old: Any) -> Any:
    *_, from_moment, from_gradient = scalars
    return from_moment * new[0] + from_gradient * g


@as_direction(options=Orthogonalization)
def scale_by_muon(
    beta: Scalar = 0.95,
    *,
    nesterov: bool = True,
    moment_dtype: MomentDtype = None,
    mu_dtype: MomentDtype = None,
    axes: Any = None,
    **options: Unpack[MatrixOptions],
) -> optax.GradientTransformation:
    """Turn the gradients of matrices into Muon's direction.

        mu <- beta mu + (1 - beta) g
        mu_hat = mu / (1 - beta^t)                   or, with Nesterov's look-ahead,
        mu_hat = beta mu / (1 - beta^(t + 1)) + (1 - beta) g / (1 - beta^t)
        d = s newton_schulz(mu_hat)                  see `orthogonalize`

    Args:
      beta: decay rate of the momentum, in [0, 1).
      nesterov: look ahead by one more step of the momentum.
      moment_dtype: how the momentum is stored, as in `scale_by_momentum`.
      mu_dtype: optax's name of `moment_dtype`.
      axes, **options: see `orthogonalize`.

    Returns:
      A transformation whose updates are the direction d, of the gradients' shapes, dtypes and sign, with the state
      `ScaleByMuonState(count, mu)`. No rate and no decay is in it, those are `decoupled`'s.

    Raises:
      ValueError, TypeError: as `orthogonalize`; parameters that are not real floating.

    Source: Jordan et al., "Muon", 2024, as `optax.contrib.muon` has it.

    >>> tx = scale_by_muon()
    >>> direction, _ = tx.update(jnp.eye(2) * 3.0, tx.init(jnp.eye(2)))
    >>> bool(jnp.abs(direction - jnp.eye(2)).max() < 0.35)
    True
    """
    checks.check_number("beta", beta, low=0, high=1, open_high=True)
    kernel = _look_ahead if checks.check_flag("nesterov", nesterov) else _heavy_ball
    storage = storage_of("moment_dtype", one_of("moment_dtype", moment_dtype, "mu_dtype", mu_dtype))
    orthogonalized = orthogonalize(axes, **options)

    def init(params: Params) -> ScaleByMuonState:
        checks.check_floating("params", params)
        orthogonalized.init(params)
        return ScaleByMuonState(jnp.zeros([], jnp.int32), *storage.zeros(params, 1))

    def update(
        updates: Updates, state: ScaleByMuonState, params: Params | None = None
    ) -> tuple[Updates, ScaleByMuonState]:
        count = optax.safe_increment(state.count)
        ahead = count + 1 if nesterov else count
        weights = (as_scalar(beta), 1 - as_scalar(beta))
        from_moment = (as_scalar(beta) if nesterov else 1.0) / correction(beta, ahead)
        scalars = (*weights, from_moment, weights[1] / correction(beta, count))
        direction, mu = map_moments(_next_momentum, kernel, scalars, widen(updates), (state.mu,), count, storage)
        direction, _ = orthogonalized.update(direction, optax.EmptyState(), params)
        return cast_like(direction, updates), ScaleByMuonState(count, mu)

    return optax.GradientTransformation(init, update)
