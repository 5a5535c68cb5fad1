"""The warnings of `report`: leaves that grow, steps that are too large or poorly orthogonalized, skipped updates."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from adamw_jax._optimizer.observe import ObserveState
from adamw_jax._optimizer.spikes import SkipSpikesState
from adamw_jax._rules.names import role_of
from adamw_jax._tree.state import nodes_of, value_of

TIMES = 10.0
"""A leaf is warned of from this multiple of the others' ratio, or pace of growth, on."""

EARLY = 0.2
"""Share of the run before which growth is not judged: early, every weight moves away from its start."""

SCATTERED = 0.5
"""Residual of an orthogonalization above which it is poor: five steps of Muon's usual iteration stay below 0.4."""

SETTLED = 2.0
"""Decay times updates from which on steps and decay are in balance."""


def skipped_updates(state: optax.OptState) -> int | None:
    """Return the updates that `skip_spikes` and `optax.apply_if_finite` skipped, at any depth; None without either."""
    spikes = [node.skipped for node in nodes_of(state, SkipSpikesState)]
    other = [leaf for _, leaf in optax.tree.get_all_with_path(state, "total_notfinite")]
    found = [int(value_of(leaf)) for leaf in spikes + other]
    return sum(found) if found else None


def _is_bias(path: str) -> bool:
    return role_of(path, 2)[0] == "bias"


def _others(values: Mapping[str, float], path: str) -> float:
    """Return the median over the other leaves; 0 where there are none."""
    rest = [value for name, value in values.items() if name != path and math.isfinite(value)]
    return statistics.median(rest) if rest else 0.0


def _growth(rows: Sequence[Mapping[str, Any]], node: ObserveState, observed: int, updates: int) -> list[str]:
    past_at, past = int(value_of(node.past)), jax.device_get(node.past_rms)
    if past_at == 0 or observed < EARLY * updates:
        return []
    paces = {}
    for row in rows:
        before, now = float(np.mean(value_of(past[row["path"]]))), row["weight_rms"]
        # A bias grows from zero in every training.
        if before > 0 and math.isfinite(now) and not _is_bias(row["path"]):
            paces[row["path"]] = (now - before) / (observed - past_at) / now
    # The growth of every training slows down: a pace that falls as 1 / sqrt(t) adds up to this many updates of it.
    left = 2 * observed * (math.sqrt(updates / observed) - 1)
    return [
        f"{path}: the norm doubles in the {updates - observed:,} updates left at its pace since update {past_at:,}, "
        f"{TIMES:g} times that of the others: give it a decay, or hold its norm"
        for path, pace in paces.items()
        if pace * left >= 1 and pace > TIMES * max(_others(paces, path), 0.0)
    ]


def _ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ratios = {row["path"]: row["ratio"] for row in rows if row["weight_rms"] > 0 and not _is_bias(row["path"])}
    return [
        f"{path}: the ratio {ratio:.3g} is more than {TIMES:g} times the others' {_others(ratios, path):.3g}: "
        "its rate is off, see lr_multipliers"
        for path, ratio in ratios.items()
        if len(ratios) > 2 and ratio > TIMES * _others(ratios, path) > 0
    ]


def _residuals(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['path']}: the residual of the orthogonalization is {row['residual']:.2g}, which is poor above "
        f"{SCATTERED:g}: give Muon more steps or other coefficients, see orthogonalize"
        for row in rows
        if row.get("residual", 0.0) > SCATTERED
    ]


def _angles(rows: Sequence[Mapping[str, Any]], observed: int, explained: Any) -> list[str]:
    told = {row["path"]: row for row in explained.rows}
    found = []
    for row in rows:
        its = told.get(row["path"], {})
        turn = its.get("turn")
        settled = (its.get("decay") or 0.0) * observed >= SETTLED
        if turn and settled and math.isfinite(row["angle"]) and not turn / 2 <= row["angle"] <= 2 * turn:
            found.append(
                f"{row['path']}: an update turns it by {row['angle']:.3g}, and explain predicts {turn:.3g} in balance: "
                "its length counts, or it has not settled"
            )
    return found


def health_of(
    rows: Sequence[Mapping[str, Any]], node: ObserveState, state: Any, updates: int | None, explained: Any
) -> tuple[str, ...]:
    """Return the lines of warning of a report.

    Args:
      rows: of the report.
      node, state: the observed quantities, and the state that holds them.
      updates: of the run; None judges no growth.
      explained: an `Explanation` of the optimizer with `scale_invariant`; None judges no angle.
    """
    observed, lines = int(node.observed), []
    if observed:
        lines = [f"{row['path']}: a number is not finite" for row in rows if not math.isfinite(row["step_rms"])]
        lines += _ratios(rows) + _residuals(rows)
    lines += _growth(rows, node, observed, updates) if updates is not None else []
    lines += _angles(rows, observed, explained) if explained is not None else []
    skipped = skipped_updates(state)
    return (*lines, *([f"{skipped:,} of {int(node.count):,} updates skipped"] if skipped else []))
