"""Per-leaf learning-rate multipliers."""

from typing import Any

import chex
import jax
import optax

from adamw_jax._rules.stacks import values_of
from adamw_jax._rules.values import check_multiplier, check_rules, check_start, values_now
from adamw_jax._tree.checks import equals
from adamw_jax._tree.loop import map_leaves
from adamw_jax._tree.stage import params_or_updates, stateless
from adamw_jax._tree.typing import Params, Rules, Updates


def _multiply(scalars: Any, u: Any, multiplier: Any) -> tuple[chex.Array, ...]:
    del scalars
    return (u if equals(multiplier, 1) else jax.lax.mul(u, multiplier),)


def multipliers_of(rules: Rules | None, tree: chex.ArrayTree, axes: Any = None) -> list[Any]:
    """Return the multiplier r of every leaf, a number, a schedule, or an array along its stack; 1 where no rule is."""
    return values_of("lr_multipliers", 1.0 if rules is None else rules, tree, check_multiplier, 1.0, axes)


def scale_by_multipliers(lr_multipliers: Rules | None) -> optax.GradientTransformationExtraArgs:
    """Multiply every leaf's update by its own number r: u <- r u.

    Args:
      lr_multipliers: rules that give r >= 0 per leaf: a number, {pattern: r}, a function (path, leaf) -> r, or a tree;
        1 where no pattern matches. An r may be a schedule count -> number, inside `with_learning_rate`, or for a stack
        of layers an array with one number per layer. None leaves the updates as they are.

    Returns:
      A stateless transformation; the updates keep shape and dtype.

    Raises:
      ValueError, TypeError: at `init` already, for rules that do not fit the parameters (see `resolve_rules`); updates
        and parameters of different structures.

    Source: keras-adamw's `lr_multipliers`; big_vision's `lr_mults`.

    >>> import jax.numpy as jnp
    >>> tx = scale_by_multipliers({"head": 2.0})
    >>> params = {"body": jnp.ones(1), "head": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> print(updates["body"], updates["head"])
    [1.] [2.]
    """
    check_rules("lr_multipliers", lr_multipliers, check_multiplier)

    def check(params: Params) -> None:
        check_start("lr_multipliers", multipliers_of(lr_multipliers, params))

    def apply(updates: Updates, params: Params | None, extra_args: dict[str, Any]) -> Updates:
        tree = params_or_updates(updates, params)
        if lr_multipliers is None:
            return updates
        values = values_now("lr_multipliers", multipliers_of(lr_multipliers, tree), extra_args)
        return map_leaves(_multiply, (), (updates,), values)[0]

    return stateless(apply, check)
