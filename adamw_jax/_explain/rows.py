"""The rows of the table of `explain`: values, rate, decay and half-life of each leaf, and its flags."""

import collections
import difflib
import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._explain.matches import matched_rules
from adamw_jax._optimizer.factors import Factors, largest_at
from adamw_jax._optimizer.plan import LeafPlan, Plan
from adamw_jax._optimizer.transferred import Transferred
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths


def _size_of(leaf: Any, plan: Plan) -> float | None:
    """Return the root mean square of a parameter that is an array, for the form whose half-life depends on it."""
    is_known = isinstance(leaf, (jax.Array, np.ndarray)) and not checks.is_traced(leaf) and leaf.size
    if not plan.form.needs_size or not is_known:
        return None
    return float(np.sqrt(np.mean(np.square(np.asarray(leaf, np.float32)))))


def _decay_rule(matched: str | None, leaf: LeafPlan, plan: Plan) -> str | None:
    """Return the rule that gave a decay; a function that gave 0 gave none."""
    is_zero = checks.equals(leaf.l1, 0) and checks.equals(leaf.l2, 0)
    return None if is_zero and callable(plan.weight_decay) else matched


def rows_of(
    plan: Plan,
    leaves: Sequence[LeafPlan],
    factors: Factors,
    counts: np.ndarray,
    shapes: chex.ArrayTree,
    arrays: Sequence[Any],
    updates_per_epoch: float | None,
) -> list[dict[str, Any]]:
    """Return a row per parameter, without the columns that depend on the state.

    Args:
      plan, leaves: the optimizer's options, and what they give to the parameters.
      factors: at counts among which each has its peak.
      counts: where schedules among the rules are evaluated, for their largest values.
      shapes, arrays: the parameters that it trains, as a tree of shapes and as leaves.
      updates_per_epoch: for timescales in epochs.
    """
    names = {leaf.direction for leaf in leaves}
    by_role = plan.factor.c.by_layer or getattr(plan.weight_decay, "label", None) == "matrices"
    rate = float(factors.rate.max())
    shares = {side: float(factors.decay(side).max()) for side in {leaf.normalized for leaf in leaves}}
    rate_rules = matched_rules("lr_multipliers", plan.lr_multipliers, shapes)
    decay_rules = matched_rules("weight_decay", plan.weight_decay, shapes)
    rows = []
    for leaf, array, rate_rule, decay_rule in zip(leaves, arrays, rate_rules, decay_rules, strict=True):
        given = {"multiplier": leaf.multiplier, "l1": leaf.l1, "l2": leaf.l2, "proximal_l1": leaf.threshold}
        values = {key: largest_at(value, counts) for key, value in given.items()}
        r = values["multiplier"] = 0.0 if leaf.frozen else values["multiplier"]
        scale = r if plan.factor.multipliers is not None else float(r > 0)
        share = shares[leaf.normalized] * scale * values["l2"]
        rows.append(
            {
                "path": leaf.path,
                "shape": leaf.shape,
                "dtype": str(leaf.dtype),
                "size": math.prod(leaf.shape),
                "role": leaf.role,
                "why": leaf.why if by_role and leaf.why.startswith(("name", "container")) else None,
                "direction": leaf.direction if len(names) > 1 else None,
                "frozen": leaf.frozen,
                "held": leaf.held,
                "norm": leaf.norm,
                "corrected": leaf.normalized,
                "rate_rule": "freeze" if leaf.frozen else rate_rule,
                "rate": rate * r,
                "decay_rule": _decay_rule(decay_rule, leaf, plan),
                **values,
                "decay": share,
                "half_life": plan.form.half_life(share, _size_of(array, plan)),
                "timescale": None if share == 0 or updates_per_epoch is None else 1 / (share * updates_per_epoch),
                "by_layer": tuple(key for key, value in given.items() if not callable(value) and np.ndim(value)),
                "moves": tuple(key for key, value in given.items() if callable(value)),
            }
        )
    return rows


def aliases_of(params: chex.ArrayTree) -> list[list[str]]:
    """Return for every leaf the paths of the leaves that are the same array."""
    paths, leaves = leaf_paths(params), jax.tree.leaves(params)
    owners = collections.defaultdict(list)
    for path, leaf in zip(paths, leaves, strict=True):
        owners[id(leaf)].append(path)
    return [
        [other for other in owners[id(leaf)] if other != path and isinstance(leaf, (jax.Array, np.ndarray))]
        for path, leaf in zip(paths, leaves, strict=True)
    ]


FEW = 14
"""A decay that halves a weight within so many updates is flagged."""


def flags_of(row: dict[str, Any], leaf: LeafPlan, aliases: list[str], updates: int | None) -> tuple[str, ...]:
    """Return why a row is to be looked at twice."""
    decays = row["l1"] > 0 or row["l2"] > 0 or row["proximal_l1"] > 0
    still = row["multiplier"] == 0 and "multiplier" not in row["moves"]
    finfo: Any = jnp.finfo
    resolution = float(finfo(leaf.dtype).eps) / 2 if jnp.issubdtype(leaf.dtype, jnp.floating) else 0.0
    is_vector = leaf.role not in ("matrix", "embedding", "head")
    half_life = math.inf if row["half_life"] is None else row["half_life"]
    found = {
        "a leaf of 0 or 1 axes is decayed": decays and len(row["shape"]) < 2 and not still,
        "a bias, scale or norm is decayed": decays and len(row["shape"]) >= 2 and is_vector and not still,
        "frozen but holds state: see freeze=": still and not row["frozen"] and row["state_bytes"] > 0,
        "multiplier of 0.001 or less: it multiplies the rate": 0 < row["multiplier"] <= 1e-3 and not row["moves"],
        "decay takes away more than the weight": row["decay"] > 1,
        f"decay halves the weight in {half_life:.2g} updates": half_life < FEW and row["decay"] <= 1,
        f"decay per update below the resolution of {row['dtype']}": 0 < row["decay"] < resolution,
        f"same array as {', '.join(aliases)}": bool(aliases),
    }
    if updates is not None and FEW <= half_life < math.inf:
        found["half-life below 1 % of the run"] = half_life < updates / 100
        found["half-life above the run"] = half_life > updates
    return tuple(text for text, holds in found.items() if holds)


def growth_factors(transferred: Transferred | None, path: str) -> dict[str, Any]:
    """Return the factors between a parameter's rate and l2 and those of the small run; None without a small run.

    Raises:
      TypeError, ValueError: something that `transfer` did not return, or that was for other parameters.
    """
    if transferred is None:
        return {"rate_factor": None, "decay_factor": None}
    if not isinstance(transferred, Transferred):
        raise TypeError(f"`transferred` must be what transfer(...) returned, got a {type(transferred).__name__}")
    found = {row["path"]: row for row in transferred.leaves}
    if path not in found:
        near = difflib.get_close_matches(path, found, n=1, cutoff=0.0)
        raise ValueError(
            f"`transferred` must be of the parameters that are explained, got none at {path!r}; the nearest is "
            f"{near[0] if near else None!r}"
        )
    return {key: found[path][key] for key in ("rate_factor", "decay_factor")}
