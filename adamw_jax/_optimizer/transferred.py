"""What `transfer` returns: options, with a table of how each number came about."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex

from adamw_jax._rules.growth import Grown
from adamw_jax._rules.scaling import Exponents, Growth, Rule
from adamw_jax._tree import checks
from adamw_jax._tree.table import to_text

POWERS = {"width": "width", "depth": "depth", "batch": "batch", "tokens": "tokens"}
COLUMNS = {"number": "number", "role": "of", "before": "base", "after": "target", "factor": "factor"} | POWERS
COLUMNS["source"] = "source (arXiv)"
LEAF_COLUMNS = {"path": "parameter", "role": "role", "why": "by its", "direction": "direction", "width": "width x"}
LEAF_COLUMNS |= {"rate": "rate", "rate_factor": "x", "decay": "weight_decay", "decay_factor": "x"}
LEAF_COLUMNS |= {"eps": "eps", "eps_factor": "x"}


class Case(NamedTuple):
    """A transfer to be made.

    Attributes:
      options: of the base.
      rule: the exponents.
      growth: of depth, batch and tokens.
      leaves: the leaves of the target with the growth of their widths.
      kinds: "adam", "muon" or "momentum" per leaf.
      base_params, params: of the base and of the target, or their shapes.
    """

    options: Mapping[str, Any]
    rule: Rule
    growth: Growth
    leaves: Sequence[Grown]
    kinds: Sequence[str]
    base_params: chex.ArrayTree
    params: chex.ArrayTree


class Entry(NamedTuple):
    """A number of the base and of the target, and the exponents between them; `leaf` is None for one of all leaves."""

    number: str
    before: Any
    after: Any
    exponents: Exponents
    leaf: int | None = None


class Transferred(dict[str, Any]):
    """Options for a large run: a dict for `adamw(**transferred)`, which prints as `.table()`.

    Attributes:
      rule: the rule's name.
      rows: a dict per number and role: number, role, before, after, factor, and of it what comes from width, depth,
        batch and tokens, source.
      leaves: a dict per parameter: path, role, why, direction, width, rate, decay, eps, and the factors of the three.
      notes: what the model and the schedule must do, and what was kept.
    """

    rule: str
    rows: list[dict[str, Any]]
    leaves: list[dict[str, Any]]
    notes: tuple[str, ...]

    def __init__(self, options: Mapping[str, Any], case: Case, entries: Sequence[Entry], notes: Sequence[str]) -> None:
        super().__init__(options)
        self.rule, self.notes = case.rule.name, tuple(notes)
        self.rows, self.leaves = _role_rows(case, entries), _leaf_rows(case, entries)

    def table(self) -> str:
        """Return the rows of numbers and roles, those of the parameters, and the notes, as text."""
        rows, leaves = (
            [{key: _text(value) for key, value in row.items()} for row in rows] for rows in (self.rows, self.leaves)
        )
        columns = {key: title for key, title in LEAF_COLUMNS.items() if any(row[key] != "-" for row in leaves)}
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"rule {self.rule!r}\n\n{to_text(COLUMNS, rows)}\n\n{to_text(columns, leaves)}\n{notes}"

    def __str__(self) -> str:
        return self.table()


def _text(value: Any) -> str:
    """Return a number with four digits; "-" for None, a word for a schedule or a traced number; text as it is."""
    if value is None or isinstance(value, str):
        return "-" if value is None else value
    if isinstance(value, tuple):
        l1, l2 = value
        return _text(l2) if checks.is_number(l1) and checks.equals(l1, 0) else f"({_text(l1)}, {_text(l2)})"
    if checks.is_traced(value):
        return "traced"
    return "schedule" if callable(value) else f"{float(value):.4g}"


def _role_rows(case: Case, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    several = len(set(case.kinds)) > 1
    groups: dict[tuple[str, str, Any], list[Entry]] = {}
    for entry in entries:
        role, width = "all", 1.0
        if entry.leaf is not None:
            leaf = case.leaves[entry.leaf]
            role, width = leaf.row + (f" ({case.kinds[entry.leaf]})" if several else ""), leaf.width
        groups.setdefault((entry.number, role, width), []).append(entry)
    rows = []
    for (number, role, width), group in groups.items():
        exponents = group[0].exponents
        sides = ([getattr(entry, side) for entry in group] for side in ("before", "after"))
        before, after = (values[0] if len(set(map(_text, values))) == 1 else "by leaf" for values in sides)
        rows.append(
            {
                "number": f"{number} (by 1 - {number})" if number in ("b1", "b2") else number,
                "role": role + (f", width x {width:g}" if width != 1 else ""),
                "before": before,
                "after": after,
                "factor": case.growth.factor(exponents, width),
                **dict(zip(POWERS, case.growth.parts(exponents, width), strict=True)),
                "source": exponents.source,
            }
        )
    return rows


def _leaf_rows(case: Case, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    rate, shared = entries[0].after, case.growth.factor(entries[0].exponents)
    found = {(entry.number, entry.leaf): entry for entry in entries}
    rows = []
    for i, (each, kind) in enumerate(zip(case.leaves, case.kinds, strict=True)):
        row: dict[str, Any] = {
            "path": each.leaf.path,
            "role": each.row if each.row == each.leaf.role else f"{each.row} ({each.leaf.role})",
            "why": each.leaf.why,
            "direction": kind if len(set(case.kinds)) > 1 else None,
            "width": each.width,
        }
        for key, number in (("rate", "lr_multipliers"), ("decay", "weight_decay"), ("eps", "eps")):
            entry = found.get((number, i))
            row[key] = None if entry is None else entry.after
            row[f"{key}_factor"] = None if entry is None else case.growth.factor(entry.exponents, each.width)
        if not callable(rate) and not callable(row["rate"]):
            row["rate"] = rate * row["rate"]
        row["rate_factor"] = shared * row["rate_factor"]
        rows.append(row)
    return rows
