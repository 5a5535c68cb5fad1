"""Parameter paths, and which of some patterns is the first to be found in each.

A path reads alike in every framework: dict keys, attribute names and sequence indices joined by "/", as in
"encoder/dense_1/kernel" or "layers/0/weight", without the box that a framework puts around an array.
"""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax

from adamw_jax._tree.checks import path_text

_FLAX_BOXES = ("Variable", "VariableState", "AxisMetadata")
"""Base classes of the boxes around a parameter, in packages of Flax."""

_PARAMETER = re.compile(r"(?i)(kernel|weights?|bias|scale|embeddings?|gamma|beta|alpha|theta|temperature|[wbg]\d*)$")
"""Attributes that name a parameter: a class that has one of them alone is no box."""

_PATHS: dict[Any, tuple[str, ...]] = {}


def _is_box(kind: Any, key: Any) -> bool:
    """Return True if a node of this class is a box around its only child, an array under this key.

    Dicts, sequences and named tuples name what they hold, and a class with `__call__` is a module with one parameter.
    """
    if issubclass(kind, (Mapping, Sequence)) or any("__call__" in vars(base) for base in kind.__mro__):
        return False
    return not (isinstance(key, jax.tree_util.GetAttrKey) and _PARAMETER.match(key.name))


def _without_boxes(structure: Any, paths: Sequence[Any], depth: int = 0) -> tuple[list[Any], bool]:
    """Return the paths of a subtree without the keys above it and those of boxes, and whether it is a boxed array."""
    node, children = structure.node_data(), structure.children()
    if node is None:
        return [()], True
    named: list[Any] = []
    for child in children:
        below = paths[len(named) : len(named) + child.num_leaves]
        if not below:
            continue
        inside, is_array = _without_boxes(child, below, depth + 1)
        key = below[0][depth]
        if any(base.__name__ in _FLAX_BOXES and base.__module__.startswith("flax.") for base in node[0].__mro__):
            return inside, is_array
        if is_array and len(children) == 1 and _is_box(node[0], key):
            return inside, True
        named += [(key, *path) for path in inside]
    return named, False


def leaf_paths(tree: chex.ArrayTree, is_leaf: Any = None) -> tuple[str, ...]:
    """Return the path of every leaf, in the order of `jax.tree.leaves`.

    A box adds nothing to a path: a node around one array, of a class that is no dict, sequence or named tuple, has no
    `__call__`, and does not name the array as a parameter ("weight"). A path never depends on a leaf's neighbors.

    Args:
      tree: any tree.
      is_leaf: node -> bool, as in `jax.tree.leaves`.

    >>> leaf_paths({"dense": {"kernel": 0.0, "bias": 0.0}, "blocks": [1.0, None]})
    ('blocks/0', 'dense/bias', 'dense/kernel')
    """
    structure: Any = jax.tree.structure(tree, is_leaf=is_leaf)
    if structure not in _PATHS:
        if len(_PATHS) >= 128:
            _PATHS.clear()
        keys = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)]
        _PATHS[structure] = tuple(map(path_text, _without_boxes(structure, keys)[0]))
    return _PATHS[structure]


_TOKEN = re.compile(
    r"\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|\d{1,3}|.)|\[\^?\]?(?:\\.|[^\]])*\]|\{[\d,]*\}|\(\?P?[<=(]?\w*[>:)=!]*|\d+|.",
    re.DOTALL,
)
"""The parts of a regular expression: escapes, classes, counts, openings of groups, numbers, single characters."""

_DIGITS = re.compile(r"\d|\[|\\[dwSDWs\dxuUN]|[*+?{]")
"""How a part begins that may take or repeat digits on purpose."""

_REPETITION = re.compile(r"[*+?{]")


def _neighbour(tokens: Sequence[str], index: int, step: int) -> str:
    """Return the next part in a direction, past the edges of groups and their other branches; "" at the end."""
    enter, leave = ("(", ")") if step > 0 else (")", "(")
    index += step
    depth = 0
    while 0 <= index < len(tokens):
        token = tokens[index]
        if token == "|" and depth == 0:
            depth = 1
        elif depth:
            depth += token.startswith(enter) - token.startswith(leave)
        elif not token.startswith(("(", ")")) and not (step < 0 and _REPETITION.match(token)):
            return token
        index += step
    return ""


@functools.lru_cache(maxsize=512)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern's regular expression, in which a number is a whole number.

    "layer_1" is not found in "layer_10", and the dots of "layers.1." take no digit beside the 1. Next to a class, an
    escape or a repetition, as in r"layer_1\\d", digits are meant one by one.

    >>> [bool(compile_pattern("layer_1").search(path)) for path in ("layer_1/kernel", "layer_10/kernel")]
    [True, False]
    """
    re.compile(pattern)
    tokens = _TOKEN.findall(pattern)
    parts = []
    for index, token in enumerate(tokens):
        before, after = (_DIGITS.match(_neighbour(tokens, index, step)) for step in (-1, 1))
        whole = ("" if before else r"(?<!\d)") + token + ("" if after else r"(?!\d)")
        parts.append(whole if token.isdigit() else token)
    return re.compile("".join(parts))


@functools.lru_cache(maxsize=128)
def match_patterns(name: str, patterns: tuple[str, ...], paths: tuple[str, ...]) -> tuple[int | None, ...]:
    """Return for every path the index of the first pattern found in it, None where none is; see `compile_pattern`.

    Raises:
      ValueError: a pattern of the argument `name` does not compile, or is found in no path.

    >>> match_patterns("lr_multipliers", ("lstm", "kernel$"), ("dense/bias", "dense/kernel", "lstm/kernel"))
    (None, 1, 0)
    """
    compiled = []
    for pattern in patterns:
        if pattern.startswith(("['", '["')):  # as jax.tree_util.keystr writes paths; a class of characters to a pattern
            raise ValueError(
                f'`{name}` must have keys joined by "/" as patterns, as leaf_paths(params) shows them, got {pattern!r}'
            )
        try:
            compiled.append(compile_pattern(pattern))
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
