"""What every parameter gets, as a table, before training."""

import warnings
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import optax

from adamw_jax._explain.explanation import Explanation
from adamw_jax._explain.matches import plan_warnings, rule_warnings
from adamw_jax._explain.memory import abstract, state_bytes_of
from adamw_jax._explain.rows import aliases_of, flags_of, rows_of
from adamw_jax._explain.turns import turn_of
from adamw_jax._optimizer.factors import counts_of
from adamw_jax._optimizer.optimizer import plan_of
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Mask


def explain(
    tx: optax.GradientTransformation | Callable[..., optax.GradientTransformation],
    params: chex.ArrayTree,
    *,
    updates: int | None = None,
    updates_per_epoch: float | None = None,
    at: int | None = None,
    scale_invariant: Mask | None = None,
    **arguments: Any,
) -> Explanation:
    """Return what every parameter will get, from shapes alone: nothing is allocated.

    Args:
      tx: what `decoupled` or a preset returned; or that function itself, with its `arguments`.
      params: the parameters, or their shapes (`jax.eval_shape`, `jax.ShapeDtypeStruct`).
      updates: length of the run, to find the peak of a schedule that is a plain function; the first 100,000 if None.
      updates_per_epoch: to tell timescales in epochs.
      at: tell what the update that `at` updates precede does; None tells the peaks.
      scale_invariant: which leaves' lengths the loss ignores, as a mask by paths or as `scale_invariant` returns it, to
        be shown in a column, and with it the angle by which an update turns them in equilibrium, where it is known.
      arguments: of the preset.

    Returns:
      A table, see `Explanation`.

    Raises:
      TypeError: no preset; a leaf that is no array; ValueError, TypeError: as the preset's `init`; a count `at` that is
        outside the run.

    Warns:
      UserWarning: a pattern that decides nothing because an earlier one takes all its paths, or one that meets another
        number than it reads like; a path that several parameters have.

    >>> import jax.numpy as jnp
    >>> from adamw_jax._optimizer.presets import adamw
    >>> params = {"kernel": jax.ShapeDtypeStruct((8, 4), jnp.float32), "bias": jax.ShapeDtypeStruct((4,), jnp.float32)}
    >>> print(explain(adamw, params, learning_rate=0.001, weight_decay={"kernel": 0.0001}))
    parameter     shape  dtype    size   rate  decay rule      l2  decay/update  half-life  state bytes
    ---------------------------------------------------------------------------------------------------
    bias          4      float32     4  0.001  -                0             0          -           32
    kernel        8x4    float32    32  0.001  kernel      0.0001        0.0001   6.93e+03          256
    ---------------------------------------------------------------------------------------------------
    2 parameters                    36                                                              300
    at the peak: learning rate 0.001, eta 1; coupling 'schedule', decay times 1, decoupled
    decayed: 32 of 36; frozen: 0; 12 of the state's bytes are scalars
    """
    if callable(tx) and not isinstance(tx, optax.GradientTransformation):
        tx = tx(**arguments)
    elif arguments:
        raise TypeError(f"`tx` must be a preset, not what it returned, to take arguments, got {sorted(arguments)}")
    plan = plan_of(tx)
    if plan is None:
        raise TypeError(f"`tx` must come from a preset (of a chain, explain the preset in it), got {type(tx).__name__}")
    if updates_per_epoch is not None:
        checks.check_number("updates_per_epoch", updates_per_epoch, low=0, open_low=True)
    shapes = abstract(params)
    state_bytes, scalar_bytes = state_bytes_of(jax.eval_shape(tx.init, shapes), shapes)
    if at is None:
        factors, counts = plan.run(updates), counts_of(updates)
    else:
        checks.check_count("at", at, low=0)
        if updates is not None and at >= checks.check_count("updates", updates):
            raise ValueError(f"`at` must be below the `updates` of the run, {updates}, got {at}")
        factors, counts = plan.factors(at), np.array([at])
    leaves = plan.leaves(shapes)
    rows = rows_of(plan, leaves, factors, counts, params, updates_per_epoch)
    invariant: list[Any] = [None] * len(rows)
    if scale_invariant is not None:
        invariant = list(resolve_mask("scale_invariant", scale_invariant, shapes))
    for row, leaf, aliases, size, flag in zip(rows, leaves, aliases_of(params), state_bytes, invariant, strict=True):
        row["state_bytes"], row["scale_invariant"] = size, flag
        row["flags"] = flags_of(row, leaf, aliases, updates)
        row["turn"] = turn_of(plan, leaf, row, at)
    peak, eta = float(factors.rate.max()), float(factors.eta.max())
    texts = rule_warnings(plan, shapes) + plan_warnings(plan, eta, at)
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
    summary = {
        "learning_rate": peak / eta if eta else float(factors.alpha.max()),
        "eta": eta,
        "coupling": plan.factor.c.name,
        "norm": float(factors.norm.max()),
        "decay_form": type(plan.form).__name__.lower(),
        "at": at,
    }
    return Explanation(rows, totals, summary, texts, plan, leaves)
