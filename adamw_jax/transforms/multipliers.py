"""Per-leaf learning-rate multipliers, and freezing where a multiplier is zero."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax.checks import equals, is_traced
from adamw_jax.paths import check_multiplier, resolve_rules
from adamw_jax.transforms.leaves import map_leaves
from adamw_jax.typing import Params, Rules, Updates


def _multiply(scalars: Any, u: Any, multiplier: Any) -> tuple[chex.Array, ...]:
    del scalars
    return (u if equals(multiplier, 1) else jax.lax.mul(u, multiplier),)


def _freeze(scalars: Any, u: Any, multiplier: Any) -> tuple[chex.Array, ...]:
    del scalars
    if is_traced(multiplier):
        return (jnp.where(multiplier == 0, jnp.zeros_like(u), u),)
    return (jnp.zeros_like(u) if equals(multiplier, 0) else u,)


def _per_leaf(name: str, rules: Rules, kernel: Any) -> optax.GradientTransformation:
    def init(params: Params) -> optax.EmptyState:
        resolve_rules(name, rules, params, check_multiplier, 1.0)
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Updates, optax.EmptyState]:
        values = resolve_rules(name, rules, updates if params is None else params, check_multiplier, 1.0)
        (updates,) = map_leaves(kernel, (), (updates,), values)
        return updates, state

    return optax.GradientTransformation(init, update)


def scale_by_multipliers(lr_multipliers: Rules) -> optax.GradientTransformation:
    """Multiply every leaf's update by its own number r: u <- r u.

    Args:
      lr_multipliers: rules that give r >= 0 per leaf (a number, {pattern: r}, a function (path, leaf) -> r, or a tree);
        1 where no pattern matches.

    Returns:
      A stateless transformation; the updates keep shape and dtype.

    Raises:
      ValueError, TypeError: at `init` already, for rules that do not fit the parameters (see `resolve_rules`).

    Source: keras-adamw's `lr_multipliers`; big_vision's `lr_mults`.

    >>> tx = scale_by_multipliers({"head": 2.0})
    >>> params = {"body": jnp.ones(1), "head": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> print(updates["body"], updates["head"])
    [1.] [2.]
    """
    return _per_leaf("lr_multipliers", lr_multipliers, _multiply)


def freeze_where_zero(lr_multipliers: Rules) -> optax.GradientTransformation:
    """Set the update of every leaf to zero whose multiplier is zero, whatever the stages before it made of it.

    Args:
      lr_multipliers: the rules given to `scale_by_multipliers`.

    Returns:
      A stateless transformation; a frozen leaf's update is exactly zero, also where a gradient was not finite.

    Raises:
      ValueError, TypeError: as `scale_by_multipliers`.

    Source: "multiplier 0 freezes" as in big_vision's `lr_mults`; a decay would still move the leaf without this stage.

    >>> tx = freeze_where_zero({"body": 0})
    >>> params = {"body": jnp.array([jnp.nan]), "head": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> print(updates["body"], updates["head"])
    [0.] [1.]
    """
    return _per_leaf("lr_multipliers", lr_multipliers, _freeze)
