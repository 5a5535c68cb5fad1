"""Muon's direction, optax's: an orthogonalized momentum, scaled by the shape of the matrix."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from adamw_jax._direction.direction import as_direction
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.typing import Params, Scalar, Updates


def _as_matrices(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Return the tree with scalars, which stand for frozen leaves, as matrices of one element."""
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (1, 1)) if jnp.ndim(leaf) == 0 else leaf, tree)


def _check_axes(tree: chex.ArrayTree, rule: str, allowed: tuple[int, ...]) -> None:
    for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        if jnp.ndim(leaf) not in allowed:
            raise ValueError(
                f"`scale_by_muon` is for {rule}, got shape {jnp.shape(leaf)} at {path!r}: give other leaves another "
                'direction by their paths, as in {"kernel": scale_by_muon(), "": scale_by_adam()}'
            )


@as_direction()
def scale_by_muon(
    beta: Scalar = 0.95,
    *,
    ns_steps: int = 5,
    eps: Scalar = 1e-8,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    weight_dimension_numbers: Any = None,
    consistent_rms: float | None = None,
    mu_dtype: Any = None,
) -> optax.GradientTransformation:
    """Turn the gradients of matrices into Muon's direction.

        mu <- beta mu + (1 - beta) g           d = s orthogonalize(mu_hat)

    with the momentum corrected for its start, and with Nesterov's look-ahead; orthogonalize is some steps of Newton and
    Schulz's iteration, which bring all singular values near 1. s = sqrt(max(1, outputs / inputs)), or with
    `consistent_rms` c, s = c sqrt(max(inputs, outputs)).

    Args:
      beta: decay rate of the momentum, in [0, 1).
      ns_steps: steps of the iteration, >= 1.
      eps: added to the norm that the momentum is divided by before it, > 0.
      nesterov, adaptive, preconditioning: as in `optax.contrib.scale_by_muon`.
      weight_dimension_numbers: which axes are inputs and outputs, an `optax.contrib.MuonDimensionNumbers` for all
        leaves, or as in `optax.contrib.muon`; None takes matrices only, (inputs, outputs).
      consistent_rms: c, > 0, for steps as large as Adam's: 0.2 is usual.
      mu_dtype: of the momentum; None is the parameter's.

    Returns:
      A transformation whose updates are the direction d, of the gradients' shapes and sign. No rate and no decay is in
      it, those are `decoupled`'s.

    Raises:
      ValueError: a number out of range; at `init`, a leaf that is no matrix, named.

    Source: Jordan et al., "Muon", 2024, and Liu et al., arXiv 2502.16982, as `optax.contrib.muon` has them.

    >>> tx = scale_by_muon()
    >>> direction, _ = tx.update(jnp.eye(2) * 3.0, tx.init(jnp.eye(2)))
    >>> bool(jnp.abs(direction - jnp.eye(2)).max() < 0.35)
    True
    """
    checks.check_number("beta", beta, low=0, high=1, open_high=True)
    checks.check_count("ns_steps", ns_steps)
    checks.check_number("eps", eps, low=0, open_low=True)
    if consistent_rms is not None:
        checks.check_number("consistent_rms", consistent_rms, low=0, open_low=True)
    given = weight_dimension_numbers

    def dimension_numbers(params: Params) -> chex.ArrayTree:
        matrix = optax.contrib.MuonDimensionNumbers()
        if given is None or isinstance(given, optax.contrib.MuonDimensionNumbers):
            return jax.tree.map(lambda leaf: matrix if given is None or jnp.ndim(leaf) == 2 else given, params)
        return given(params) if callable(given) else given

    # A rate of -1 is optax's way to leave the sign of its direction alone; no leaf gets the other half, its Adam.
    inner = optax.contrib.muon(
        -1.0,
        beta=beta,
        ns_steps=ns_steps,
        eps=eps,
        nesterov=nesterov,
        adaptive=adaptive,
        preconditioning=preconditioning,
        muon_weight_dimension_numbers=dimension_numbers,
        consistent_rms=consistent_rms,
        mu_dtype=mu_dtype,
    )

    def init(params: Params) -> optax.OptState:
        if given is None:
            _check_axes(params, "matrices, leaves of two axes, unless `weight_dimension_numbers` says more", (0, 2))
        return inner.init(_as_matrices(params))

    def update(updates: Updates, state: Any, params: Params | None = None) -> tuple[Updates, Any]:
        if not jax.tree.leaves(updates):
            return updates, state
        # optax asks for parameters to be decayed, by nothing here.
        shown = _as_matrices(updates if params is None else params)
        direction, state = inner.update(_as_matrices(updates), state, shown)
        return jax.tree.map(lambda d, u: jnp.reshape(d, jnp.shape(u)), direction, updates), state

    return optax.GradientTransformation(init, update)
