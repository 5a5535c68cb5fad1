"""What changed between two tables of the same parameters: everything that their plans hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from adamw_jax._optimizer.plan import LeafPlan, Plan
from adamw_jax._optimizer.same import NotComparableError, is_same, text_of
from adamw_jax._tree import table

ALL = "(all)"
"""In the place of a path, for a change that all parameters share."""

RULES = {"multiplier": "multiplier", "l1": "l1", "l2": "l2", "proximal_l1": "threshold"}
"""Columns of values that may be schedules -> attributes of `LeafPlan`."""

COMPARED = (
    *("shape", "dtype", "frozen", "held", "norm", "multiplier", "rate", "l1", "proximal_l1", "l2", "decay"),
    *("corrected", "moves", "by_layer", "state_bytes"),
)
"""The columns that are compared: what a parameter gets, not by which rule; `turn`, too, where both tables have it."""

Change = tuple[str, Any, Any]
"""(what, old, new)"""

_TITLES = {"path": "parameter", "what": "what", "old": "old", "new": "new"}


class Table(Protocol):
    """What is compared of an `Explanation`."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping per parameter."""

    @property
    def plan(self) -> Plan:
        """The options."""

    @property
    def leaves(self) -> list[LeafPlan]:
        """What every leaf gets."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """What `Explanation.diff` returns. It prints as a table; it is false where nothing changed.

    Attributes:
      rows: one mapping per changed value: path, or "(all)" for all parameters; what; old; new.
      not_compared: what could not be compared, such as the arguments of another package's direction.
    """

    rows: list[dict[str, Any]]
    not_compared: list[str]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __str__(self) -> str:
        lines = ["nothing changed"]
        if self.rows:
            paths = len({row["path"] for row in self.rows})
            lines = [table.to_text(_TITLES, self.rows), f"{len(self.rows)} values of {paths} parameters changed"]
        return "\n".join(lines + [f"not compared: {name}" for name in self.not_compared])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, strings and numbers, as JSON has them."""
        rows = [{key: table.plain(value) for key, value in row.items()} for row in self.rows]
        return {"rows": rows, "not_compared": self.not_compared}


def _settings(table_of: Table) -> dict[str, Any]:
    """Return what a plan gives to all parameters alike."""
    plan = table_of.plan
    return {
        "learning_rate": plan.learning_rate,
        "schedule": 1.0 if plan.schedule is None else plan.schedule,
        "form of the decay": plan.form,
        "coupling": plan.factor.c.name,
        "coupling: peak": getattr(plan.factor.c, "peak", None),
        "normalize_decay": plan.factor.normalize_decay,
        "multiplier_scales_decay": plan.factor.multipliers is not None,
        "round_params": plan.round_params,
        "accumulate": plan.accumulate,
        "around it": ", ".join(name for name, _ in plan.around) or None,
        **{f"{name}: {key}": value for name, options in plan.around for key, value in options.items()},
    }


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str, unknown: set[str]) -> list[Change]:
    """Return (what, old, new) for the values that differ; what cannot be compared goes to `unknown`."""
    changed = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        try:
            if not is_same(a, b):
                changed.append((prefix + key, text_of(a), text_of(b)))
        except NotComparableError:
            unknown.add(f"functions in {prefix}{key}")
    return changed


def _direction_changes(old: LeafPlan, new: LeafPlan, unknown: set[str]) -> list[Change]:
    if new.direction != old.direction:
        return [("direction", old.direction, new.direction)]
    if new.about.arguments is None or old.about.arguments is None:
        unknown.add(f"the arguments of the direction {new.direction!r}")
        return []
    return _changes(old.about.arguments, new.about.arguments, "direction: ", unknown)


def difference(new: Table, old: Table) -> Difference:
    """Return what differs between two explanations.

    Raises:
      ValueError: a path that only one of them has.
    """
    olds, news = ({leaf.path: (leaf, row) for leaf, row in zip(x.leaves, x.rows, strict=True)} for x in (old, new))
    if missing := sorted(olds.keys() ^ news.keys()):
        only = [f"{path!r} ({'new' if path in news else 'old'})" for path in missing]
        raise ValueError(f"`old` must be a table of the same parameters, got some in one table only: {', '.join(only)}")
    unknown: set[str] = set()
    changed = [(ALL, *each) for each in _changes(_settings(old), _settings(new), "", unknown)]
    directions = {path: _direction_changes(olds[path][0], news[path][0], unknown) for path in news}
    alike = [each for each in next(iter(directions.values()), []) if all(each in more for more in directions.values())]
    changed += [(ALL, *each) for each in alike]
    both_have = all(row["scale_invariant"] is not None for row in (*new.rows, *old.rows))
    for path, (leaf, row) in news.items():
        was, its = olds[path]
        changed += [(path, *each) for each in directions[path] if each not in alike]
        columns = (*COMPARED, "turn") if both_have else COMPARED
        changed += [(path, key, its[key], row[key]) for key in columns if row[key] != its[key]]
        equal = {f"{key} in detail": name for key, name in RULES.items() if row[key] == its[key]} | {"axes": "axes"}
        before, now = ({key: getattr(each, name) for key, name in equal.items()} for each in (was, leaf))
        changed += [(path, *each) for each in _changes(before, now, "", unknown)]
    return Difference([dict(zip(_TITLES, each, strict=True)) for each in changed], sorted(unknown))
