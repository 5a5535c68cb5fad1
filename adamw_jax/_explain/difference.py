"""What changed between two tables of the same parameters."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from adamw_jax._tree import table

COMPARED = (
    "shape",
    "dtype",
    "direction",
    "frozen",
    "multiplier",
    "rate",
    "l1",
    "proximal_l1",
    "l2",
    "decay",
    "corrected",
    "moves",
    "state_bytes",
)
"""The columns that are compared: what a parameter gets, not by which rule; `turn`, too, where both tables tell it."""

_TITLES = {"path": "parameter", "what": "what", "old": "old", "new": "new"}


@dataclasses.dataclass(frozen=True)
class Difference:
    """What `Explanation.diff` returns. It prints as a table; it is false where nothing changed.

    Attributes:
      rows: one mapping per changed value: path, what (a key of `Explanation.rows`), old, new.
    """

    rows: list[dict[str, Any]]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __str__(self) -> str:
        if not self.rows:
            return "nothing changed"
        cells = [{key: table.format_cell(row[key]) for key in _TITLES} for row in self.rows]
        paths = len({row["path"] for row in self.rows})
        return f"{table.to_text(_TITLES, cells)}\n{len(self.rows)} values of {paths} parameters changed"

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as plain lists, strings and numbers, as JSON has them."""
        return {"rows": [{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in self.rows]}


def difference(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> Difference:
    """Return what differs between the rows of two explanations.

    Raises:
      ValueError: a path that only one of them has.
    """
    olds, news = ({row["path"]: row for row in rows} for rows in (old, new))
    if missing := sorted(olds.keys() ^ news.keys()):
        only = [f"{path!r} ({'new' if path in news else 'old'})" for path in missing]
        raise ValueError(f"`old` must be a table of the same parameters, got some in one table only: {', '.join(only)}")
    both_told = all(row["scale_invariant"] is not None for row in (*new, *old))
    compared = (*COMPARED, "turn") if both_told else COMPARED
    changed = []
    for path, row in news.items():
        for key in compared:
            if row[key] != olds[path][key]:
                changed.append({"path": path, "what": key, "old": olds[path][key], "new": row[key]})
    return Difference(changed)
