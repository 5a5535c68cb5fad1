"""Proximal L1: a soft threshold that leaves exact zeros."""

from typing import Any

import chex
import jax.numpy as jnp
import optax

from adamw_jax._decay.factor import DecayFactor
from adamw_jax._rules.stacks import values_of
from adamw_jax._rules.values import check_multiplier, check_rules, check_start, values_now
from adamw_jax._tree import checks
from adamw_jax._tree.loop import map_leaves
from adamw_jax._tree.stage import params_or_updates, stateless
from adamw_jax._tree.typing import Params, Rules, Updates


def thresholds_of(rules: Rules | None, tree: chex.ArrayTree, axes: Any = None) -> list[Any]:
    """Return l1 of every leaf, a number, a schedule, or an array along its stack; 0 where no rule is."""
    return values_of("proximal_l1", 0.0 if rules is None else rules, tree, check_multiplier, 0.0, axes)


def _shrink(scalars: Any, u: Any, p: Any, value: Any) -> tuple[chex.Array, ...]:
    plain, corrected = scalars
    l1, normalized = value
    if checks.equals(l1, 0):
        return (u,)
    threshold = jnp.asarray((corrected if normalized else plain) * l1, u.dtype)
    target = p - u
    shrunk = p - jnp.sign(target) * jnp.maximum(jnp.abs(target) - threshold, jnp.zeros_like(target))
    # A threshold of zero leaves the update alone, unrounded.
    return (jnp.where(threshold == 0, u, shrunk),)


def soft_threshold(
    proximal_l1: Rules | None, *, factor: DecayFactor | None = None
) -> optax.GradientTransformationExtraArgs:
    """Shrink what the update leads to by the L1 decay's proximal step, which sets small weights to exactly zero.

        theta' = theta - u                                   what a descent by u leads to
        u <- theta - sign(theta') max(|theta'| - c n r' l1, 0)

    A decay that subtracts l1 sign(theta) shrinks weights as much, but steps across zero and back.

    Args:
      proximal_l1: rules that give l1 >= 0 per leaf, a number or a schedule; 0 where no pattern matches. None is 0.
      factor: the decay's factor c n r'; None is the paper's, c = eta.

    Returns:
      A stateless transformation for the place before the last `optax.scale(-1.0)`, inside the owners of alpha and eta.
      A weight that the threshold swallows becomes exactly 0.0 if the updates are as wide as the parameters.

    Raises:
      ValueError, TypeError: rules that do not fit the parameters (at `init` already), `update` without parameters,
        a factor that no owner around this stage provides.

    Source: the proximal operator of the L1 norm; Yun, Lozano & Yang, "Adaptive Proximal Gradient Methods", NeurIPS
    2021, for its use in Adam-like methods; here unscaled by the moments, as a decoupled decay.

    >>> tx = soft_threshold(0.5, factor=DecayFactor("constant"))
    >>> params = jnp.array([1.0, 0.2])
    >>> updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
    >>> print(params - updates)
    [0.5 0. ]
    """
    check_rules("proximal_l1", proximal_l1, check_multiplier)
    whole = DecayFactor() if factor is None else factor

    def check(params: Params) -> None:
        checks.check_floating("params", params)
        check_start("proximal_l1", thresholds_of(proximal_l1, params))

    def apply(updates: Updates, params: Params | None, extra_args: dict[str, Any]) -> Updates:
        tree = params_or_updates(updates, params)
        thresholds = values_now("proximal_l1", thresholds_of(proximal_l1, tree), extra_args)
        if all(checks.equals(threshold, 0) for threshold in thresholds):
            return updates
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to shrink them, got None")
        values = whole.on_leaves([(l1,) for l1 in thresholds], tree, extra_args)
        return map_leaves(_shrink, whole.now(extra_args), (updates, params), values)[0]

    return stateless(apply, check)
