"""The table of what every parameter gets: as text, as HTML, as plain values."""

import dataclasses
import html
from typing import Any

from adamw_jax._explain.difference import Difference, difference
from adamw_jax._optimizer.plan import LeafPlan, Plan
from adamw_jax._tree import table

COLUMNS = {
    "path": "parameter",
    "shape": "shape",
    "dtype": "dtype",
    "size": "size",
    "direction": "direction",
    "why": "by",
    "held": "held",
    "norm": "norm",
    "rate_rule": "rate rule",
    "multiplier": "r",
    "rate": "rate",
    "rate_factor": "rate x",
    "decay_rule": "decay rule",
    "l1": "l1",
    "proximal_l1": "prox l1",
    "l2": "l2",
    "decay_factor": "l2 x",
    "decay": "decay/update",
    "half_life": "half-life",
    "timescale": "epochs",
    "scale_invariant": "invariant",
    "turn": "turn/update",
    "moves": "moves",
    "by_layer": "by layer",
    "whole": "whole",
    "moved": "bytes moved",
    "operations": "operations",
    "state_bytes": "state bytes",
    "flags": "look twice",
}
"""Key in `to_dict()` -> title. The text leaves out a column of usual values, other than those of `_ALWAYS`."""

_ALWAYS = ("path", "shape", "dtype", "size", "rate", "decay_rule", "l2", "decay", "half_life", "state_bytes")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` returns. It prints as a table, shows as one in a notebook, and `to_dict` gives it to a log.

    Attributes:
      rows: one mapping per parameter, in the order of `jax.tree.leaves`. Each number is its largest of the run, or the
        one at the count `at`.
        path, shape, dtype, size, role (matrix, embedding, head, bias, scale, norm, vector or scalar);
        why: the part of the name that decided about the role, where `matrices` or a corrected coupling asked for it;
        direction: its name, None where all leaves have one;
        frozen: by `freeze`, without moments; held: at its norm; norm: its rule, such as "brake 0.5 per matrix";
        rate_rule, multiplier, rate: the pattern (or kind of rule) that gave r, and alpha eta r;
        decay_rule, l1, proximal_l1, l2: the pattern that gave the decay, and the decays;
        corrected: whether it decays by the corrected coupling; decay: share of the weight that l2 takes in an update;
        half_life: updates that halve a weight, by the decay's form; timescale: 1 / decay in epochs, None if unknown;
        rate_factor, decay_factor: of `transferred`, by which rate and l2 differ from the small run's;
        scale_invariant: as given to `explain`; turn: the angle in radians by which an update turns a scale-invariant
        parameter in equilibrium, sqrt(2 decay (1 - b1) / (1 + b1)) for AdamW whatever the rate. It is None where it is
        not known: without a plain l2 or a held norm; with an l1; for dtypes narrower than float32, where rounding
        turns, too; for a direction of optax's, and for Muon;
        moves: which values are schedules; by_layer: which differ along a stack of layers, of which the largest counts;
        whole, moved, operations: of leaves that Muon orthogonalizes on a `mesh`: where matrices are whole, "owned" or
        "gather", and per chip and update the bytes that collectives return and the iteration's operations;
        state_bytes: of the trees in the state; flags: where to look twice.
      totals: number of parameters and elements, bytes of the state (and of it in scalars), decayed and frozen elements,
        and the paths of parameters outside of the optimizer, which a mask around it leaves out.
      peaks: learning rate, eta, and normalization n, what multiplies the decay, its form, and `at`, the count or None.
      warnings: about the rules.
      plan: the optimizer's options.
      leaves: what they give to each parameter, as numbers and schedules.
    """

    rows: list[dict[str, Any]]
    totals: dict[str, Any]
    peaks: dict[str, Any]
    warnings: list[str]
    plan: Plan = dataclasses.field(repr=False, compare=False)
    leaves: list[LeafPlan] = dataclasses.field(repr=False, compare=False)

    def _columns(self) -> dict[str, str]:
        def says_something(key: str) -> bool:
            usual = 1.0 if key == "multiplier" else 0.0
            values = [row[key] for row in self.rows]
            return any(x is not None and x is not False and x not in ((), usual) for x in values)

        return {key: title for key, title in COLUMNS.items() if key in _ALWAYS or says_something(key)}

    def _last(self) -> dict[str, Any]:
        total = {key: self.totals[key] for key in ("size", "state_bytes")}
        return {"path": f"{self.totals['parameters']:,} parameters", **total}

    def _notes(self) -> list[str]:
        peaks = {key: table.format_cell(value) for key, value in self.peaks.items()}
        has_turns = "turn" in self._columns()
        return [
            ("at the peak" if self.peaks["at"] is None else "at count {at}").format(**peaks)
            + ": learning rate {learning_rate}, eta {eta}; coupling {coupling!r}, decay times {norm}, "
            "{decay_form}".format(**peaks),
            f"decayed: {self.totals['decayed']:,} of {self.totals['size']:,}; frozen: {self.totals['frozen']:,}; "
            f"{self.totals['scalar_bytes']:,} of the state's bytes are scalars",
            *([f"not trained by it: {', '.join(self.totals['outside'])}"] if self.totals["outside"] else []),
            *(["turn/update: radians, in equilibrium: after about 1 / (decay/update) updates"] if has_turns else []),
            *(f"warning: {text}" for text in self.warnings),
        ]

    def __str__(self) -> str:
        return "\n".join([table.to_text(self._columns(), self.rows, self._last()), *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self._notes())
        return table.to_html(self._columns(), self.rows, self._last(), "flags") + notes

    def diff(self, old: "Explanation") -> Difference:
        """Return what changed for each parameter and for all: to be looked at before a run is resumed.

        Everything that the plans hold is compared; functions at counts up to 100,000. What cannot be compared, the
        arguments of another package's direction, is named.

        Args:
          old: what the parameters got before.

        Raises:
          ValueError: the tables are not of the same parameters; it lists which differ.
        """
        return difference(self, old)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries, lists, strings and numbers, as JSON has them."""
        rows = [{key: table.plain(value) for key, value in row.items()} for row in self.rows]
        return {"rows": rows, "totals": self.totals, "peaks": self.peaks, "warnings": self.warnings}
