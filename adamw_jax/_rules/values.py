"""Rules that give one value to each leaf: a number, or a schedule count -> number."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import numpy as np

from adamw_jax._tree.checks import check_non_negative, check_number, is_number, is_schedule
from adamw_jax._tree.loop import extra_arg, structure_of
from adamw_jax._tree.paths import leaf_paths, match_patterns
from adamw_jax._tree.typing import Rules, Value

Check = Callable[[str, Any], Value]


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Rules that are resolved already, for stages that are made for one tree: `resolve_rules` returns their values.

    Attributes:
      values: one checked value per leaf, in the order of `jax.tree.leaves`.
    """

    values: list[Any]


def check_multiplier(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number >= 0, or a schedule."""
    return value if is_schedule(value) else check_non_negative(name, value)


def check_positive(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number > 0."""
    return check_number(name, value, low=0, open_low=True)


def check_decay(name: str, value: Any) -> Value:
    """Return the pair (l1, l2) that `value` tells: a number, or a schedule, is an l2."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"`{name}` must be a number l2 or a pair (l1, l2), got {value!r}")
        return check_multiplier(f"{name} l1", value[0]), check_multiplier(f"{name} l2", value[1])
    return 0.0, check_multiplier(name, value)


def _takes(function: Any, number: int) -> bool:
    try:
        inspect.signature(function).bind(*range(number))
    except TypeError:
        return False
    except ValueError:  # a function without a signature
        return number == 2
    return True


def is_value(value: Any) -> bool:
    """Return True if rules are one value for all leaves: a number, a pair of numbers or schedules, or a schedule.

    A function of one argument is a schedule count -> number, one that takes two is a rule (path, leaf) -> value.
    """
    if isinstance(value, tuple) and len(value) == 2:
        return all(is_number(each) or is_schedule(each) for each in value)
    return is_number(value) or (is_schedule(value) and not _takes(value, 2) and _takes(value, 1))


def _is_bare(rules: Any, is_leaf: Callable[[Any], bool] = is_value) -> bool:
    return bool(jax.tree_util.all_leaves([rules], is_leaf=is_leaf))


def _as_tree(rules: Any, paths: Sequence[str], is_leaf: Callable[[Any], bool] = is_value) -> list[Any] | None:
    """Return the values of a tree of rules in the order of the parameters' paths; None if it is no such tree.

    Trees are compared by their paths, so that the boxes of a framework, its kinds of mappings and their order of keys
    make no difference.
    """
    if _is_bare(rules, is_leaf):
        return None
    own = leaf_paths(rules, is_leaf)
    values = jax.tree.leaves(rules, is_leaf=is_leaf)
    if own == tuple(paths):
        return values
    if len(set(own)) < len(own) or sorted(own) != sorted(paths):
        return None
    by_path = dict(zip(own, values, strict=True))
    return [by_path[path] for path in paths]


def patterns_of(rules: Rules | None, params: chex.ArrayTree) -> tuple[str, ...] | None:
    """Return the patterns of rules that `resolve_rules` reads as {pattern: value}, None for rules of another kind."""
    if not isinstance(rules, Mapping) or _as_tree(rules, leaf_paths(params)) is not None:
        return None
    return tuple(rules)


def resolve_rules(
    name: str,
    rules: Rules,
    params: chex.ArrayTree,
    check: Callable[[str, Any], Any],
    default: Any,
    is_leaf: Callable[[Any], bool] = is_value,
) -> list[Any]:
    """Return one checked value per leaf of `params`, in the order of `jax.tree.leaves`.

    Args:
      name: how the caller's argument is called, for the errors.
      rules: one of, and decided in this order before anything is called:
        - a number (for decays also a pair (l1, l2)): the same for every leaf;
        - a tree of values with the paths of `params` (boxed or not, in any order of keys);
        - a mapping {pattern: value}: the first pattern found in the leaf's path decides;
        - a function (path, leaf) -> value;
        - `Resolved` values.
        In a tree, in a mapping, and in what a function returns, a value may be a schedule count -> number.
      params: the parameters, or any tree of their structure.
      check: returns a value in its normal form, or raises.
      default: for leaves that no pattern matches.
      is_leaf: whether a node in a tree of values is a value.

    Raises:
      ValueError: a pattern that does not compile or matches nothing, another structure, a value out of range.
      TypeError: rules or values of another kind.

    >>> resolve_rules("lr_multipliers", {"bias": 2.0}, {"bias": 0.0, "kernel": 0.0}, check_multiplier, 1.0)
    [2.0, 1.0]
    """
    if isinstance(rules, Resolved):
        return rules.values
    paths = leaf_paths(params)
    if is_value(rules):
        if isinstance(rules, tuple) and structure_of(params) == structure_of((0, 0)):
            raise ValueError(
                f"`{name}` must say whether a pair is (l1, l2) or a tree when the parameters are a pair of arrays: "
                f"use a function (path, leaf) -> value, got {rules!r}"
            )
        return [check(name, rules)] * len(paths)
    tree = _as_tree(rules, paths, is_leaf)
    if tree is not None:
        return [check(f"{name} at {path!r}", value) for path, value in zip(paths, tree, strict=True)]
    if isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules):
        values = [check(f"{name}[{key!r}]", value) for key, value in rules.items()]
        matches = match_patterns(name, tuple(rules), paths)
        return [default if index is None else values[index] for index in matches]
    if callable(rules) and (_is_bare(rules) or not jax.tree.leaves(rules)):
        function: Any = rules
        if hasattr(function, "check_paths"):
            function.check_paths(name, paths)
        leaves = zip(paths, jax.tree.leaves(params), strict=True)
        return [check(f"{name}({path!r})", function(path, leaf)) for path, leaf in leaves]
    if not jax.tree.leaves(rules) or isinstance(rules, str):
        raise TypeError(f"`{name}` must be a number, a mapping, a function or a tree of values, got {rules!r}")
    raise ValueError(
        f"`{name}` must be a tree with the structure of the parameters, {jax.tree.structure(params)}, "
        f"got {jax.tree.structure(rules, is_leaf=is_value)}"
    )


def check_rules(name: str, rules: Rules | None, check: Check) -> None:
    """Check the values of rules as far as they are known before there are parameters."""
    if rules is None or isinstance(rules, Resolved) or (_is_bare(rules) and not is_value(rules)):
        return
    if is_value(rules):
        check(name, rules)
    elif isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules):
        for key, value in rules.items():
            if is_value(value):
                check(f"{name}[{key!r}]", value)


def values_now(name: str, values: Sequence[Value], extra_args: dict[str, Any]) -> list[Value]:
    """Return the values of an update: schedules say theirs at the count that `with_learning_rate` passes.

    Args:
      name: how the caller's argument is called, for the errors.
      values: from `resolve_rules`.
      extra_args: of the stage that asks.

    Raises:
      ValueError: a schedule outside `with_learning_rate`, or one that says a number out of range.
      TypeError: one that says something else than a number.
    """
    said: dict[int, Any] = {}

    def now(value: Any) -> Any:
        if not is_schedule(value):
            return value
        if extra_args.get("count") is None:
            raise ValueError(
                f"`{name}` must not have a schedule as a value outside of with_learning_rate, which counts the "
                f"updates: put the stage inside it, got {value!r}"
            )
        if id(value) not in said:
            said[id(value)] = check_non_negative(f"{name}(count)", value(extra_arg("count", extra_args)))
        return said[id(value)]

    return [tuple(map(now, value)) if isinstance(value, tuple) else now(value) for value in values]


def check_start(name: str, values: Sequence[Value]) -> None:
    """Check what the schedules among some values say of the first update."""
    values_now(name, values, {"count": np.zeros([], np.int32)})
