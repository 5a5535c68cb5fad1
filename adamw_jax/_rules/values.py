"""Rules that give one value to each leaf: a number, or a schedule count -> number."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rules.trees import children_of, is_single, is_value as is_value, values_of_tree
from adamw_jax._tree.checks import check_non_negative, check_number, equals
from adamw_jax._tree.loop import extra_arg
from adamw_jax._tree.paths import leaf_paths, match_patterns
from adamw_jax._tree.typing import Rules, Value

Check = Callable[[str, Any], Any]
"""(name, value) -> the value in its normal form; raises for a value of another kind or out of range."""


def _floating(number: Any) -> Any:
    """Return integers and narrow floats as floats of the default width; Python numbers as they are."""
    if isinstance(number, (jax.Array, np.ndarray, np.number)):
        wide: Any = jnp.promote_types(number.dtype, jnp.result_type(float))
        return number.astype(wide)
    return number


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Rules that are resolved already, for stages that are made for one tree: `resolve_rules` returns their values.

    Attributes:
      values: one checked value per leaf, in the order of `jax.tree.leaves`.
    """

    values: list[Any]


def check_multiplier(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number >= 0, as a float where it is an array; or a schedule."""
    if callable(value):
        return value
    if isinstance(value, (tuple, list)):
        raise TypeError(
            f"`{name}` must be a number or a JAX scalar, got {value!r} of type {type(value).__name__}: a pair (l1, l2) "
            "is a decay's; give one number per leaf, or a tree of numbers in the parameters' structure"
        )
    return _floating(check_non_negative(name, value))


def check_positive(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number > 0."""
    return check_number(name, value, low=0, open_low=True)


def check_decay(name: str, value: Any) -> Value:
    """Return the pair (l1, l2) for a pair, or for a number or schedule, which is l2."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2 or hasattr(value, "_fields"):
            raise ValueError(f"`{name}` must be a number l2 or a pair (l1, l2), got {value!r}")
        return check_multiplier(f"{name} l1", value[0]), check_multiplier(f"{name} l2", value[1])
    return 0.0, check_multiplier(name, value)


def _values_for(check: Check) -> Callable[[Any], bool]:
    """Return which nodes are values: pairs are, where pairs are checked."""
    return is_value if check is check_decay else is_single


def check_function(name: str, function: Any, schedules: bool = True) -> None:
    """Raise a TypeError for a function that does not require the two arguments of a rule, path and leaf."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function without a signature
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(each.kind in positional and each.default is each.empty for each in parameters)
    takes_all = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    if required == 2 or (takes_all and required < 2) or hasattr(function, "check_paths"):
        return
    schedule = 'a schedule count -> value is written {"": schedule}; ' if schedules else ""
    raise TypeError(
        f"`{name}` must be a rule (path, leaf) -> value where it is a function, got {function!r}, which requires "
        f"{required} argument{'' if required == 1 else 's'}: {schedule}a rule requires path and leaf; in the place of "
        "a mask params -> tree give the tree, mask(params)"
    )


def patterns_of(rules: Rules | None, params: chex.ArrayTree) -> tuple[str, ...] | None:
    """Return the patterns of rules that `resolve_rules` reads as {pattern: value}, None for rules of another kind."""
    paths = leaf_paths(params)
    is_flat = isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules)
    if not is_flat or values_of_tree(rules, paths, is_value, prefix=not all(map(is_value, rules.values()))) is not None:
        return None
    return tuple(rules)


def _subtree_at(
    name: str, key: str, value: Any, paths: Sequence[str], is_leaf: Callable[[Any], bool]
) -> dict[str, Any] | None:
    """Return the values by path of a subtree of values at the path that is a key; None for a value.

    Raises:
      ValueError: a pair that could be a decay (l1, l2) or two values.
    """
    below = [path.removeprefix(f"{key}/") for path in paths if path.startswith(f"{key}/")]
    is_pair = is_leaf(value) and isinstance(value, tuple) and not hasattr(value, "_fields")
    if not below or is_single(value) or (is_pair and children_of(value, key, paths) is None):
        return None
    if is_pair:
        raise ValueError(
            f"`{name}[{key!r}]` must say whether a pair is (l1, l2) or two values, for the parameters have a pair at "
            f'{key!r}, got {value!r}: write {{"{key}/": (l1, l2)}}, or {{"{key}/0": ..., "{key}/1": ...}}'
        )
    tree = values_of_tree(value, below, is_leaf)
    return None if tree is None else {f"{key}/{path}": each for path, each in zip(below, tree, strict=True)}


def _by_pattern(
    name: str, rules: Mapping[str, Any], paths: tuple[str, ...], check: Check, default: Any, is_leaf: Any
) -> list[Any]:
    patterns, values = [], []
    for key, value in rules.items():
        subtree = _subtree_at(name, key, value, paths, is_leaf)
        patterns.append(key if subtree is None else f"^{re.escape(key)}/")
        given = {None: value} if subtree is None else subtree
        values.append({path: check(f"{name}[{path or key!r}]", each) for path, each in given.items()})
    matches = match_patterns(name, tuple(patterns), paths)
    rows = zip(paths, matches, strict=True)
    return [default if i is None else values[i].get(path, values[i].get(None)) for path, i in rows]


