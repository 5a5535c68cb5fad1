"""The rows of the table: what each parameter gets from the rules, and what that amounts to."""

import collections
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._decay.decay import decays_of
from adamw_jax._decay.forms import Huber
from adamw_jax._decay.proximal import thresholds_of
from adamw_jax._direction.by_path import names_of
from adamw_jax._explain.matches import matched_rules
from adamw_jax._explain.peaks import Factors, values_of
from adamw_jax._optimizer.plan import Plan
from adamw_jax._rules.freezing import frozen_flags
from adamw_jax._rules.leaf import is_matrix
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths


def _largest(value: Any, counts: np.ndarray) -> float:
    """Return a rule's value, for a schedule its largest at some counts."""
    return float(values_of(value, counts).max()) if checks.is_schedule(value) else float(value)


def _sizes(plan: Plan, params: chex.ArrayTree) -> list[float | None]:
    """Return the root mean squares of parameters that are arrays, for the form whose half-life depends on them."""
    leaves = jax.tree.leaves(params)
    if not isinstance(plan.form, Huber):
        return [None] * len(leaves)
    known = [isinstance(leaf, (jax.Array, np.ndarray)) and not checks.is_traced(leaf) for leaf in leaves]
    return [
        float(np.sqrt(np.mean(np.square(np.asarray(leaf, np.float32))))) if is_known and leaf.size else None
        for leaf, is_known in zip(leaves, known, strict=True)
    ]


def rows_of(
    plan: Plan,
    factors: Factors,
    counts: np.ndarray,
    params: chex.ArrayTree,
    shapes: chex.ArrayTree,
    updates_per_epoch: float | None,
) -> list[dict[str, Any]]:
    """Return a row per parameter, without what is known of the whole state.

    Args:
      plan: the optimizer's options.
      factors: alpha, eta and period that the numbers are for.
      counts: where schedules among the rules are evaluated; of several values the largest counts.
      params: the parameters or their shapes.
      shapes: their shapes.
      updates_per_epoch: for timescales in epochs.
    """
    multipliers, decays = multipliers_of(plan.lr_multipliers, shapes), decays_of(plan.weight_decay, shapes)
    columns: dict[str, Any] = {
        "frozen": frozen_flags(plan.freeze, shapes),
        "corrected": plan.factor.flags(shapes),
        "rate_rule": matched_rules("lr_multipliers", plan.lr_multipliers, shapes),
        "decay_rule": matched_rules("weight_decay", plan.weight_decay, shapes),
        "direction": names_of(plan.direction, shapes),
        "size": _sizes(plan, params),
    }
    if len(set(columns["direction"])) == 1:
        columns["direction"] = [None] * len(multipliers)
    thresholds = thresholds_of(plan.proximal_l1, shapes)
    sides = (False, True) if plan.factor.c.by_layer else (False,)
    share_of = {side: float(plan.factor.of(**factors._asdict(), normalized=side)) for side in sides}
    rows = []
    for i, (path, leaf) in enumerate(zip(leaf_paths(shapes), jax.tree.leaves(shapes), strict=True)):
        given = {"multiplier": multipliers[i], "l1": decays[i][0], "l2": decays[i][1], "proximal_l1": thresholds[i]}
        values = {key: _largest(value, counts) for key, value in given.items()}
        r = values["multiplier"] = 0.0 if columns["frozen"][i] else values["multiplier"]
        scale = r if plan.factor.multipliers is not None else float(r > 0)
        share = share_of[columns["corrected"][i]] * scale * values["l2"]
        rows.append(
            {
                "path": path,
                "shape": tuple(leaf.shape),
                "dtype": str(leaf.dtype),
                "size": math.prod(leaf.shape),
                "direction": columns["direction"][i],
                "frozen": columns["frozen"][i],
                "corrected": columns["corrected"][i],
                "rate_rule": "freeze" if columns["frozen"][i] else columns["rate_rule"][i],
                "multiplier": r,
                "rate": factors.alpha * factors.eta * r,
                "decay_rule": columns["decay_rule"][i],
                "l1": values["l1"],
                "proximal_l1": values["proximal_l1"],
                "l2": values["l2"],
                "decay": share,
                "half_life": plan.form.half_life(share, columns["size"][i]),
                "timescale": None if share == 0 or updates_per_epoch is None else 1 / (share * updates_per_epoch),
                "moves": tuple(key for key, value in given.items() if checks.is_schedule(value)),
            }
        )
    return rows


def aliases_of(params: chex.ArrayTree) -> list[list[str]]:
    """Return for every leaf the paths of the leaves that are the same array."""
    paths, leaves = leaf_paths(params), jax.tree.leaves(params)
    owners = collections.defaultdict(list)
    for path, leaf in zip(paths, leaves, strict=True):
        owners[id(leaf)].append(path)
    concrete = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]
    return [
        [other for other in owners[id(leaf)] if other != path] if is_array else []
        for path, leaf, is_array in zip(paths, leaves, concrete, strict=True)
    ]


def flags_of(row: dict[str, Any], leaf: Any, aliases: list[str]) -> tuple[str, ...]:
    """Return where a row is to be looked at twice."""
    decays = row["l1"] > 0 or row["l2"] > 0 or row["proximal_l1"] > 0
    still = row["multiplier"] == 0 and "multiplier" not in row["moves"]
    finfo: Any = jnp.finfo
    resolution = float(finfo(leaf.dtype).eps) / 2 if jnp.issubdtype(leaf.dtype, jnp.floating) else 0.0
    found = {
        "a leaf of 0 or 1 axes is decayed": decays and len(row["shape"]) < 2 and not still,
        "a bias, scale or norm is decayed": decays
        and len(row["shape"]) >= 2
        and not is_matrix(row["path"], leaf)
        and not still,
        "frozen but holds state: see freeze=": still and not row["frozen"] and row["state_bytes"] > 0,
        "decay takes away more than the weight": row["decay"] > 1,
        f"decay per update below the resolution of {row['dtype']}": 0 < row["decay"] < resolution,
        f"same array as {', '.join(aliases)}": bool(aliases),
    }
    return tuple(text for text, holds in found.items() if holds)
