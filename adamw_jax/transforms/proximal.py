"""Proximal L1: a soft threshold that leaves exact zeros."""

from typing import Any

import chex
import jax.numpy as jnp
import optax

from adamw_jax import checks
from adamw_jax.paths import check_multiplier, resolve_rules
from adamw_jax.transforms.coupling import COUPLINGS, Corrected, correction_to_peak
from adamw_jax.transforms.decay import check_normalize, norm_of
from adamw_jax.transforms.leaves import map_leaves, wide
from adamw_jax.transforms.rates import extra_arg
from adamw_jax.typing import Params, Rules, Scalar, Updates


def _shrink(scalars: Any, u: Any, p: Any, value: Any) -> tuple[chex.Array, ...]:
    base, corrected = scalars
    l1, multiplier, normalized = value
    if checks.equals(l1, 0):
        return (u,)
    threshold = (corrected if normalized else base) * jnp.asarray(l1, u.dtype) * jnp.asarray(multiplier, u.dtype)
    target = p - u
    shrunk = p - jnp.sign(target) * jnp.maximum(jnp.abs(target) - threshold, 0.0)
    # A threshold of zero leaves the update alone, unrounded.
    return (jnp.where(threshold == 0, u, shrunk),)


def soft_threshold(
    proximal_l1: Rules,
    *,
    coupling: str | Corrected = "schedule",
    peak: Scalar = 1.0,
    normalize: Scalar | str | None = None,
    multipliers: Rules = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Shrink what the update leads to by the L1 decay's proximal step, which sets small weights to exactly zero.

        theta' = theta - u                                   what a descent by u leads to
        u <- theta - sign(theta') max(|theta'| - c n r l1, 0)

    with the coupling's factor c = alpha eta ("learning_rate"), eta ("schedule"), 1 ("constant"), or alpha eta and
    (alpha eta)^2 / peak by layer (`Corrected`), and n = 1, sqrt(1 / T) or sqrt(1 / T_i). A decay that subtracts
    l1 sign(theta) has the same strength but steps across zero and back.

    Args:
      proximal_l1: rules that give l1 >= 0 per leaf; 0 where no pattern matches.
      coupling: the factor c.
      peak: the largest alpha eta of the run, for `Corrected`.
      normalize: as in `add_decoupled_decay`.
      multipliers: rules that give r >= 0 per leaf.

    Returns:
      A stateless transformation for the place before the last `optax.scale(-1.0)`, inside the owners of alpha and eta.
      A weight that the threshold swallows becomes exactly 0.0 if the updates are as wide as the parameters.

    Raises:
      ValueError, TypeError: rules that do not fit the parameters (at `init` already), `update` without parameters,
        a factor that no owner around this stage provides.

    Source: the proximal operator of the L1 norm; Yun, Lozano & Yang, "Adaptive Proximal Gradient Methods", NeurIPS
    2021, for its use in Adam-like methods; here unscaled by the moments, as a decoupled decay.

    >>> tx = soft_threshold(0.5, coupling="constant")
    >>> params = jnp.array([1.0, 0.2])
    >>> updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
    >>> print(params - updates)
    [0.5 0. ]
    """
    if not isinstance(coupling, Corrected):
        checks.check_choice("coupling", coupling, COUPLINGS)
    check_normalize(normalize)

    def values_for(params: Params) -> list[Any]:
        thresholds = resolve_rules("proximal_l1", proximal_l1, params, check_multiplier, 0.0)
        factors = resolve_rules("multipliers", multipliers, params, check_multiplier, 1.0)
        flags = coupling.flags(params) if isinstance(coupling, Corrected) else [False] * len(factors)
        return list(zip(thresholds, factors, flags, strict=True))

    def init(params: Params) -> optax.EmptyState:
        checks.check_floating("params", params)
        values_for(params)
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.EmptyState]:
        values = values_for(updates if params is None else params)
        if all(checks.equals(threshold, 0) for threshold, _, _ in values):
            return updates, state
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to shrink them, got None")
        factor = norm_of(normalize, extra_args)
        if coupling != "constant" and extra_args.get("eta") is not None:
            factor = factor * wide(extra_args["eta"])
        if isinstance(coupling, Corrected) or coupling == "learning_rate":
            factor = factor * extra_arg("alpha", extra_args)
        corrected = factor * correction_to_peak(peak, extra_args) if isinstance(coupling, Corrected) else factor
        (updates,) = map_leaves(_shrink, (factor, corrected), (updates, params), values)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
