"""What `observe` saw, as rows, as a table, and as numbers for a logger."""

import dataclasses
import html
import math
from typing import Any

from adamw_jax._tree import table

QUANTITIES = ("weight_rms", "gradient_rms", "step_rms", "ratio", "angle")
"""The numbers in every row."""

WORST = ("worst_ratio", "worst_angle")
"""Further numbers in the row of a stack."""

FURTHER = (*WORST, "residual")
"""Numbers in some rows, and columns where a row has one."""

_TITLES = {"path": "parameter"} | {
    name: name.replace("_rms", " rms").replace("_", " ") for name in (*QUANTITIES, *FURTHER)
}


def _marks(values: list[float]) -> list[str]:
    """Return "^" for the (first) largest number, "v" for the smallest, "!" for a number that is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    marks = ["" if math.isfinite(value) else "!" for value in values]
    if finite and min(finite) < max(finite):
        marks[values.index(max(finite))], marks[values.index(min(finite))] = "^", "v"
    return marks


@dataclasses.dataclass(frozen=True)
class Report:
    """What `report` returns. It prints as a table, shows as one in a notebook, and `to_dict` gives it to a logger.

    Attributes:
      rows: one mapping per parameter, in the order of the paths: path; weight_rms, gradient_rms, step_rms;
        ratio: step_rms / weight_rms; angle: between the weights before and after, in radians. Not a number where there
        is none: before the first observed update, and the angle of weights that are all zero. The row of a stack has
        the means over its matrices, and worst_ratio and worst_angle, the largest of them; that of a leaf that Muon
        turns has residual, the largest of its matrices, see `observe`.
      observed: number of the update that the rows describe, counted from 1; 0 before the first.
      warnings: one line for everything amiss, see `report`.
      skipped: updates that `skip_spikes` or `optax.apply_if_finite` skipped so far; None without either.
    """

    rows: list[dict[str, Any]]
    observed: int
    warnings: tuple[str, ...] = ()
    skipped: int | None = None

    def _titles(self) -> dict[str, str]:
        absent = [name for name in FURTHER if not any(name in row for row in self.rows)]
        return {name: title for name, title in _TITLES.items() if name not in absent}

    def _cells(self) -> list[dict[str, Any]]:
        marks = {name: _marks([row[name] for row in self.rows]) for name in QUANTITIES}
        return [
            {"path": row["path"]}
            | {name: f"{row[name]:.3g}{marks[name][i] or ' '}" for name in QUANTITIES}
            | {name: f"{row[name]:.3g} " if name in row else "" for name in FURTHER}
            for i, row in enumerate(self.rows)
        ]

    def _note(self) -> str:
        if not self.observed:
            return "no update observed yet"
        note = f"update {self.observed:,}; ^ largest, v smallest of its column, ! not finite; angles in radians"
        return "\n".join((note, *self.warnings))

    def __str__(self) -> str:
        titles = {name: title if name == "path" else f"{title} " for name, title in self._titles().items()}
        return f"{table.to_text(titles, self._cells(), right=(*QUANTITIES, *FURTHER))}\n{self._note()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [row | {"marked": "!" in "".join(row.values())} for row in self._cells()]
        lines = "<br>".join(map(html.escape, self._note().splitlines()))
        return table.to_html(self._titles(), rows, {}, "marked") + f"<div>{lines}</div>"

    def to_dict(self) -> dict[str, float]:
        """Return {"path/quantity": number} as loggers take them: five per parameter, and what else its row has."""
        return {
            f"{row['path']}/{name}": row[name] for row in self.rows for name in (*QUANTITIES, *FURTHER) if name in row
        }
