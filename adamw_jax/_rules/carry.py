"""The values of rules on a larger model, multiplied by a factor per leaf."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax

from adamw_jax._rules.growth import Grown
from adamw_jax._rules.values import Check, is_value, kind_of, resolve_rules
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Value


def scaled(value: Any, factor: Any) -> Any:
    """Return a number, a schedule or a pair of them times a factor; what is 0, or times 1, stays as it is.

    >>> scaled((0.0, 0.5), 2.0), scaled(lambda count: 3.0, 2.0)(0)
    ((0.0, 1.0), 6.0)
    """
    if checks.equals(factor, 1):
        return value
    if isinstance(value, tuple):
        return tuple(scaled(each, factor) for each in value)
    if callable(value):
        schedule: Callable[[Any], Any] = value
        return lambda count: factor * schedule(count)
    return value if checks.equals(value, 0) else factor * value


def _plain(value: Any) -> Any:
    """Return a pair (0, l2) as the l2 that it is."""
    return value[1] if isinstance(value, tuple) and checks.equals(value[0], 0) else value


def _is_tree(rules: Any, params: chex.ArrayTree) -> bool:
    """Return True if rules are a tree of values for a model, and no patterns, function or single value."""
    return kind_of(rules, params) == "tree"


def _same(values: Sequence[Any]) -> bool:
    return all(each is values[0] or (not callable(each) and each == values[0]) for each in values)


def values_on(
    name: str,
    rules: Any,
    grown: Sequence[Grown],
    base_params: chex.ArrayTree,
    params: chex.ArrayTree,
    check: Check,
    default: Any,
) -> list[Value]:
    """Return the values that the rules of a smaller model give to the leaves of a larger one.

    Patterns and functions are held against the larger model; a tree is one of the smaller model, whose values go to the
    leaves that correspond.

    Raises:
      ValueError: a block that only the larger model has, and whose counterparts have different values.
    """
    if not _is_tree(rules, base_params):
        return resolve_rules(name, rules, params, check, default)
    values = resolve_rules(name, rules, base_params, check, default)
    for each in grown:
        if not _same([values[i] for i in each.like]):
            raise ValueError(
                f"`{name}` must tell the value of blocks that only the larger model has, got a tree with different "
                f"values at the leaves like {each.leaf.path!r}: give patterns or a function (path, leaf) -> value"
            )
    return [values[each.like[0]] for each in grown]


def rules_with(
    given: Any, values: Sequence[Any], factors: Sequence[Any], alike: bool, base_params: chex.ArrayTree, params: Any
) -> Any:
    """Return rules for the larger model in their shortest form.

    Args:
      given: the rules of the smaller model.
      values: what they give to the leaves of the larger one.
      factors: of its leaves.
      alike: whether all factors are the same.
      base_params, params: the two models.

    Returns:
      A single value or patterns like those given, where all factors are alike; else a tree.
    """
    if alike and not _is_tree(given, base_params):
        factor = factors[0] if factors else 1.0
        if checks.equals(factor, 1):
            return given
        if is_value(given) and not callable(given):
            return scaled(given, factor)
        if isinstance(given, Mapping):
            return {pattern: scaled(value, factor) for pattern, value in given.items()}
    leaves = [_plain(scaled(value, factor)) for value, factor in zip(values, factors, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)
