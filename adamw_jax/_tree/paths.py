"""Parameter paths, and which of some patterns is the first to be found in each.

A path reads alike in every framework: dict keys, attribute names and sequence indices joined by "/", as in
"encoder/dense_1/kernel" or "layers/0/weight". The box that Flax puts around an array (nnx.Variable, linen's
Partitioned) leaves no trace in it.
"""

import difflib
import functools
import re
from collections.abc import Sequence
from typing import Any

import chex
import jax

from adamw_jax._tree.checks import path_text

_BOXES = ("Variable", "VariableState", "AxisMetadata")
"""Base classes of the boxes around a parameter, in packages of Flax."""


def _is_box(node: Any) -> bool:
    return any(kind.__name__ in _BOXES and kind.__module__.startswith("flax.") for kind in type(node).__mro__)


@functools.lru_cache(maxsize=128)
def _paths_of(structure: Any) -> tuple[str, ...]:
    paths: list[tuple[Any, ...]] = []
    tree = structure.unflatten(range(structure.num_leaves))
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box):
        inside = jax.tree_util.tree_leaves_with_path(node) if _is_box(node) else [((), node)]
        paths += [(*path, *rest[1:]) for rest, _ in inside]
    return tuple(path_text(path) for path in paths)


def leaf_paths(tree: chex.ArrayTree, is_leaf: Any = None) -> tuple[str, ...]:
    """Return the path of every leaf, in the order of `jax.tree.leaves`.

    Args:
      tree: any tree.
      is_leaf: node -> bool, as in `jax.tree.leaves`.

    >>> leaf_paths({"dense": {"kernel": 0.0, "bias": 0.0}, "blocks": [1.0, None]})
    ('blocks/0', 'dense/bias', 'dense/kernel')
    """
    return _paths_of(jax.tree.structure(tree, is_leaf=is_leaf))


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


def shadowed_patterns(name: str, patterns: Sequence[str], paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return the patterns that decide nothing, each with an earlier one that takes a path from it.

    >>> shadowed_patterns("weight_decay", ("dense", "dense/bias"), ("dense/bias", "dense/kernel"))
    [('dense/bias', 'dense')]
    """
    deciding = match_patterns(name, tuple(patterns), tuple(paths))
    shadowed = []
    for index, pattern in enumerate(patterns):
        if paths and index not in deciding:
            found: Any = match_patterns(name, (pattern,), tuple(paths))
            first = next(owner for owner, hit in zip(deciding, found, strict=True) if hit is not None)
            shadowed.append((pattern, patterns[first or 0]))
    return shadowed


_CLASSES = re.compile(r"\\[dDwWsS]|[\[\]{}]")
"""What shows that a pattern means several numbers."""

_ANYTHING = re.compile(r"\.[*+?]")
"""From here on a pattern reads like nothing in particular."""


def overreaching_matches(pattern: str, paths: Sequence[str]) -> list[str]:
    """Return the paths in which a pattern that reads like one number meets another one.

    "layer_1" is also found in "layer_10", and the dots of "layers.1." take any character, a digit among them.

    >>> overreaching_matches("layer_1", ("layer_1/kernel", "layer_10/kernel", "layer_2/kernel"))
    ['layer_10/kernel']
    """
    if _CLASSES.search(pattern):
        return []
    read = _ANYTHING.split(pattern)[0]
    meant = set(re.findall(r"\d+", read))
    try:
        expression = re.compile(read)
    except re.error:  # cut within a group
        return []
    reached = []
    for path in paths:
        found = expression.search(path) if re.search(pattern, path) else None
        if found is None or not meant:
            continue
        met = [m[0] for m in re.finditer(r"\d+", path) if m.start() < found.end() and m.end() > found.start()]
        if set(met) - meant:
            reached.append(path)
    return reached
