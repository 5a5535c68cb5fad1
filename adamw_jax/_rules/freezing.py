"""Freezing leaves: no update, no moments, and no demand on their dtype."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._rules.masks import resolve_mask
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import values_now
from adamw_jax._tree.checks import equals, is_traced
from adamw_jax._tree.loop import map_leaves
from adamw_jax._tree.stage import params_or_updates, stateless, structure_of
from adamw_jax._tree.typing import Mask, Params, Rules, Updates
from adamw_jax._tree.width import is_floating


def frozen_flags(freeze: Mask | None, tree: chex.ArrayTree) -> list[bool]:
    """Return for every leaf, in the order of `jax.tree.leaves`, whether it is frozen."""
    return [False] * len(jax.tree.leaves(tree)) if freeze is None else resolve_mask("freeze", freeze, tree)


def _replace(tree: chex.ArrayTree, flags: list[bool], new: Callable[[Any], Any]) -> chex.ArrayTree:
    pairs = zip(jax.tree.leaves(tree), flags, strict=True)
    return structure_of(tree).unflatten([new(leaf) if flag else leaf for leaf, flag in pairs])


def _with_stand_ins(
    inner: optax.GradientTransformation,
    flags_of: Callable[[Updates, Params], list[bool]],
    stand_in: Callable[[Any], Any],
    back: Callable[[Any, Any], Any],
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with a stand-in for every flagged leaf, whose update is `back(update, parameter)`."""
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return inner.init(_replace(params, flags_of(params, params), stand_in))

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        tree = params_or_updates(updates, params)
        flags = flags_of(updates, tree)
        if not any(flags):
            new, state = inner.update(updates, state, params, **extra_args)
            return new, state
        shown = None if params is None else _replace(params, flags, stand_in)
        new, state = inner.update(_replace(updates, flags, stand_in), state, shown, **extra_args)
        structure = structure_of(updates)
        rows = zip(*map(jax.tree.leaves, (updates, tree)), structure.flatten_up_to(new), flags, strict=True)
        return structure.unflatten([back(u, p) if flag else out for u, p, out, flag in rows]), state

    return optax.GradientTransformationExtraArgs(init, update)


def without_moments(freeze: Mask | None, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run `inner` with `optax.MaskedNode()` in the place of every frozen leaf, in parameters and updates alike.

    A frozen leaf has nothing in the trees of the state of `inner`, as under `optax.masked`. To train a leaf later that
    has no moments, see `carry_over`.

    Args:
      freeze: the frozen leaves: a pattern, patterns, {pattern: flag}, a function (path, leaf) -> bool, or a tree of
        flags. Flags are plain True and False, for they decide about the shapes in the state. None freezes none.
      inner: the stage whose state is to be saved; its updates for a frozen leaf are replaced by zeros.

    Returns:
      A transformation; updates keep shape and dtype.

    Raises:
      ValueError, TypeError: at `init` already, for a mask that does not fit the parameters.

    >>> tx = without_moments("body", optax.trace(0.9))
    >>> params = {"body": jnp.ones((2, 2)), "head": jnp.ones(2)}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> print(updates["body"].sum(), state.trace["body"], state.trace["head"])
    0.0 MaskedNode() [1. 1.]
    """
    return _with_stand_ins(
        inner,
        lambda _, tree: frozen_flags(freeze, tree),
        lambda leaf: optax.MaskedNode(),
        lambda u, p: jnp.zeros_like(u),
    )


def hide_frozen(freeze: Mask | None, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give `inner` zeros in place of frozen leaves that are not floating: integers, flags, random keys.

    Their updates are zeros of the parameter's dtype; for a random key, the gradient that came in.
    """
    if freeze is None:
        return optax.with_extra_args_support(inner)

    def flags_of(updates: Updates, tree: Params) -> list[bool]:
        # The gradient of an integer leaf may be floating, and the other way round.
        rows = zip(frozen_flags(freeze, tree), *map(jax.tree.leaves, (updates, tree)), strict=True)
        return [frozen and not (is_floating(u) and is_floating(p)) for frozen, u, p in rows]

    def back(u: Any, p: Any) -> Any:
        dtype = jax.dtypes.result_type(p)
        return u if jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jax.dtypes.float0 else jnp.zeros_like(p)

    return _with_stand_ins(inner, flags_of, lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), back)


def _freeze(scalars: Any, u: Any, multiplier: Any) -> tuple[chex.Array, ...]:
    del scalars
    if is_traced(multiplier) or jnp.ndim(multiplier):
        return (jnp.where(multiplier == 0, jnp.zeros_like(u), u),)
    return (jnp.zeros_like(u) if equals(multiplier, 0) else u,)


def freeze_where(
    freeze: Mask | None = None, lr_multipliers: Rules | None = None
) -> optax.GradientTransformationExtraArgs:
    """Set the updates of the frozen leaves to zero.

    Args:
      freeze: see `without_moments`.
      lr_multipliers: the rules given to `scale_by_multipliers`: a leaf is frozen while its multiplier is 0.

    Returns:
      A stateless transformation; a frozen leaf's update is exactly zero, also where a gradient was not finite.

    Raises:
      ValueError, TypeError: at `init` already, for rules that do not fit the parameters.

    Source: "multiplier 0 freezes" as in big_vision's `lr_mults`; without this stage, a decay would move the leaf.

    >>> tx = freeze_where("body", {"head": 0})
    >>> params = {"body": jnp.array([jnp.nan]), "head": jnp.ones(1), "tail": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> print(updates["body"], updates["head"], updates["tail"])
    [0.] [0.] [1.]
    """

    def factors(tree: chex.ArrayTree) -> list[Any]:
        flags, values = frozen_flags(freeze, tree), multipliers_of(lr_multipliers, tree)
        return [0.0 if flag else value for flag, value in zip(flags, values, strict=True)]

    def apply(updates: Updates, params: Params | None, extra_args: dict[str, Any]) -> Updates:
        tree = params_or_updates(updates, params)
        if freeze is None and lr_multipliers is None:
            return updates
        values = values_now("lr_multipliers", factors(tree), extra_args)
        return map_leaves(_freeze, (), (updates,), values)[0]

    return stateless(apply, factors)
