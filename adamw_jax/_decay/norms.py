"""Norms that are held, in place of a decay: steps on the sphere of a parameter's first length."""

import warnings
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._decay.decay import decays_of
from adamw_jax._rules.leaf import is_matrix
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import values_now
from adamw_jax._tree import checks
from adamw_jax._tree.loop import extra_arg, params_or_updates
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.typing import Mask, Params, Rules, Updates
from adamw_jax._tree.width import arithmetic_dtype, as_scalar, widen


class HoldNormState(NamedTuple):
    """State of `hold_norm`.

    Attributes:
      norms: the Euclidean norm of every held parameter at the start, a tree of scalars like the parameters; 0 for the
        others.
    """

    norms: Params


def _on_sphere(x: chex.Array, radius: chex.Array) -> chex.Array:
    """Return x with the norm `radius`; zero stays zero."""
    norm = optax.tree.norm(x)
    return x * jnp.where(norm > 0, radius / jnp.where(norm > 0, norm, 1), 0)


def _hold(u: Any, p: Any, radius: Any, rate: Any) -> chex.Array:
    wide_p, wide_u = (x.astype(arithmetic_dtype(x)) for x in (p, u))
    rate, radius = jnp.asarray(rate, wide_u.dtype), radius.astype(wide_u.dtype)
    return (wide_p - _on_sphere(wide_p - rate * _on_sphere(wide_u, radius), radius)).astype(u.dtype)


_hold_jit = jax.jit(_hold)


def hold_norm(
    mask: Mask | None, *, weight_decay: Rules = 0.0, lr_multipliers: Rules | None = None
) -> optax.GradientTransformationExtraArgs:
    """Keep the norm of parameters as it was at the start: only their direction is trained.

        u <- theta - R normalize(theta - a R normalize(u)),   a = alpha eta r,   R = |theta| at the start

    A step then turns the parameter by an angle near the rate a, whatever its length and its gradient's: what a decay
    reaches in equilibrium where the loss ignores the length (see `scale_invariant`), from the first update on.

    Args:
      mask: the leaves whose norm is held: a pattern, patterns, {pattern: flag}, a function (path, leaf) -> bool, or a
        tree of flags; None holds none, and the state is empty.
      weight_decay: the rules of the decay beside it, which must leave held leaves alone.
      lr_multipliers: the rules that give r.

    Returns:
      A transformation for the place behind rates and decay and before the sign, inside `with_learning_rate`, with the
      state `HoldNormState(norms)`. The updates of other leaves stay as they are.

    Raises:
      ValueError: at `init`, a held leaf that is zero, or that has a decay; `update` without parameters.

    Warns:
      UserWarning: at `init`, a held leaf that is no matrix, for a bias or a scale needs its length.

    Source: Wen et al., "Hyperball", arXiv 2606.16899.

    >>> from adamw_jax import with_learning_rate
    >>> tx = with_learning_rate(0.1, hold_norm("kernel"))
    >>> params = {"kernel": jnp.array([[3.0, 4.0]])}
    >>> updates, _ = tx.update({"kernel": jnp.array([[1.0, -1.0]])}, tx.init(params), params)
    >>> print(jnp.linalg.norm(params["kernel"] - updates["kernel"]).round(5))
    5.0
    """
    if mask is None:
        return optax.with_extra_args_support(optax.identity())

    def init(params: Params) -> HoldNormState:
        flags = resolve_mask("hold_norm", mask, params)
        rows = zip(leaf_paths(params), jax.tree.leaves(params), decays_of(weight_decay, params), flags, strict=True)
        norms = []
        for path, leaf, decay, held in rows:
            norm = optax.tree.norm(widen(leaf)) if held else jnp.zeros([], jnp.float32)
            norms.append(norm)
            if not held:
                continue
            if not all(checks.equals(part, 0) for part in decay):
                raise ValueError(
                    f"`hold_norm` must not hold a leaf that decays, got a decay of {decay} at {path!r}: its length is "
                    "given by the one or by the other"
                )
            if not checks.is_traced(norm) and float(norm) == 0:
                raise ValueError(f"`hold_norm` must hold leaves that are not zero at the start, got zeros at {path!r}")
            if not is_matrix(path, leaf):
                warnings.warn(
                    f"`hold_norm` holds {path!r}, which is no matrix: a bias or a scale usually needs its length",
                    stacklevel=2,
                )
        return HoldNormState(jax.tree.unflatten(jax.tree.structure(params), norms))

    def update(
        updates: Updates, state: HoldNormState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, HoldNormState]:
        tree = params_or_updates(updates, params)
        flags = resolve_mask("hold_norm", mask, tree)
        if not any(flags):
            return updates, state
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to hold their norm, got None")
        factors = values_now("lr_multipliers", multipliers_of(lr_multipliers, tree), extra_args)
        eta = extra_args.get("eta")
        rate = as_scalar(extra_arg("alpha", extra_args)) * (1.0 if eta is None else as_scalar(eta))
        rows = zip(*map(jax.tree.leaves, (updates, params, state.norms)), factors, flags, strict=True)
        held = [_hold_jit(u, p, radius, rate * r) if flag else u for u, p, radius, r, flag in rows]
        return jax.tree.unflatten(jax.tree.structure(updates), held), state

    return optax.GradientTransformationExtraArgs(init, update)
