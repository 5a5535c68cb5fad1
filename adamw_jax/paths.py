"""Parameter paths, and rules that give one value to each leaf by its path.

A path reads alike in every framework: dict keys, attribute names and sequence indices joined by "/", as in
"encoder/dense_1/kernel" or "layers/0/weight". The box that a framework may put around an array (an attribute `value`
that is the only child of its parent, as in Flax NNX) leaves no trace in it.
"""

import collections
import difflib
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax

from adamw_jax.checks import check_flag, check_non_negative, is_number
from adamw_jax.typing import Labels, Mask, Rules, Value

_BOX = jax.tree_util.GetAttrKey("value")


@functools.lru_cache(maxsize=128)
def _paths_of(structure: Any) -> tuple[str, ...]:
    keys = [path for path, _ in jax.tree_util.tree_leaves_with_path(structure.unflatten(range(structure.num_leaves)))]
    leaves_below = collections.Counter(path[:depth] for path in keys for depth in range(len(path)))
    unboxed = [path[:-1] if path[-1:] == (_BOX,) and leaves_below[path[:-1]] == 1 else path for path in keys]
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path in unboxed)


def leaf_paths(tree: chex.ArrayTree) -> tuple[str, ...]:
    """Return the path of every leaf, in the order of `jax.tree.leaves`.

    >>> leaf_paths({"dense": {"kernel": 0.0, "bias": 0.0}, "blocks": [1.0, None]})
    ('blocks/0', 'dense/bias', 'dense/kernel')
    """
    return _paths_of(jax.tree.structure(tree))


@functools.lru_cache(maxsize=128)
def match_patterns(name: str, patterns: tuple[str, ...], paths: tuple[str, ...]) -> tuple[int | None, ...]:
    """Return for every path the index of the first pattern found in it, None where none is.

    Args:
      name: how the caller's argument is called, for the errors.
      patterns: regular expressions, searched anywhere in the path: a plain layer name matches as a substring.
      paths: from `leaf_paths`.

    Raises:
      ValueError: a pattern does not compile, or is found in no path.

    >>> match_patterns("lr_multipliers", ("lstm", "kernel$"), ("dense/bias", "dense/kernel", "lstm/kernel"))
    (None, 1, 0)
    """
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(f"`{name}` must have regular expressions as keys, got {pattern!r}: {error}") from error
    for pattern, expression in zip(patterns, compiled, strict=True):
        if paths and not any(map(expression.search, paths)):
            nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise ValueError(
                f"every pattern of `{name}` must match a parameter path, got {pattern!r}, which matches none of the "
                f"{len(paths)}; the nearest are {', '.join(map(repr, nearest))}"
            )
    return tuple(next((i for i, each in enumerate(compiled) if each.search(path)), None) for path in paths)


def check_multiplier(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number >= 0."""
    return check_non_negative(name, value)


def check_decay(name: str, value: Any) -> Value:
    """Return the pair (l1, l2) that `value` tells: a number is an l2."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"`{name}` must be a number l2 or a pair (l1, l2), got {value!r}")
        return check_non_negative(f"{name} l1", value[0]), check_non_negative(f"{name} l2", value[1])
    return 0.0, check_non_negative(name, value)


def is_value(value: Any) -> bool:
    """Tell whether rules are one value for all leaves: a number, or a pair of numbers."""
    return is_number(value) or (isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value)))


def resolve_rules(
    name: str, rules: Rules, params: chex.ArrayTree, check: Callable[[str, Any], Value], default: Value
) -> list[Value]:
    """Return one checked value per leaf of `params`, in the order of `jax.tree.leaves`.

    Args:
      name: how the caller's argument is called, for the errors.
      rules: one of
        - a number (for decays also a pair (l1, l2)): the same for every leaf;
        - a mapping {pattern: value}: the first pattern found in the leaf's path decides;
        - a function (path, leaf) -> value;
        - a tree of values with the structure of `params` (which wins where it can be read as a mapping, too).
      params: the parameters, or any tree of their structure.
      check: returns a value in its normal form, or raises.
      default: for leaves that no pattern matches.

    Raises:
      ValueError: a pattern that does not compile or matches nothing, another structure, a value out of range.
      TypeError: rules or values of another kind.

    >>> resolve_rules("lr_multipliers", {"bias": 2.0}, {"bias": 0.0, "kernel": 0.0}, check_multiplier, 1.0)
    [2.0, 1.0]
    """
    structure: Any = jax.tree.structure(params)
    paths = _paths_of(structure)
    if is_value(rules):
        if isinstance(rules, tuple) and structure == jax.tree.structure(rules):
            raise ValueError(
                f"`{name}` must say whether a pair is (l1, l2) or a tree when the parameters are a pair of arrays: "
                f"use a function (path, leaf) -> value, got {rules!r}"
            )
        return [check(name, rules)] * len(paths)
    if callable(rules):
        return [check(f"{name}({path!r})", rules(path, leaf)) for path, leaf in _leaves_by_path(params)]
    if jax.tree.structure(rules, is_leaf=is_value) == structure:
        values = jax.tree.leaves(rules, is_leaf=is_value)
        return [check(f"{name} at {path!r}", value) for path, value in zip(paths, values, strict=True)]
    if isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules):
        values = [check(f"{name}[{key!r}]", value) for key, value in rules.items()]
        matches = match_patterns(name, tuple(rules), paths)
        return [default if index is None else values[index] for index in matches]
    if not jax.tree.leaves(rules) or isinstance(rules, str):
        raise TypeError(f"`{name}` must be a number, a mapping, a function or a tree of values, got {rules!r}")
    raise ValueError(
        f"`{name}` must be a tree with the structure of the parameters, {structure}, "
        f"got {jax.tree.structure(rules, is_leaf=is_value)}"
    )


def resolve_mask(name: str, mask: Mask, params: chex.ArrayTree) -> list[bool]:
    """Return one flag per leaf of `params`, in the order of `jax.tree.leaves`.

    Args:
      name: how the caller's argument is called, for the errors.
      mask: a pattern, or a sequence of patterns, for the leaves in whose path one of them is found; or rules as in
        `resolve_rules` whose values are True or False, False where no pattern matches.
      params: the parameters, or any tree of their structure.

    Raises:
      ValueError, TypeError: as `resolve_rules`; a value other than True and False.

    >>> resolve_mask("freeze", "embed", {"embed": 0.0, "head": 0.0})
    [True, False]
    """
    patterns = (mask,) if isinstance(mask, str) else mask
    if isinstance(patterns, (list, tuple)) and patterns and all(isinstance(each, str) for each in patterns):
        return [index is not None for index in match_patterns(name, tuple(patterns), leaf_paths(params))]
    return [bool(flag) for flag in resolve_rules(name, mask, params, check_flag, False)]


def _leaves_by_path(params: chex.ArrayTree) -> list[tuple[str, Any]]:
    return list(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))


def values_by_label(labels: Labels, values: Mapping[str, Value]) -> chex.ArrayTree:
    """Return the tree of values for a tree of labels, to be used as rules.

    Args:
      labels: a string at each leaf, in the parameters' structure.
      values: the value of each label.

    Raises:
      ValueError: a label without a value, or a value whose label is nowhere in the tree.

    >>> values_by_label({"body": "slow", "head": "fast"}, {"slow": 0.1, "fast": 1.0})
    {'body': 0.1, 'head': 1.0}
    """
    used = set(jax.tree.leaves(labels))
    if used != set(values):
        raise ValueError(f"`values` must have the labels of the tree, {sorted(used)}, got {sorted(values)}")
    return jax.tree.map(lambda label: values[label], labels)
