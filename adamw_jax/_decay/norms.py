"""Norms that are held, in place of a decay: steps on the sphere of a parameter's first length."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._decay.decay import decays_of
from adamw_jax._decay.proximal import thresholds_of
from adamw_jax._rules.leaf import is_matrix
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import values_now
from adamw_jax._tree import checks
from adamw_jax._tree.loop import extra_arg, params_or_updates, structure_of
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.state import per_path, unique_paths
from adamw_jax._tree.typing import Mask, Params, Rules, Updates
from adamw_jax._tree.width import arithmetic_dtype, as_scalar, widen


class HoldNormState(NamedTuple):
    """State of `hold_norm`.

    Attributes:
      norms: {path: R}, the Euclidean norm at which every held parameter stays; 0 for one that was zero so far.
    """

    norms: Mapping[str, chex.Array]


def _scaled(x: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Return x / m, its norm, and m = max |x|, or 1 for zeros: squares of x itself under- and overflow."""
    largest = jnp.max(jnp.abs(x), initial=0)
    largest = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    scaled = x / largest
    return scaled, jnp.sqrt(jnp.sum(jnp.square(scaled))), largest


def _norm(x: chex.Array) -> chex.Array:
    if isinstance(x, jax.ShapeDtypeStruct):
        return jnp.zeros([], x.dtype)
    _, norm, largest = _scaled(x)
    return norm * largest


def _on_sphere(x: chex.Array, radius: chex.Array) -> chex.Array:
    """Return x with the norm `radius`; zero stays zero."""
    scaled, norm, _ = _scaled(x)
    return scaled * (radius / jnp.where(norm > 0, norm, jnp.ones_like(norm)))


def _hold(u: Any, p: Any, radius: Any, rate: Any) -> tuple[chex.Array, chex.Array]:
    """Return the update that holds the norm, and the radius: that of p itself where it was 0."""
    wide_p, wide_u = (x.astype(arithmetic_dtype(x)) for x in (p, u))
    radius = jnp.where(radius > 0, radius, _norm(wide_p).astype(radius.dtype))
    rate, length = jnp.asarray(rate, wide_u.dtype), radius.astype(wide_u.dtype)
    held = wide_p - _on_sphere(wide_p - rate * _on_sphere(wide_u, length), length)
    return jnp.where(length > 0, held, wide_u).astype(u.dtype), radius


_hold_jit = jax.jit(_hold)


def hold_norm(
    mask: Mask | None,
    *,
    weight_decay: Rules = 0.0,
    proximal_l1: Rules | None = None,
    lr_multipliers: Rules | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep the norm of parameters as it was at the start: only their direction is trained.

        u <- theta - R normalize(theta - a R normalize(u)),   a = alpha eta r,   R = |theta| at the start

    A step then turns the parameter by an angle near the rate a, whatever its length and its gradient's: what a decay
    reaches in equilibrium where the loss ignores the length (see `scale_invariant`), from the first update on. A leaf
    that is zero has no sphere: `init` refuses it where it knows the numbers; under `jax.jit` it does not, and the leaf
    moves by u as it is until it has a length, which is then held.

    Args:
      mask: the leaves whose norm is held: a pattern, patterns, {pattern: flag}, a function (path, leaf) -> bool, or a
        tree of flags; None holds none, and the state is empty.
      weight_decay, proximal_l1: the rules of the decays beside it, which must leave held leaves alone.
      lr_multipliers: the rules that give r.

    Returns:
      A transformation for the place behind rates and decay and before the sign, inside `with_learning_rate`, with the
      state `HoldNormState(norms)`. The updates of other leaves stay as they are.

    Raises:
      ValueError: at `init`, a held leaf that is zero, or that has a decay or a threshold; `update` without parameters.

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
        decays, thresholds = decays_of(weight_decay, params), thresholds_of(proximal_l1, params)
        norms: list[Any] = []
        rows = zip(leaf_paths(params), jax.tree.leaves(params), decays, thresholds, flags, strict=True)
        for path, leaf, decay, threshold, held in rows:
            norms.append(_norm(widen(leaf)) if held else None)
            if not held:
                continue
            if not all(checks.is_traced(part) or checks.equals(part, 0) for part in (*decay, threshold)):
                raise ValueError(
                    f"`hold_norm` must not hold a leaf that decays, got a decay of {decay} and a `proximal_l1` of "
                    f"{threshold} at {path!r}: its length is given by the one or by the other"
                )
            known = not checks.is_traced(norms[-1]) and not isinstance(leaf, jax.ShapeDtypeStruct)
            if jnp.size(leaf) and known and float(norms[-1]) == 0:
                raise ValueError(f"`hold_norm` must hold leaves that are not zero at the start, got zeros at {path!r}")
            if not is_matrix(path, leaf):
                warnings.warn(
                    f"`hold_norm` holds {path!r}, which is no matrix: a bias or a scale usually needs its length",
                    stacklevel=2,
                )
        return HoldNormState(per_path(params, norms))

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
        new_updates, norms = [], dict(state.norms)
        rows = zip(unique_paths(tree), *map(jax.tree.leaves, (updates, tree)), factors, flags, strict=True)
        for path, u, p, r, held in rows:
            new, radius = _hold_jit(u, p, norms[path], rate * r) if held else (u, None)
            new_updates.append(new)
            if held:
                norms[path] = radius
        return structure_of(updates).unflatten(new_updates), HoldNormState(norms)

    return optax.GradientTransformationExtraArgs(init, update)
