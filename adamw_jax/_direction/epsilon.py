"""The numbers in a denominator, for all leaves or leaf by leaf: sqrt(nu + eps_root) + eps."""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax

from adamw_jax._rules.trees import is_single
from adamw_jax._rules.values import check_positive, check_rules, resolve_rules
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.typing import Rules

Scalars = tuple[Any, ...]


def check_epsilons(eps: Rules, eps_root: Rules) -> None:
    """Check numbers, and rules as far as they are known before there are parameters."""
    for name, rules, check in (("eps", eps, check_positive), ("eps_root", eps_root, checks.check_non_negative)):
        if isinstance(rules, Mapping):
            check_rules(name, rules, check)
        elif not callable(rules) and jax.tree_util.all_leaves([rules]):
            check(name, rules)


def _cut(rules: Rules, tree: chex.ArrayTree) -> Rules:
    """Return a tree of values as a function of the path, if the direction gets some of its leaves only."""
    if is_single(rules):
        return rules
    values = dict(zip(leaf_paths(rules, is_single), jax.tree.leaves(rules, is_leaf=is_single), strict=True))
    return (lambda path, leaf: values[path]) if set(leaf_paths(tree)) < set(values) else rules


def epsilons(eps: Rules, eps_root: Rules, tree: chex.ArrayTree) -> list[tuple[Any, Any]]:
    """Return eps and eps_root of every leaf, in the order of `jax.tree.leaves`.

    >>> epsilons({"kernel": 1e-6}, 0.0, {"bias": 0.0, "kernel": 0.0})
    [(1e-08, 0.0), (1e-06, 0.0)]
    """
    each = resolve_rules("eps", _cut(eps, tree), tree, check_positive, 1e-8)
    roots = resolve_rules("eps_root", _cut(eps_root, tree), tree, checks.check_non_negative, 0.0)
    return list(zip(each, roots, strict=True))


def with_epsilons(
    eps: Rules, eps_root: Rules, tree: chex.ArrayTree, scalars_of: Callable[[Any, Any], Scalars]
) -> tuple[Scalars, list[Scalars] | None]:
    """Return the scalars of a kernel that all leaves share, and those of each leaf: the last two, or None.

    Args:
      eps, eps_root: numbers, or rules that give each leaf one.
      tree: the gradients.
      scalars_of: (eps, eps_root) -> the kernel's scalars, of which the last two depend on them.
    """
    if checks.is_number(eps) and checks.is_number(eps_root):
        return scalars_of(eps, eps_root), None
    pairs = epsilons(eps, eps_root, tree)
    # Equal pairs share their scalars.
    keys = [tuple(id(x) if isinstance(x, jax.Array) else x for x in pair) for pair in pairs]
    known = {key: scalars_of(*pair) for key, pair in dict(zip(keys, pairs, strict=True)).items()}
    found = [known[key] for key in keys]
    return (found[0][:-2] if found else scalars_of(1.0, 0.0)[:-2]), [each[-2:] for each in found]
