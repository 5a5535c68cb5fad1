"""The numbers of a transfer: every option times the powers of a rule."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax

from adamw_jax._decay.coupling import coupling_of
from adamw_jax._optimizer.transferred import Case, Entry
from adamw_jax._rules.growth import Grown
from adamw_jax._rules.scaling import Exponents, combined
from adamw_jax._rules.values import (
    Check,
    check_decay,
    check_multiplier,
    check_positive,
    is_value,
    kind_of,
    resolve_rules,
)
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Value

PRESET = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
"""The defaults of the presets with Adam's direction."""

UPDATES = Exponents(tokens=1.0, batch=-1.0)
"""By which the number of updates grows."""


def scaled(value: Any, factor: Any) -> Any:
    """Return a number, a schedule or a pair of them times a factor; 0, and a product with 1, stay as they are.

    >>> scaled((0.0, 0.5), 2.0), scaled(lambda count: 3.0, 2.0)(0)
    ((0.0, 1.0), 6.0)
    """
    if checks.equals(factor, 1):
        return value
    if isinstance(value, tuple):
        return tuple(scaled(each, factor) for each in value)
    if callable(value):
        schedule: Callable[[Any], Any] = value
        return lambda count: factor * schedule(count)
    return value if checks.equals(value, 0) else factor * value


def _values_on(
    name: str, rules: Any, grown: Sequence[Grown], base_params: chex.ArrayTree, params: Any, check: Check, default: Any
) -> list[Value]:
    """Return the values that the rules of the base give to the leaves of the target.

    Patterns and functions are held against the target; a tree is one of the base, whose values go to the leaves that
    correspond.

    Raises:
      ValueError: a block that only the target has, and whose counterparts have different values.
    """
    if kind_of(rules, base_params) != "tree":
        return resolve_rules(name, rules, params, check, default)
    values = resolve_rules(name, rules, base_params, check, default)
    for each in grown:
        first, *others = (values[i] for i in each.like)
        if not all(value is first or (not callable(value) and value == first) for value in others):
            raise ValueError(
                f"`{name}` must tell the value of blocks that only the larger model has, got a tree with different "
                f"values at the leaves like {each.leaf.path!r}: give patterns or a function (path, leaf) -> value"
            )
    return [values[each.like[0]] for each in grown]


def _rules_with(given: Any, values: Sequence[Any], factors: Sequence[Any], alike: bool, case: Case) -> Any:
    """Return the rules of the base times factors: in the form given where all factors are alike, else as a tree."""
    if alike and kind_of(given, case.base_params) != "tree":
        factor = factors[0] if factors else 1.0
        if checks.equals(factor, 1):
            return given
        if is_value(given) and not callable(given):
            return scaled(given, factor)
        if isinstance(given, Mapping):
            return {pattern: scaled(value, factor) for pattern, value in given.items()}
    leaves = []
    for value in map(scaled, values, factors):
        is_plain = isinstance(value, tuple) and checks.equals(value[0], 0)
        leaves.append(value[1] if is_plain else value)  # (0, l2) is l2
    return jax.tree.unflatten(jax.tree.structure(case.params), leaves)


def _moment(name: str, before: Any, factor: Any) -> Any:
    """Return the b of 1 - b times a factor."""
    rest = factor * (1 - before)
    if not any(map(checks.is_traced, (before, factor))):
        told = f"got 1 - {name} = {float(1 - before):.4g} times {float(factor):.4g} = {float(rest):.4g}"
        if rest >= 1:
            raise ValueError(
                f"`{name}` must leave 1 - {name} below 1 after the rule, {told}: take a batch that grows less, or give "
                f"a larger {name}, or a Rule that keeps it, and tune the rate anew"
            )
        if rest >= 0.5:
            warnings.warn(
                f"1 - {name} times the growth of the batch should stay below 0.5, up to where the rule was right in "
                f"the study, {told}: take a batch that grows less, or tune the rate anew",
                stacklevel=4,
            )
    return 1 - rest


def _typed_decay(options: Mapping[str, Any], paper: Exponents, shared: Exponents, relative: Exponents) -> Exponents:
    """Return the exponents of the number that is typed as the decay: paper's form = c n r' typed."""
    terms = [(1.0, paper)]
    if coupling_of(options.get("coupling", "schedule")).needs_alpha:
        terms.append((-1.0, shared))
    if options.get("multiplier_scales_decay", False):
        terms.append((-1.0, relative))
    if options.get("normalize_decay") is not None:
        terms.append((0.5, UPDATES))
    return combined(*terms)


def transferred_numbers(case: Case) -> tuple[dict[str, Any], list[Entry]]:
    """Return the options with the rule's factors, and an entry per number and leaf."""
    options, rule, growth, leaves, kinds, base_params, params = case
    found = dict(options)
    kind = kinds[0] if len(set(kinds)) == 1 else "adam"
    is_preset = "direction" not in options and set(kinds) == {"adam"}
    rows = list(zip(leaves, kinds, strict=True))
    shared = rule.exponents("rate", "", kind)._replace(width=0.0, depth=0.0)
    rate = options["learning_rate"]
    found["learning_rate"] = scaled(rate, growth.factor(shared))
    entries = [Entry("learning_rate", rate, found["learning_rate"], shared)]

    def per_leaf(name: str, given: Any, exponents: Sequence[Exponents], check: Any, default: Any) -> None:
        if given is None:
            entries.extend(Entry(name, None, None, e, i) for i, e in enumerate(exponents))
            return
        pairs = list(zip(exponents, leaves, strict=True))
        factors = [growth.factor(e, leaf.width) for e, leaf in pairs]
        values = _values_on(name, given, leaves, base_params, params, check, default)
        if options.get(name) is not None or not all(checks.equals(factor, 1) for factor in factors):
            alike = len({growth.key(e, leaf.width) for e, leaf in pairs}) < 2
            found[name] = _rules_with(given, values, factors, alike, case)
        each = enumerate(zip(values, factors, exponents, strict=True))
        entries.extend(Entry(name, value, scaled(value, factor), e, i) for i, (value, factor, e) in each)

    relative = [combined((1.0, rule.exponents("rate", leaf.row, like)), (-1.0, shared)) for leaf, like in rows]
    multipliers = options.get("lr_multipliers")
    per_leaf("lr_multipliers", 1.0 if multipliers is None else multipliers, relative, check_multiplier, 1.0)
    paper = [rule.exponents("decay", leaf.row, like) for leaf, like in rows]
    typed = [_typed_decay(options, d, shared, r) for d, r in zip(paper, relative, strict=True)]
    per_leaf("weight_decay", options.get("weight_decay"), typed, check_decay, (0.0, 0.0))
    for name in ("b1", "b2") if kind != "momentum" else ():
        exponents = rule.exponents(name)
        before = after = options.get(name, PRESET[name] if is_preset else None)
        factor = growth.factor(exponents)
        if before is not None and not checks.equals(factor, 1):
            found[name] = after = _moment(name, before, factor)
        entries.append(Entry(name, before, after, exponents))
    if "adam" in kinds:
        eps = [rule.exponents("eps", leaf.row) if like == "adam" else Exponents() for leaf, like in rows]
        per_leaf("eps", options.get("eps", PRESET["eps"] if is_preset else None), eps, check_positive, PRESET["eps"])
        if options.get("eps_root") is not None:
            squares = [combined((2.0, each)) for each in eps]
            per_leaf("eps_root", options["eps_root"], squares, check_multiplier, 0.0)
    return found, entries