def resolve_rules(
    name: str,
    rules: Rules,
    params: chex.ArrayTree,
    check: Check,
    default: Any,
    is_leaf: Callable[[Any], bool] | None = None,
) -> list[Any]:
    """Return one checked value per leaf of `params`, in the order of `jax.tree.leaves`.

    Args:
      name: how the caller's argument is called, for the errors.
      rules: one of, and decided in this order before anything is called:
        - a number: the same for every leaf;
        - a tree of values with the paths of `params` (boxed or not, in any order of keys), in which a value may also
          stand for a subtree;
        - for decays, a pair (l1, l2): the same for every leaf;
        - a mapping {pattern: value}: the first pattern found in the leaf's path decides; {path: tree} gives values to
          the subtree at this path;
        - a function (path, leaf) -> value, which requires two arguments;
        - `Resolved` values.
        In a tree, in a mapping, and in what a function returns, a value may be a schedule count -> number.
      params: the parameters, or any tree of their structure. Without leaves, as the placeholder of
        `optax.tree.map_params`, it has any rules.
      check: returns a value in its normal form, or raises.
      default: for leaves that no pattern matches.
      is_leaf: whether a node in a tree of values is a value. None: numbers, schedules, and for decays pairs.

    Raises:
      ValueError: a pattern that does not compile or matches nothing, another structure, a value out of range.
      TypeError: rules or values of another kind.

    >>> resolve_rules("lr_multipliers", {"bias": 2.0}, {"bias": 0.0, "kernel": 0.0}, check_multiplier, 1.0)
    [2.0, 1.0]
    """
    if isinstance(rules, Resolved):
        return rules.values
    paths = leaf_paths(params)
    is_leaf = is_leaf or _values_for(check)
    if not paths:
        return []
    is_pair = isinstance(rules, tuple) and is_value(rules) and not hasattr(rules, "_fields")
    is_flat = isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules)
    if is_single(rules) and not callable(rules):
        return [check(name, rules)] * len(paths)
    prefix = not is_pair and not (is_flat and all(map(is_leaf, rules.values())))
    tree = None if is_single(rules) else values_of_tree(rules, paths, is_leaf, prefix=prefix)
    if tree is not None and is_pair and is_leaf(rules):
        raise ValueError(
            f"`{name}` must say whether a pair is (l1, l2) or a tree when the parameters are a pair of arrays: "
            f"use a function (path, leaf) -> value, got {rules!r}"
        )
    if tree is not None:
        return [check(f"{name} at {path!r}", value) for path, value in zip(paths, tree, strict=True)]
    if is_pair:
        return [check(name, rules)] * len(paths)
    if isinstance(rules, Mapping) and is_flat:
        return _by_pattern(name, rules, paths, check, default, is_leaf)
    if is_single(rules):
        function: Any = rules
        check_function(name, function)
        if hasattr(function, "check_paths"):
            function.check_paths(name, paths)
        leaves = zip(paths, jax.tree.leaves(params), strict=True)
        return [check(f"{name}({path!r})", function(path, leaf)) for path, leaf in leaves]
    _check_kind(name, rules)
    raise ValueError(
        f"`{name}` must be a tree with the structure of the parameters, {jax.tree.structure(params)}, "
        f"got {jax.tree.structure(rules, is_leaf=None if isinstance(rules, tuple) else is_leaf)}"
    )


def _check_kind(name: str, rules: Any) -> None:
    if isinstance(rules, str) or not jax.tree.leaves(rules):
        raise TypeError(f"`{name}` must be a number, a mapping, a function or a tree of values, got {rules!r}")


def check_rules(name: str, rules: Rules | None, check: Check) -> None:
    """Check rules as far as they are known before there are parameters."""
    is_leaf = _values_for(check)
    if isinstance(rules, str):
        _check_kind(name, rules)
    elif is_single(rules) and callable(rules):
        check_function(name, rules)
    elif is_leaf(rules) and not hasattr(rules, "_fields"):
        check(name, rules)
    elif isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules):
        for key, value in rules.items():
            if is_leaf(value) and not hasattr(value, "_fields"):
                check(f"{name}[{key!r}]", value)


def is_zero(rules: Any) -> bool:
    """Return True if rules are known to give 0 to every leaf: a number, pairs, patterns or a tree of zeros."""
    values = jax.tree.leaves(getattr(rules, "value", rules))
    return all(is_single(value) and equals(value, 0) for value in values)


def values_now(name: str, values: Sequence[Value], extra_args: dict[str, Any]) -> list[Any]:
    """Return the values of an update: each schedule's at the count that `with_learning_rate` passes.

    Args:
      name: how the caller's argument is called, for the errors.
      values: from `resolve_rules`.
      extra_args: of the stage that asks.

    Raises:
      ValueError: a schedule outside `with_learning_rate`, or one that returns a number out of range.
      TypeError: one that returns something else than a number.
    """
    known: dict[int, Any] = {}

    def now(value: Any) -> Any:
        if not callable(value):
            return value
        if extra_args.get("count") is None:
            raise ValueError(
                f"`{name}` must not have a schedule as a value outside of with_learning_rate, which counts the "
                f"updates: put the stage inside it, got {value!r}"
            )
        if id(value) not in known:
            number = check_non_negative(f"{name}(count)", value(extra_arg("count", extra_args)))
            known[id(value)] = _floating(number)
        return known[id(value)]

    return [tuple(map(now, value)) if isinstance(value, tuple) else now(value) for value in values]


def check_start(name: str, values: Sequence[Value]) -> None:
    """Check what the schedules among some values return for the first update."""
    values_now(name, values, {"count": np.zeros([], np.int32)})
