"""The table of what every parameter gets: as text, as HTML, as plain values."""

import dataclasses
import html
from typing import Any

from adamw_jax.explaining import table

COLUMNS = {
    "path": "parameter",
    "shape": "shape",
    "dtype": "dtype",
    "size": "size",
    "rate_rule": "rate rule",
    "multiplier": "r",
    "rate": "rate",
    "decay_rule": "decay rule",
    "l1": "l1",
    "proximal_l1": "prox l1",
    "l2": "l2",
    "decay": "decay/update",
    "half_life": "half-life",
    "timescale": "epochs",
    "state_bytes": "state bytes",
    "flags": "look twice",
}
"""Key in `to_dict()` -> title. Columns that say nothing are left out of the text: see `Explanation`."""

_OPTIONAL = ("rate_rule", "multiplier", "l1", "proximal_l1", "timescale", "flags")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` returns. It prints as a table, shows as one in a notebook, and `to_dict` gives it to a log.

    Attributes:
      rows: one mapping per parameter, in the order of `jax.tree.leaves`:
        path, shape, dtype, size; frozen: by `freeze`, without moments; corrected: decays by the corrected coupling;
        rate_rule, multiplier, rate: the pattern (or kind of rule) that gave r, and alpha eta r at the peak;
        decay_rule, l1, proximal_l1, l2: the pattern that gave the decay, and the decays;
        decay: share of the weight that l2 takes away in an update at the peak;
        half_life: updates at the peak that halve a weight; timescale: 1 / decay in epochs, None if unknown;
        state_bytes: of the trees in the state; flags: where to look twice.
      totals: number of parameters and elements, bytes of the state (and of it in scalars), decayed and frozen elements.
      peaks: learning rate, eta, and normalization n at the peak, and what multiplies the decay.
      warnings: about the rules.
    """

    rows: list[dict[str, Any]]
    totals: dict[str, Any]
    peaks: dict[str, Any]
    warnings: list[str]

    def _columns(self) -> dict[str, str]:
        def says_something(key: str) -> bool:
            usual = 1.0 if key == "multiplier" else 0.0
            return any(row[key] not in (None, (), usual) for row in self.rows)

        return {key: title for key, title in COLUMNS.items() if key not in _OPTIONAL or says_something(key)}

    def _last(self) -> dict[str, Any]:
        total = {key: self.totals[key] for key in ("size", "state_bytes")}
        return {"path": f"{self.totals['parameters']:,} parameters", **total}

    def _notes(self) -> list[str]:
        peaks = {key: table.format_cell(value) for key, value in self.peaks.items()}
        return [
            "at the peak: learning rate {learning_rate}, eta {eta}; coupling {coupling!r}, decay times {norm}, "
            "{decay_stage}".format(**peaks),
            f"decayed: {self.totals['decayed']:,} of {self.totals['size']:,}; frozen: {self.totals['frozen']:,}; "
            f"{self.totals['scalar_bytes']:,} of the state's bytes are scalars",
            *(f"warning: {text}" for text in self.warnings),
        ]

    def __str__(self) -> str:
        return "\n".join([table.to_text(self._columns(), self.rows, self._last()), *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self._notes())
        return table.to_html(self._columns(), self.rows, self._last(), "flags") + notes

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries, lists, strings and numbers, as JSON has them."""
        rows = [{key: list(v) if isinstance(v, tuple) else v for key, v in row.items()} for row in self.rows]
        return {"rows": rows, "totals": self.totals, "peaks": self.peaks, "warnings": self.warnings}
