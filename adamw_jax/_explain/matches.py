"""The rule that gave a leaf its value, rules that give none, and other warnings of `explain`."""

import collections
from collections.abc import Sequence
from typing import Any

import chex
import numpy as np

from adamw_jax._optimizer.plan import Plan
from adamw_jax._rates.owner import ScheduleState
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._rules.values import is_zero, kind_of, patterns_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths, match_patterns, shadowed_patterns
from adamw_jax._tree.state import nodes_of, value_of
from adamw_jax._tree.typing import Rules


def matched_rules(name: str, rules: Rules | None, params: chex.ArrayTree) -> list[str | None]:
    """Return for every leaf the pattern that gave it its value, or the kind of the rules; None where no rule did.

    >>> matched_rules("lr_multipliers", {"bias": 2.0}, {"bias": 0.0, "kernel": 0.0})
    ['bias', None]
    """
    paths = leaf_paths(params)
    patterns = patterns_of(rules, params)
    if patterns is not None:
        return [None if i is None else patterns[i] for i in match_patterns(name, patterns, paths)]
    return [kind_of(rules, params)] * len(paths)


def _patterns(plan: Plan, params: chex.ArrayTree) -> dict[str, tuple[str, ...]]:
    rules: dict[str, Any] = {
        name: patterns_of(getattr(plan, name), params) or ()
        for name in ("weight_decay", "lr_multipliers", "proximal_l1", "direction", "freeze")
        if getattr(plan, name) is not None
    }
    freeze = (plan.freeze,) if isinstance(plan.freeze, str) else plan.freeze
    if isinstance(freeze, Sequence) and all(isinstance(each, str) for each in freeze):
        rules["freeze"] = tuple(freeze)
    return rules


def rule_warnings(plan: Plan, params: chex.ArrayTree) -> list[str]:
    """Return warnings about the rules of a plan, a sentence each."""
    paths = leaf_paths(params)
    texts = []
    for name, patterns in _patterns(plan, params).items():
        for pattern, owner in shadowed_patterns(name, patterns, paths):
            texts.append(f"`{name}`: the pattern {pattern!r} decides nothing, for {owner!r} comes before it")
    for path, times in collections.Counter(paths).items():
        if times > 1:
            texts.append(f"{times} parameters have the path {path!r}: rules by name cannot tell them apart")
    return texts


def plan_warnings(plan: Plan, eta: float, at: int | None, updates: int | None) -> list[str]:
    """Return warnings about the options that all parameters share.

    Args:
      plan: the options.
      eta: the largest factor of the schedule.
      at: the count that the table is for; None is a run.
      updates: length of the run, if it is known.
    """
    texts = []
    if plan.schedule is not None and at is None and eta != 0 and not 0.1 <= eta <= 10:
        size = "an infinite number" if eta == float("inf") else f"{eta:.3g}"
        texts.append(
            f"`schedule`: the largest factor is {size}, but the factor multiplies the learning rate and should be near "
            "1: a schedule of learning rates is `learning_rate`, or `schedule` after a division by its peak"
        )
    if isinstance(plan.schedule, WarmRestarts) and updates is not None:
        position = plan.schedule.position(int(updates) - 1)
        into, cycle = int(position.t_cur) + 1, int(position.cycle)
        if cycle > 0 and into < int(position.period) / 10:
            texts.append(
                f"`schedule`: the run of {updates} updates ends {into} after a restart, near the peak: "
                "cosine(updates) is one fall that stays at its end"
            )
    if is_zero(plan.weight_decay) and is_zero(plan.proximal_l1):
        idle = {"decay": not plan.form.is_plain, "normalize_decay": plan.factor.normalize_decay is not None}
        texts += [f"`{name}` does nothing, for there is no decay" for name, is_given in idle.items() if is_given]
    return texts


def state_warnings(plan: Plan, state: Any) -> list[str]:
    """Return warnings about a state from which a run goes on.

    A state keeps the position and period of the schedule that it was made under. A function or a number is one cycle of
    the greatest length: under restarts, that cycle never ends, and its factor stays at the beginning of the cosine.
    """
    texts = []
    for node in nodes_of(state, ScheduleState):
        is_endless = bool(np.all(np.asarray(value_of(node.period)) == checks.MAX_COUNT))
        if is_endless == isinstance(plan.schedule, WarmRestarts):
            made = "a function or a number" if is_endless else "cosine_warm_restarts"
            texts.append(
                f"`state`: its position is that of {made} as schedule, and `schedule` is another kind: "
                "reschedule(state, schedule, count=...) moves it"
            )
    return texts
