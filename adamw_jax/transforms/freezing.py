"""Freezing leaves: no update, and no moments."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax.paths import resolve_mask
from adamw_jax.typing import Mask, Params, Updates


def _placeholders(tree: chex.ArrayTree, frozen: list[bool]) -> chex.ArrayTree:
    leaves, structure = jax.tree.flatten(tree)
    new = [jnp.zeros((), jnp.result_type(leaf)) if cold else leaf for leaf, cold in zip(leaves, frozen, strict=True)]
    return jax.tree.unflatten(structure, new)


def without_moments(freeze: Mask, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with a scalar zero in the place of every frozen leaf, in parameters and updates alike.

    So the trees in the state of `inner` have the parameters' structure, whatever is frozen, and a scalar where a leaf
    is. To thaw or freeze later, keep what still fits:

        jax.tree.map(lambda new, old: old if old.shape == new.shape else new, new_tx.init(params), state)

    Args:
      freeze: the frozen leaves: a pattern, patterns, {pattern: flag}, a function (path, leaf) -> bool, or a tree of
        flags. Flags are plain True and False, for they decide about the shapes in the state.
      inner: the stage whose state is to be saved; its updates for a frozen leaf are replaced by zeros.

    Returns:
      A transformation; updates keep shape and dtype.

    Raises:
      ValueError, TypeError: at `init` already, for a mask that does not fit the parameters.

    >>> tx = without_moments("body", optax.trace(0.9))
    >>> params = {"body": jnp.ones((2, 2)), "head": jnp.ones(2)}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> print(updates["body"].sum(), state.trace["body"], state.trace["head"])
    0.0 0.0 [1. 1.]
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return inner.init(_placeholders(params, resolve_mask("freeze", freeze, params)))

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        frozen = resolve_mask("freeze", freeze, updates if params is None else params)
        small = None if params is None else _placeholders(params, frozen)
        new, state = inner.update(_placeholders(updates, frozen), state, small, **extra_args)
        leaves, structure = jax.tree.flatten(updates)
        filled = [
            jnp.zeros_like(leaf) if cold else out
            for leaf, out, cold in zip(leaves, jax.tree.leaves(new), frozen, strict=True)
        ]
        return jax.tree.unflatten(structure, filled), state

    return optax.GradientTransformationExtraArgs(init, update)


def freeze_where(freeze: Mask) -> optax.GradientTransformationExtraArgs:
    """Set the updates of the frozen leaves to zero, whatever the stages before it made of them.

    Args:
      freeze: see `without_moments`.

    Returns:
      A stateless transformation; a frozen leaf's update is exactly zero, also where a gradient was not finite.

    >>> tx = freeze_where("body")
    >>> params = {"body": jnp.array([jnp.nan]), "head": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> print(updates["body"], updates["head"])
    [0.] [1.]
    """
    return without_moments(freeze, optax.identity())
