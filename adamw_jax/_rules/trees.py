"""Trees of values: rules in the structure of the parameters, or in that of their subtrees."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from adamw_jax._tree.checks import is_number
from adamw_jax._tree.paths import leaf_paths


def is_single(value: Any) -> bool:
    """Return True for a number, an array of them, or a schedule: a callable that is no tree, or a `Partial`."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return value.dtype != bool
    if is_number(value) or not callable(value):
        return is_number(value)
    return isinstance(value, jax.tree_util.Partial) or bool(jax.tree_util.all_leaves([value]))


def is_value(value: Any) -> bool:
    """Return True for a number, a schedule, or a tuple of two of them."""
    if isinstance(value, tuple) and len(value) == 2:
        return all(map(is_single, value))
    return is_single(value)


def is_pair(rules: Any) -> bool:
    """Return True for a tuple of two values that is no named tuple, as (l1, l2)."""
    return isinstance(rules, tuple) and is_value(rules) and not hasattr(rules, "_fields")


def is_flat(rules: Any) -> bool:
    """Return True for a mapping whose keys are strings: patterns or paths."""
    return isinstance(rules, Mapping) and all(isinstance(key, str) for key in rules)


def _below(paths: Sequence[str], path: str) -> set[str]:
    """Return the next part of every path below a node."""
    start = f"{path}/" if path else ""
    return {each[len(start) :].split("/")[0] for each in paths if each.startswith(start) and each != path}


def children_of(value: Any, path: str, paths: Sequence[str]) -> dict[str, Any] | None:
    """Return the two entries of a pair by path if the parameters have a pair there; None if they have not.

    A named tuple is never a pair (l1, l2), so its entries are returned whatever the parameters are.
    """
    if not isinstance(value, tuple):
        return None
    names = getattr(value, "_fields", tuple(map(str, range(len(value)))))
    if not hasattr(value, "_fields") and _below(paths, path) != set(names):
        return None
    return {f"{path}/{name}" if path else name: each for name, each in zip(names, value, strict=True)}


def values_of_tree(
    rules: Any, paths: Sequence[str], is_leaf: Callable[[Any], bool], *, prefix: bool = True
) -> list[Any] | None:
    """Return the values of a tree of rules in the order of the parameters' paths; None if it is no such tree.

    Trees are compared by their paths: boxes, kinds of mappings and the order of keys make no difference. A tuple of two
    is a subtree where the parameters have two entries, else a pair (l1, l2). With `prefix`, a value may stand for a
    whole subtree of the parameters; `is_leaf` says which nodes are values.

    >>> values_of_tree([(0.1, 0.0), 0.2], ["0/0", "0/1", "1/kernel"], is_value)
    [0.1, 0.0, 0.2]
    """
    own = leaf_paths(rules, is_leaf)
    values = jax.tree.leaves(rules, is_leaf=is_leaf)
    if own == tuple(paths):
        return values
    if len(set(own)) < len(own):
        return None
    found: dict[str, Any] = {}
    for path, value in zip(own, values, strict=True):
        found |= children_of(value, path, paths) or {path: value}
    if not prefix:
        return [found[path] for path in paths] if found.keys() == set(paths) else None

    def above(path: str) -> str | None:
        parts = path.split("/")
        starts = ("/".join(parts[:n]) for n in range(len(parts), -1, -1))
        return next((start for start in starts if start in found), None)

    owners = [above(path) for path in paths]
    return [found[owner or ""] for owner in owners] if set(owners) == found.keys() else None
