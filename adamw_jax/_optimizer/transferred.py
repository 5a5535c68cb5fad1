"""What `transfer` returns: options, with a table of how each number came about."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adamw_jax._rules.growth import Grown
from adamw_jax._rules.scaling import Exponents, Growth
from adamw_jax._tree import checks
from adamw_jax._tree.table import to_text

COLUMNS = {
    "number": "number",
    "role": "of",
    "before": "base",
    "after": "target",
    "factor": "factor",
    "width": "width",
    "depth": "depth",
    "batch": "batch",
    "tokens": "tokens",
    "source": "source (arXiv)",
}
LEAF_COLUMNS = {
    "path": "parameter",
    "role": "role",
    "why": "by its",
    "direction": "direction",
    "width": "width x",
    "rate": "rate",
    "rate_factor": "x",
    "decay": "weight_decay",
    "decay_factor": "x",
    "eps": "eps",
    "eps_factor": "x",
}


class Entry(NamedTuple):
    """A number of the base and of the target, and the exponents between them; `leaf` is None for one of all leaves."""

    number: str
    before: Any
    after: Any
    exponents: Exponents
    leaf: int | None = None


def _text(value: Any) -> str:
    """Return a number with four digits; "-" for none, and a word for what has none yet."""
    if value is None:
        return "-"
    if isinstance(value, tuple):
        l1, l2 = value
        return _text(l2) if checks.is_number(l1) and checks.equals(l1, 0) else f"({_text(l1)}, {_text(l2)})"
    if checks.is_traced(value):
        return "traced"
    return "schedule" if callable(value) else f"{float(value):.4g}"


def _one(values: Sequence[Any]) -> Any:
    """Return the value that all leaves of a row have, or "by leaf"."""
    return values[0] if len(set(map(_text, values))) == 1 else "by leaf"


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

    def __init__(
        self,
        options: Mapping[str, Any],
        rule: str,
        entries: Sequence[Entry],
        leaves: Sequence[Grown],
        kinds: Sequence[str],
        growth: Growth,
        notes: Sequence[str],
    ) -> None:
        super().__init__(options)
        self.rule, self.notes = rule, tuple(notes)
        self.rows = _role_rows(entries, leaves, kinds, growth)
        self.leaves = _leaf_rows(entries, leaves, kinds, growth)

    def table(self) -> str:
        """Return the rows of numbers and roles, those of the parameters, and the notes, as text."""
        rows = [{key: _cell(value) for key, value in row.items()} for row in self.rows]
        leaves = [{key: _cell(value) for key, value in row.items()} for row in self.leaves]
        columns = {key: title for key, title in LEAF_COLUMNS.items() if any(row[key] != "-" for row in leaves)}
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"rule {self.rule!r}\n\n{to_text(COLUMNS, rows)}\n\n{to_text(columns, leaves)}\n{notes}"

    def __str__(self) -> str:
        return self.table()


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else _text(value)


def _role_rows(
    entries: Sequence[Entry], leaves: Sequence[Grown], kinds: Sequence[str], growth: Growth
) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        of: tuple[Any, ...] = ("all", "", 1.0)
        if entry.leaf is not None:
            of = (leaves[entry.leaf].row, kinds[entry.leaf], leaves[entry.leaf].width)
        groups.setdefault((entry.number, *of), []).append(entry)
    rows = []
    for (number, row, kind, width), group in groups.items():
        exponents = group[0].exponents
        parts = growth.parts(exponents, width)
        several = f" ({kind})" if len(set(kinds)) > 1 and kind else ""
        rows.append(
            {
                "number": f"{number} (by 1 - {number})" if number in ("b1", "b2") else number,
                "role": row + several + (f", width x {width:g}" if width != 1 else ""),
                "before": _one([entry.before for entry in group]),
                "after": _one([entry.after for entry in group]),
                "factor": growth.factor(exponents, width),
                **dict(zip(("width", "depth", "batch", "tokens"), parts, strict=True)),
                "source": exponents.source,
            }
        )
    return rows


def _leaf_rows(
    entries: Sequence[Entry], leaves: Sequence[Grown], kinds: Sequence[str], growth: Growth
) -> list[dict[str, Any]]:
    rate, shared = entries[0].after, growth.factor(entries[0].exponents)
    found = {(entry.number, entry.leaf): entry for entry in entries}
    rows = []
    for i, (each, kind) in enumerate(zip(leaves, kinds, strict=True)):
        row: dict[str, Any] = {
            "path": each.leaf.path,
            "role": each.row if each.row == each.leaf.role else f"{each.row} ({each.leaf.role})",
            "why": each.leaf.why,
            "direction": kind if len(set(kinds)) > 1 else None,
            "width": each.width,
        }
        for key, number in (("rate", "lr_multipliers"), ("decay", "weight_decay"), ("eps", "eps")):
            entry = found.get((number, i))
            factor = None if entry is None else growth.factor(entry.exponents, each.width)
            row[key] = None if entry is None else entry.after
            row[f"{key}_factor"] = factor
        if not callable(rate) and not callable(row["rate"]):
            row["rate"] = rate * row["rate"]
        row["rate_factor"] = shared * row["rate_factor"]
        rows.append(row)
    return rows
