"""A stage of an optimizer: its arguments, the structure of its trees, the facts noted at it."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._tree.checks import path_text
from adamw_jax._tree.typing import Params, Updates
from adamw_jax._tree.width import is_floating

Facts = TypeVar("Facts")

OWNERS = {
    "alpha": "with_learning_rate",
    "count": "with_learning_rate",
    "eta": "with_schedule",
    "period": "with_schedule of cosine_warm_restarts",
}
"""Extra argument of `update` -> the owner that passes it to the stages inside."""


class Noted:
    """A function with facts about it.

    `jax.tree.map` and Equinox's `filter_jit` rebuild a transformation, which is a tuple, from its functions: attributes
    of the tuple are lost, those of the functions stay.
    """

    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], facts: Any) -> None:
        functools.update_wrapper(self, function)
        self.facts = facts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)


def facts_of(transformation: Any, kind: type[Facts]) -> Facts | None:
    """Return the facts of a type that are noted at the `update` of a transformation; None where there are none."""
    facts = getattr(getattr(transformation, "update", None), "facts", None)
    return facts if isinstance(facts, kind) else None


def stateless(
    apply: Callable[[Updates, Params | None, dict[str, Any]], Updates], check: Callable[[Params], Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation u <- apply(u, params, extra arguments), whose `init` calls `check(params)`."""

    def init(params: Params) -> optax.EmptyState:
        if check is not None:
            check(params)
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.EmptyState]:
        return apply(updates, params, extra_args), state

    return optax.GradientTransformationExtraArgs(init, update)


def extra_arg(name: str, extra_args: dict[str, Any]) -> Any:
    """Return an extra argument, a scalar.

    Raises:
      ValueError: the stage is not inside the owner that passes it.
    """
    if extra_args.get(name) is None:
        raise ValueError(f"the extra argument `{name}` must be given: put the stage inside {OWNERS[name]}, got None")
    return extra_args[name]


def structure_of(tree: chex.ArrayTree, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Return the structure of a tree, `jax.tree.structure`, whose type has no methods in the stubs."""
    return jax.tree.structure(tree, is_leaf=is_leaf)


def with_gradients(updates: Updates, params: Params | None) -> Params | None:
    """Return the parameters that have a gradient: None where the updates are None, as for a model's functions.

    >>> with_gradients({"weight": 1.0, "activation": None}, {"weight": 2.0, "activation": abs})
    {'activation': None, 'weight': 2.0}
    """
    if params is None or structure_of(params) == structure_of(updates):
        return params
    if all(u is not None for u in jax.tree.leaves(updates, is_leaf=lambda u: u is None)):
        return params
    try:
        return jax.tree.map(lambda u, p: None if u is None else p, updates, params, is_leaf=lambda u: u is None)
    except ValueError:
        return params


def params_or_updates(updates: Updates, params: Params | None) -> chex.ArrayTree:
    """Return the parameters, or the updates where `update` was given no parameters: rules are resolved on this tree.

    Raises:
      ValueError: the two differ in structure, or in the shape of a floating parameter. TypeError: the update of a
        floating parameter is not floating.
    """
    params = with_gradients(updates, params)
    if params is None:
        return updates
    if structure_of(params) != structure_of(updates):
        given, wanted = ([path_text(path) for path, _ in jax.tree.leaves_with_path(tree)] for tree in (params, updates))
        pairs = itertools.zip_longest(given, wanted)
        where = next((f", first {a!r} against {b!r}" for a, b in pairs if a != b), "")
        kinds = "" if where else f": {jax.tree.structure(params)} against {jax.tree.structure(updates)}"
        raise ValueError(
            "`params` must have the structure of the updates, the same leaves in the same order, got "
            f"{len(given)} leaves against {len(wanted)}{where}{kinds}"
        )
    for i, (p, u) in enumerate(zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True)):
        is_alike = jnp.shape(p) == jnp.shape(u)
        if (is_alike and is_floating(u)) or not is_floating(p):
            continue
        where = path_text(jax.tree.leaves_with_path(params)[i][0])
        if not is_alike:
            raise ValueError(
                f"`updates` must have the shapes of `params`, {jnp.shape(p)} at {where!r}, got {jnp.shape(u)}"
            )
        raise TypeError(
            f"`updates` must have real floating leaves where `params` has, got "
            f"{jax.dtypes.result_type(u).name} at {where!r}"
        )
    return params
