"""What `observe` saw, as rows, as a table, and as numbers for a logger."""

import dataclasses
import html
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from adamw_jax._explain.health import health_of, skipped_updates
from adamw_jax._optimizer.observe import ObserveState
from adamw_jax._tree import checks, table
from adamw_jax._tree.state import state_in, value_of

QUANTITIES = ("weight_rms", "gradient_rms", "step_rms", "ratio", "angle")
"""The numbers in a row."""

WORST = ("worst_ratio", "worst_angle")
"""Further numbers in the row of a stack."""

_TITLES = {"path": "parameter"} | {
    name: name.replace("_rms", " rms").replace("_", " ") for name in (*QUANTITIES, *WORST)
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
        the means over its matrices, and worst_ratio and worst_angle, the largest of them.
      observed: number of the update that the rows describe, counted from 1; 0 before the first.
      warnings: one line for everything amiss, see `report`.
      skipped: updates that `skip_spikes` or `optax.apply_if_finite` skipped so far; None without either.
    """

    rows: list[dict[str, Any]]
    observed: int
    warnings: tuple[str, ...] = ()
    skipped: int | None = None

    def _titles(self) -> dict[str, str]:
        has_stacks = any(name in row for row in self.rows for name in WORST)
        return {name: title for name, title in _TITLES.items() if has_stacks or name not in WORST}

    def _cells(self) -> list[dict[str, Any]]:
        marks = {name: _marks([row[name] for row in self.rows]) for name in QUANTITIES}
        return [
            {"path": row["path"]}
            | {name: f"{row[name]:.3g}{marks[name][i] or ' '}" for name in QUANTITIES}
            | {name: f"{row[name]:.3g} " if name in row else "" for name in WORST}
            for i, row in enumerate(self.rows)
        ]

    def _note(self) -> str:
        if not self.observed:
            return "no update observed yet"
        note = f"update {self.observed:,}; ^ largest, v smallest of its column, ! not finite; angles in radians"
        return "\n".join((note, *self.warnings))

    def __str__(self) -> str:
        titles = {name: title if name == "path" else f"{title} " for name, title in self._titles().items()}
        return f"{table.to_text(titles, self._cells(), right=(*QUANTITIES, *WORST))}\n{self._note()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [row | {"marked": "!" in "".join(row.values())} for row in self._cells()]
        lines = "<br>".join(map(html.escape, self._note().splitlines()))
        return table.to_html(self._titles(), rows, {}, "marked") + f"<div>{lines}</div>"

    def to_dict(self) -> dict[str, float]:
        """Return {"path/quantity": number}, five per parameter and seven per stack, as loggers take them."""
        return {
            f"{row['path']}/{name}": row[name] for row in self.rows for name in (*QUANTITIES, *WORST) if name in row
        }


def _numbers(weight: float, gradient: float, step: float, angle: float) -> list[float]:
    ratio = step / weight if weight else (math.inf if step else math.nan)
    return [weight, gradient, step, ratio, math.nan if weight == 0 else angle]


def _in_order(path: str) -> list[Any]:
    """Return what sorts paths as their leaves are in a tree: "layers/2" before "layers/10"."""
    return [[int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)] for name in path.split("/")]


def _all_observed(state: Any) -> list[ObserveState]:
    def is_observe(node: Any) -> bool:
        return isinstance(node, ObserveState)

    found = [node for node in jax.tree.leaves(state, is_leaf=is_observe) if is_observe(node)]
    return found + [below for node in found for below in _all_observed(node.inner_state)]


def _observed(state: optax.OptState) -> ObserveState:
    found = _all_observed(state)
    if not found:
        raise ValueError(f"`state` must contain an ObserveState, got {type(state).__name__} without one: use `observe`")
    if len(found) > 1:
        raise ValueError(f"`state` must contain one ObserveState, got {len(found)}")
    return found[0]


def report(state: optax.OptState, *, updates: int | None = None, explained: Any = None) -> Report:
    """Read what `observe` saw of the latest update that was a multiple of its `every`, and say what is amiss.

    The report has a line of warning for

    - a leaf whose step is not finite;
    - a leaf whose ratio of step to weight is more than ten times the median of the others (biases aside);
    - with `updates`, and from a fifth of the run on: a leaf whose norm doubles within the updates that are left, at its
      pace since a quarter to a half of the updates made, if that pace is more than ten times the others';
    - with `explained`: a leaf that turns by less than half or more than twice of the predicted angle, once its decay
      times the updates made is above 2;
    - updates that `skip_spikes` or `optax.apply_if_finite` skipped, at any depth of wrappers.

    Args:
      state: any optimizer state that contains an `ObserveState`, at any depth, or a Keras optimizer or model that holds
        one; of one run, and with known numbers.
      updates: length of the run.
      explained: `explain(tx, params, scale_invariant=...)` of the optimizer, whose column `turn` has the angles.

    Returns:
      A `Report` with one mapping per parameter in `rows` and the lines in `warnings`, which prints as an aligned table
      with the extremes marked.

    Raises:
      ValueError: no `ObserveState` in the state, several, or one of several runs; `updates` below those made.

    >>> import jax.numpy as jnp
    >>> from adamw_jax._optimizer.observe import observe
    >>> tx = observe(optax.sgd(0.1))
    >>> params = {"b": jnp.array([1.0, 1.0]), "w": jnp.array([3.0, 4.0])}
    >>> _, state = tx.update({"b": jnp.array([0.0, 0.0]), "w": jnp.array([4.0, -3.0])}, tx.init(params), params)
    >>> print(report(state))
    parameter  weight rms   gradient rms   step rms   ratio    angle
    -----------------------------------------------------------------
    b                   1v             0v         0v      0v       0v
    w                3.54^          3.54^     0.354^    0.1^  0.0997^
    update 1; ^ largest, v smallest of its column, ! not finite; angles in radians
    """
    state = state_in(state)
    node = _observed(state)
    if np.ndim(node.count) > 0:
        raise ValueError(f"`state` must be that of one run, got {np.size(node.count)} of them")
    observed = int(node.observed)
    fields = jax.device_get([node.weight_rms, node.gradient_rms, node.step_rms, node.angle])
    rows = []
    for path in sorted(fields[0], key=_in_order) if isinstance(fields[0], Mapping) else ():
        every = np.stack([np.ravel(value_of(field[path])) for field in fields], axis=1).astype(float)
        each = [_numbers(*numbers) if observed else [math.nan] * 5 for numbers in every]
        means, worst = np.mean(each, axis=0).tolist(), np.max(each, axis=0).tolist()
        row = dict(zip(("path", *QUANTITIES), (path, *means), strict=True))
        rows.append(row | (dict(zip(WORST, worst[3:], strict=True)) if np.ndim(value_of(fields[0][path])) else {}))
    if updates is not None and checks.check_count("updates", updates) < node.count:
        raise ValueError(f"`updates` must be the length of the run, at least the {node.count} made, got {updates}")
    return Report(rows, observed, health_of(rows, node, state, updates, explained), skipped_updates(state))
