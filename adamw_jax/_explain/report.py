"""`report`: reading what `observe` kept in a state."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from adamw_jax._explain.health import health_of, skipped_updates
from adamw_jax._explain.reported import QUANTITIES, WORST, Report
from adamw_jax._optimizer.observe import ObserveState
from adamw_jax._tree import checks
from adamw_jax._tree.state import nodes_of, state_in, value_of


def _numbers(weight: float, gradient: float, step: float, angle: float) -> list[float]:
    ratio = step / weight if weight else (math.inf if step else math.nan)
    return [weight, gradient, step, ratio, math.nan if weight == 0 else angle]


def _in_order(path: str) -> list[Any]:
    """Return what sorts paths as their leaves are in a tree: "layers/2" before "layers/10"."""
    return [[int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)] for name in path.split("/")]


def _rows(node: ObserveState) -> list[dict[str, Any]]:
    observed, found = int(node.observed), []
    fields = jax.device_get([node.weight_rms, node.gradient_rms, node.step_rms, node.angle])
    residuals = jax.device_get(node.residual)
    for path in sorted(fields[0], key=_in_order) if isinstance(fields[0], Mapping) else ():
        every = np.stack([np.ravel(value_of(field[path])) for field in fields], axis=1).astype(float)
        each = [_numbers(*numbers) if observed else [math.nan] * 5 for numbers in every]
        means, worst = np.mean(each, axis=0).tolist(), np.max(each, axis=0).tolist()
        row = dict(zip(("path", *QUANTITIES), (path, *means), strict=True))
        row |= dict(zip(WORST, worst[3:], strict=True)) if np.ndim(value_of(fields[0][path])) else {}
        if path in residuals:
            row["residual"] = float(np.max(value_of(residuals[path]))) if observed else math.nan
        found.append(row)
    return found


def report(state: optax.OptState, *, updates: int | None = None, explained: Any = None) -> Report:
    """Read what `observe` saw of the latest update that was a multiple of its `every`, and say what is amiss.

    The report has a line of warning for

    - a leaf whose step is not finite;
    - a leaf whose ratio of step to weight is more than ten times the median of the others (biases aside);
    - with `updates`, and from a fifth of the run on: a leaf whose norm doubles within the updates that are left, if its
      pace since a quarter to a half of the updates t made falls as 1 / sqrt(t), as in every training, and is more than
      ten times the others';
    - with `explained`: a leaf that turns by less than half or more than twice of the predicted angle, once its decay
      times the updates made is above 2;
    - a leaf that Muon turns whose residual, see `observe`, is above 0.5: its singular values are far from equal;
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
    found = nodes_of(state, ObserveState)
    if not found:
        raise ValueError(f"`state` must contain an ObserveState, got {type(state).__name__} without one: use `observe`")
    if len(found) > 1:
        raise ValueError(f"`state` must contain one ObserveState, got {len(found)}")
    (node,) = found
    if np.ndim(node.count) > 0:
        raise ValueError(f"`state` must be that of one run, got {np.size(node.count)} of them")
    if updates is not None and checks.check_count("updates", updates) < node.count:
        raise ValueError(f"`updates` must be the length of the run, at least the {node.count} made, got {updates}")
    rows = _rows(node)
    return Report(rows, int(node.observed), health_of(rows, node, state, updates, explained), skipped_updates(state))
