"""Rules that give one value to each leaf: a number, or a schedule count -> number."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax

from adamw_jax._rules.checks import (
    Check as Check,
    Resolved as Resolved,
    check_decay as check_decay,
    check_function,
    check_multiplier as check_multiplier,
    check_positive as check_positive,
    is_zero as is_zero,
)
from adamw_jax._rules.over_time import check_start as check_start, values_now as values_now
from adamw_jax._rules.trees import children_of, is_flat, is_pair, is_single, is_value as is_value, values_of_tree
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths, match_patterns
from adamw_jax._tree.typing import Rules


def _values_for(check: Check) -> Callable[[Any], bool]:
    """Return which nodes are values: pairs are, where pairs are checked."""
    return is_value if check is check_decay else is_single


def _read(rules: Any, paths: tuple[str, ...], is_leaf: Callable[[Any], bool]) -> tuple[str, list[Any] | None]:
    """Return how rules are read, "all", "function", "tree" or "patterns", and of a tree that fits the paths its values.

    Patterns and a pair are a tree only if they have all the parameters' paths.
    """
    if is_single(rules):
        return "function" if callable(rules) else "all", None
    # A bare array has the path "", which a pair that is one value has, too.
    is_bare_pair = paths == ("",) and is_pair(rules) and is_leaf(rules)
    # The pattern "" as a name would leave no trace in a path.
    if not is_bare_pair and not (is_flat(rules) and "" in rules):
        prefix = not is_pair(rules) and not (is_flat(rules) and all(map(is_leaf, rules.values())))
        tree = values_of_tree(rules, paths, is_leaf, prefix=prefix)
        if tree is not None:
            return "tree", tree
    return "all" if is_pair(rules) else "patterns" if is_flat(rules) else "tree", None


def kind_of(rules: Rules | None, params: chex.ArrayTree) -> str | None:
    """Return how `resolve_rules` reads rules: "all", "tree", "patterns", "function" or its label; None for None.

    >>> params = {"bias": 0.0, "kernel": 0.0}
    >>> [kind_of(rules, params) for rules in (2.0, {"bias": 2.0}, {"bias": 2.0, "kernel": 1.0})]
    ['all', 'patterns', 'tree']
    """
    if rules is None:
        return None
    kind, _ = _read(rules, leaf_paths(params), is_value)
    return str(getattr(rules, "label", kind)) if kind == "function" else kind


def patterns_of(rules: Rules | None, params: chex.ArrayTree) -> tuple[str, ...] | None:
    """Return the patterns of rules that `resolve_rules` reads as {pattern: value}, None for rules of another kind."""
    return tuple(rules) if isinstance(rules, Mapping) and kind_of(rules, params) == "patterns" else None


def _subtree_at(
    name: str, key: str, value: Any, paths: Sequence[str], is_leaf: Callable[[Any], bool]
) -> dict[str, Any] | None:
    """Return {path: value} if a key is a path with a subtree of values below it; None if it has one value.

    Raises:
      ValueError: a pair that could be a decay (l1, l2) or two values.
    """
    below = [path.removeprefix(f"{key}/") for path in paths if path.startswith(f"{key}/")]
    may_be_pair = is_pair(value) and is_leaf(value)
    if not below or is_single(value) or (may_be_pair and children_of(value, key, paths) is None):
        return None
    if may_be_pair:
        raise ValueError(
            f"`{name}[{key!r}]` must say whether a pair is (l1, l2) or two values, for the parameters have a pair at "
            f'{key!r}, got {value!r}: write {{"{key}/": (l1, l2)}}, or {{"{key}/0": ..., "{key}/1": ...}}'
        )
    tree = values_of_tree(value, below, is_leaf)
    return None if tree is None else {f"{key}/{path}": each for path, each in zip(below, tree, strict=True)}


def _by_pattern(name: str, rules: Any, paths: tuple[str, ...], check: Check, default: Any, is_leaf: Any) -> list[Any]:
    patterns, values = [], []
    for key, value in rules.items():
        subtree = _subtree_at(name, key, value, paths, is_leaf)
        patterns.append(key if subtree is None else f"^{re.escape(key)}/")
        given = {None: value} if subtree is None else subtree
        values.append({path: check(f"{name}[{path or key!r}]", each) for path, each in given.items()})
    matches = match_patterns(name, tuple(patterns), paths)
    rows = zip(paths, matches, strict=True)
    return [default if i is None else values[i].get(path, values[i].get(None)) for path, i in rows]


def _checked(check: Check, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """Return checked values, each object of them checked once."""
    known: dict[int, Any] = {}
    for name, value in zip(names, values, strict=True):
        if id(value) not in known:
            known[id(value)] = check(name, value)
    return [known[id(value)] for value in values]


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
      name: of the caller's argument, for the errors.
      rules: decided in this order, before anything is called:
        - a number: the value of every leaf;
        - a function (path, leaf) -> value, which requires two arguments;
        - a tree of values with the paths of `params`, in boxes or not, in any order of keys, in which a value may stand
          for a subtree;
        - for decays, a pair (l1, l2): the value of every leaf;
        - {pattern: value}: the first pattern found in the leaf's path decides; {path: tree} is for the subtree there;
        - `Resolved` values, returned as they are.
        In a tree, in a mapping, and from a function, a value may be a schedule count -> number.
      params: the parameters, or any tree of their structure. One without leaves, as the placeholder of
        `optax.tree.map_params`, fits any rules.
      check: returns a value in its normal form, or raises.
      default: for leaves that no pattern matches.
      is_leaf: which nodes in a tree of values are values. None: numbers, schedules, and for decays pairs.

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
    kind, tree = _read(rules, paths, is_leaf)
    if kind == "all":
        return [check(name, rules)] * len(paths)
    if kind == "patterns":
        return _by_pattern(name, rules, paths, check, default, is_leaf)
    if kind == "function":
        function: Any = rules
        check_function(name, function)
        leaves = jax.tree.leaves(params)
        if hasattr(function, "check_paths"):
            function.check_paths(name, paths, leaves)
        values = [function(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
        return _checked(check, [f"{name}({path!r})" for path in paths], values)
    if tree is None:
        _check_kind(name, rules)
        wanted = jax.tree.structure(params)
        got = jax.tree.structure(rules, is_leaf=None if is_pair(rules) else is_leaf)
        raise ValueError(
            f"`{name}` must be a tree with the structure of the parameters, {checks.shown(wanted)}, "
            f"got {checks.shown(got)}"
        )
    if is_pair(rules) and is_leaf(rules):
        raise ValueError(
            f"`{name}` must say whether a pair is (l1, l2) or a tree when the parameters are a pair of arrays: "
            f'{{"": (l1, l2)}} gives all leaves the pair, a function (path, leaf) -> value each its own, got {rules!r}'
        )
    return _checked(check, [f"{name} at {path!r}" for path in paths], tree)


def _check_kind(name: str, rules: Any) -> None:
    if isinstance(rules, (str, bool)) or not jax.tree.leaves(rules):
        raise TypeError(f"`{name}` must be a number, a mapping, a function or a tree of values, got {rules!r}")
    if not isinstance(rules, Mapping) and all(isinstance(leaf, str) for leaf in jax.tree.leaves(rules)):
        raise TypeError(f"`{name}` must be {{pattern: value}} where it has patterns, got {rules!r}")


def check_rules(name: str, rules: Rules | None, check: Check) -> None:
    """Check rules as far as they are known before there are parameters."""
    is_leaf = _values_for(check)
    if isinstance(rules, (str, bool)):
        _check_kind(name, rules)
    elif is_single(rules) and callable(rules):
        check_function(name, rules)
    elif is_leaf(rules) and not hasattr(rules, "_fields"):
        check(name, rules)
    elif isinstance(rules, Mapping) and is_flat(rules):
        for key, value in rules.items():
            if isinstance(value, (str, bool)) or (is_leaf(value) and not hasattr(value, "_fields")):
                check(f"{name}[{key!r}]", value)
