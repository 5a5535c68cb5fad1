"""Masks, rules whose values are flags; and trees of values from trees of labels."""

from collections.abc import Mapping

import chex
import jax

from adamw_jax._rules.functions import check_function
from adamw_jax._rules.values import resolve_rules
from adamw_jax._tree.checks import check_flag
from adamw_jax._tree.paths import leaf_paths, match_patterns
from adamw_jax._tree.typing import Labels, Mask, Value


def resolve_mask(name: str, mask: Mask, params: chex.ArrayTree) -> list[bool]:
    """Return one flag per leaf of `params`, in the order of `jax.tree.leaves`.

    Args:
      name: how the caller's argument is called, for the errors.
      mask: a pattern, or a sequence of patterns, for the leaves in whose path one of them is found; or rules as in
        `resolve_rules` whose values are True or False, False where no pattern matches. No patterns find no leaf.
      params: the parameters, or any tree of their structure.

    Raises:
      ValueError, TypeError: as `resolve_rules`; a value other than True and False; an empty pattern, which would be
        found everywhere.

    >>> resolve_mask("freeze", "embed", {"embed": 0.0, "head": 0.0})
    [True, False]
    """
    patterns = (mask,) if isinstance(mask, str) else mask
    if isinstance(patterns, (list, tuple)) and all(isinstance(each, str) for each in patterns):
        if "" in patterns:
            raise ValueError(f"`{name}` must not have an empty pattern, which is found in every path, got {mask!r}")
        return [index is not None for index in match_patterns(name, tuple(patterns), leaf_paths(params))]
    if isinstance(mask, Mapping) and not mask:
        return [False] * len(leaf_paths(params))
    if callable(mask) and jax.tree_util.all_leaves([mask]):
        check_function(name, mask, schedules=False)
    return [bool(flag) for flag in resolve_rules(name, mask, params, check_flag, False)]


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
