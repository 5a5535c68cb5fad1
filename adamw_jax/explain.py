"""What every parameter gets, as a table, before training."""

import collections
import math
import warnings
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import checks
from adamw_jax.explaining.explanation import Explanation
from adamw_jax.explaining.matches import matched_rules, patterns_of, shadowed_patterns
from adamw_jax.explaining.memory import abstract, state_bytes_of
from adamw_jax.explaining.peaks import Peaks, peaks_of
from adamw_jax.paths import check_decay, check_multiplier, leaf_paths, resolve_mask, resolve_rules
from adamw_jax.stages import Preset, Stages
from adamw_jax.transforms.decay_forms import decay_form


def _flags(row: dict[str, Any], aliases: list[str]) -> tuple[str, ...]:
    finfo: Any = jnp.finfo
    decays = row["l1"] > 0 or row["l2"] > 0 or row["proximal_l1"] > 0
    still = row["multiplier"] == 0
    found = {
        "a leaf of 0 or 1 axes is decayed": decays and len(row["shape"]) < 2 and not still,
        "frozen but holds state: see freeze=": still and not row["frozen"] and row["state_bytes"] > 0,
        "decay takes away more than the weight": row["decay"] > 1,
        f"decay per update below the resolution of {row['dtype']}": 0
        < row["decay"]
        < float(finfo(row["dtype"]).eps) / 2,
        f"same array as {', '.join(aliases)}": bool(aliases),
    }
    return tuple(text for text, holds in found.items() if holds)


def _aliases(params: chex.ArrayTree) -> list[list[str]]:
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


def _rows(
    stages: Stages, peaks: Peaks, params: chex.ArrayTree, state_bytes: list[int], updates_per_epoch: float | None
) -> list[dict[str, Any]]:
    count: int = len(state_bytes)
    decays: Any = resolve_rules("weight_decay", stages.weight_decay, params, check_decay, (0.0, 0.0))
    thresholds: Any = [0.0] * count
    if stages.proximal_l1 is not None:
        thresholds = resolve_rules("proximal_l1", stages.proximal_l1, params, check_multiplier, 0.0)
    rates: Any = [1.0] * count
    if stages.lr_multipliers is not None:
        rates = resolve_rules("lr_multipliers", stages.lr_multipliers, params, check_multiplier, 1.0)
    frozen = [False] * count if stages.frozen is None else resolve_mask("freeze", stages.frozen, params)
    corrected = [False] * count if stages.corrected is None else stages.corrected.flags(params)
    rate_rules = matched_rules("lr_multipliers", stages.lr_multipliers, params)
    decay_rules = matched_rules("weight_decay", stages.weight_decay, params)
    rows = []
    for i, (path, leaf) in enumerate(zip(leaf_paths(params), jax.tree.leaves(params), strict=True)):
        r = 0.0 if frozen[i] else float(rates[i])
        l1, l2 = map(float, decays[i])
        factor = peaks.norm * (peaks.corrected_factor if corrected[i] else peaks.decay_factor)
        factor *= r if stages.multiplier_scales_decay else float(r > 0)
        share = factor * l2
        row = {
            "path": path,
            "shape": tuple(leaf.shape),
            "dtype": str(jnp.dtype(leaf.dtype)),
            "size": math.prod(leaf.shape),
            "frozen": frozen[i],
            "corrected": corrected[i],
            "rate_rule": "freeze" if frozen[i] else rate_rules[i],
            "multiplier": r,
            "rate": peaks.rate * r,
            "decay_rule": decay_rules[i],
            "l1": l1,
            "proximal_l1": float(thresholds[i]),
            "l2": l2,
            "decay": share,
            "half_life": None if share == 0 else 0.0 if share >= 1 else math.log(0.5) / math.log1p(-share),
            "timescale": None if share == 0 or updates_per_epoch is None else 1 / (share * updates_per_epoch),
            "state_bytes": state_bytes[i],
        }
        rows.append(row)
    return rows


