"""Masks, rules whose values are flags."""

from collections.abc import Mapping

import chex
import jax

from adamw_jax._rules.checks import check_function
from adamw_jax._rules.values import resolve_rules
from adamw_jax._tree.checks import check_flag
from adamw_jax._tree.paths import leaf_paths, match_patterns
from adamw_jax._tree.typing import Mask


def resolve_mask(name: str, mask: Mask, params: chex.ArrayTree) -> list[bool]:
    """Return one flag per leaf of `params`, in the order of `jax.tree.leaves`, for the argument `name`.

    A mask is a pattern or a sequence of patterns, True for the leaves in whose path one of them is found; or rules as
    in `resolve_rules` whose values are True or False, False where no pattern matches.

    Raises:
      ValueError, TypeError: as `resolve_rules`; a value other than True and False; an empty pattern.

    >>> resolve_mask("freeze", "embed", {"embed": 0.0, "head": 0.0})
    [True, False]
    """
    patterns = (mask,) if isinstance(mask, str) else mask
    if isinstance(patterns, (list, tuple)) and all(isinstance(each, str) for each in patterns):
        if "" in patterns:
            raise ValueError(f"`{name}` must not have an empty pattern, which is found in every path, got {mask!r}")
        return [index is not None for index in match_patterns(name, tuple(patterns), leaf_paths(params))]
    if isinstance(mask, bool) and leaf_paths(params) != ("",):
        raise TypeError(f"`{name}` must say which leaves, by patterns, flags or a function, got {mask}")
    if isinstance(mask, Mapping) and not mask:
        return [False] * len(leaf_paths(params))
    if callable(mask) and jax.tree_util.all_leaves([mask]):
        check_function(name, mask, schedules=False)
    return [bool(flag) for flag in resolve_rules(name, mask, params, check_flag, False)]
