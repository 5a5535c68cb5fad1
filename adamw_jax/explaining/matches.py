"""Which rule gave a leaf its value, and which rules give none."""

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax

from adamw_jax.paths import is_value, leaf_paths, match_patterns
from adamw_jax.typing import Rules


def patterns_of(rules: Rules | None, params: chex.ArrayTree) -> tuple[str, ...] | None:
    """Return the patterns of rules that `resolve_rules` reads as {pattern: value}, None for rules of another kind."""
    structure: Any = jax.tree.structure(params)
    if not isinstance(rules, Mapping) or jax.tree.structure(rules, is_leaf=is_value) == structure:
        return None
    return tuple(rules)


def matched_rules(name: str, rules: Rules | None, params: chex.ArrayTree) -> list[str | None]:
    """Return for every leaf the pattern that gave it its value, or the kind of the rules; None where no rule did.

    >>> matched_rules("lr_multipliers", {"bias": 2.0}, {"bias": 0.0, "kernel": 0.0})
    ['bias', None]
    """
    paths = leaf_paths(params)
    patterns = patterns_of(rules, params)
    if patterns is not None:
        return [None if i is None else patterns[i] for i in match_patterns(name, patterns, paths)]
    kind = None if rules is None else "all" if is_value(rules) else "function" if callable(rules) else "tree"
    return [kind] * len(paths)


def shadowed_patterns(name: str, patterns: Sequence[str], paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return the patterns that decide nothing, each with an earlier one that takes a path from it.

    >>> shadowed_patterns("weight_decay", ("dense", "dense/bias"), ("dense/bias", "dense/kernel"))
    [('dense/bias', 'dense')]
    """
    deciding = match_patterns(name, tuple(patterns), tuple(paths))
    shadowed = []
    for index, pattern in enumerate(patterns):
        if index not in deciding:
            found: Any = match_patterns(name, (pattern,), tuple(paths))
            first = next(owner for owner, hit in zip(deciding, found, strict=True) if hit is not None)
            shadowed.append((pattern, patterns[first or 0]))
    return shadowed