def _warnings(stages: Stages, params: chex.ArrayTree) -> list[str]:
    paths = leaf_paths(params)
    texts = []
    for name in ("weight_decay", "lr_multipliers", "proximal_l1"):
        patterns = patterns_of(getattr(stages, name), params)
        for pattern, owner in shadowed_patterns(name, patterns or (), paths):
            texts.append(f"`{name}`: the pattern {pattern!r} decides nothing, for {owner!r} comes before it")
    for path, times in collections.Counter(paths).items():
        if times > 1:
            texts.append(f"{times} parameters have the path {path!r}: rules by name cannot tell them apart")
    return texts


def explain(
    tx: optax.GradientTransformation | Callable[..., optax.GradientTransformation],
    params: chex.ArrayTree,
    *,
    updates: int | None = None,
    updates_per_epoch: float | None = None,
    **arguments: Any,
) -> Explanation:
    """Tell what every parameter will get, from shapes alone: nothing is allocated.

    Args:
      tx: what a preset returned; or the preset itself, with its `arguments`.
      params: the parameters, or their shapes (`jax.eval_shape`, `jax.ShapeDtypeStruct`).
      updates: length of the run, to find the peak of a schedule that is a plain function; the first 100,000 if None.
      updates_per_epoch: to tell timescales in epochs.
      arguments: of the preset.

    Returns:
      A table, see `Explanation`.

    Raises:
      TypeError: no preset; a leaf that is no array; ValueError, TypeError: as the preset's `init`.

    Warns:
      UserWarning: a pattern that decides nothing because an earlier one takes all its paths; a path that several
        parameters have.

    >>> from adamw_jax.presets import adamw
    >>> params = {"kernel": jax.ShapeDtypeStruct((8, 4), jnp.float32), "bias": jax.ShapeDtypeStruct((4,), jnp.float32)}
    >>> print(explain(adamw, params, learning_rate=0.001, weight_decay={"kernel": 0.0001}))
    parameter     shape  dtype    size   rate  decay rule      l2  decay/update  half-life  state bytes
    ---------------------------------------------------------------------------------------------------
    bias          4      float32     4  0.001  -                0             0          -           32
    kernel        8x4    float32    32  0.001  kernel      0.0001        0.0001   6.93e+03          256
    ---------------------------------------------------------------------------------------------------
    2 parameters                    36                                                              300
    at the peak: learning rate 0.001, eta 1; coupling 'schedule', decay times 1, add_decoupled_decay
    decayed: 32 of 36; frozen: 0; 12 of the state's bytes are scalars
    """
    if not isinstance(tx, optax.GradientTransformation):
        tx = tx(**arguments)
    elif arguments:
        raise TypeError(f"`tx` must be a preset, not what it returned, to take arguments, got {sorted(arguments)}")
    if not isinstance(tx, Preset):
        raise TypeError(f"`tx` must come from a preset (of a chain, explain the preset in it), got {type(tx).__name__}")
    if updates_per_epoch is not None:
        checks.check_number("updates_per_epoch", updates_per_epoch, low=0, open_low=True)
    shapes, stages = abstract(params), tx.stages
    state_bytes, scalar_bytes = state_bytes_of(jax.eval_shape(tx.init, shapes), shapes)
    peaks = peaks_of(stages, updates)
    rows = _rows(stages, peaks, shapes, state_bytes, updates_per_epoch)
    for row, aliases in zip(rows, _aliases(params), strict=True):
        row["flags"] = _flags(row, aliases)
    texts = _warnings(stages, shapes)
    for text in texts:
        warnings.warn(text, stacklevel=2)
    totals = {
        "parameters": len(rows),
        "size": sum(row["size"] for row in rows),
        "state_bytes": sum(state_bytes) + scalar_bytes,
        "scalar_bytes": scalar_bytes,
        "decayed": sum(
            row["size"] for row in rows if (row["l1"] or row["l2"] or row["proximal_l1"]) and row["multiplier"]
        ),
        "frozen": sum(row["size"] for row in rows if row["multiplier"] == 0),
    }
    coupling = stages.coupling if isinstance(stages.coupling, str) else "corrected"
    stage = decay_form(stages.decay_form).stage
    summary = {
        "learning_rate": peaks.rate / peaks.eta if peaks.eta else peaks.rate,
        "eta": peaks.eta,
        "coupling": coupling,
        "norm": peaks.norm,
        "decay_stage": getattr(stage, "__name__", str(stage)),
    }
    return Explanation(rows, totals, summary, texts)
