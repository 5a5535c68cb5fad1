"""The slow twins reproduce the golden traces by themselves, and the presets agree with the twins in float64."""

import numpy as np
import pytest

from tests import reference
from tests.golden_recipes import load_index, load_problem, load_trace, recipe_of, value_for
from tests.golden_schedules import schedule_pieces

ENTRIES = [entry for entry in load_index() if entry["source"] != "schedule"]
SCHEDULES = [entry for entry in load_index() if entry["source"] == "schedule"]


def twin(recipe, params, gradients, etas, periods=None):
    """The same run by the slow twins, leaf by leaf, with the factors (and periods) of each update given."""
    trajectory = {}
    for path, theta in params.items():
        g, r = gradients[path], value_for(recipe.lr_multipliers, path, 1.0)
        decay = value_for(recipe.weight_decay, path, 0.0)
        l1, l2 = decay if isinstance(decay, tuple) else (0.0, decay)
        options = {"alphas": recipe.learning_rate, "etas": etas, "periods": periods, "r": r, "l1": l1,
                   "l2": l2 * np.asarray(etas) if recipe.corrected else l2, "coupling": recipe.coupling,
                   "normalize": recipe.normalize}  # fmt: skip
        if recipe.direction == "momentum" and recipe.rate_in_velocity:
            trajectory[path] = reference.algorithm_1(theta, g, **recipe.options, **options)
            continue
        name = "momentum_steps" if recipe.direction == "momentum" else recipe.direction
        directions = getattr(reference, name)(g, **recipe.options)
        if recipe.cautious:
            directions = [reference.cautious(u, x) for u, x in zip(directions, g, strict=True)]
        trajectory[path] = reference.algorithm_2(theta, directions, **options)
    return {path: np.stack(values) for path, values in trajectory.items()}


def factors_of(entry, trace, recipe):
    """The factors (and periods) that the package used, as the trace recorded them: here only the update is on trial."""
    if entry["source"].startswith("ka-"):
        return trace["eta_used"].astype(np.float64), None
    if entry["source"] == "paper":
        return trace["lr"], (recipe.weight_decay / trace["lambda"]) ** 2
    return trace["lr"] / recipe.learning_rate, None


def within(computed, trace, path):
    """The largest error over the steps that may be compared: past `stable`, rounding decides an L1 decay's sign."""
    error = np.abs(computed - trace[f"p/{path}"])
    if f"stable/{path}" in trace:
        step = np.arange(len(error)).reshape(-1, *[1] * (error.ndim - 1))
        error = np.where(step <= trace[f"stable/{path}"], error, 0.0)
    return error.max()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_twin_reproduces_the_trace(entry):
    params, gradients = load_problem(entry["problem"])
    recipe, trace = recipe_of(entry, list(params)), load_trace(entry)
    trajectory = twin(recipe, params, gradients, *factors_of(entry, trace, recipe))
    # The twins calculate in float64: a float64 trace has to agree to its tol_float64.
    tolerance = entry.get("tol_float64", entry["tol"])
    assert max(within(trajectory[path], trace, path) for path in params) <= tolerance


def values_of(piece, steps):
    """The values of one piece, by the walker or the formula."""
    counts = np.arange(steps) + piece.shift
    options = dict(piece.options)
    if piece.kind == "cosine":
        values = np.array([position.eta for position in reference.warm_restarts(counts[-1] + 1, **options)])[counts]
    elif piece.kind == "fractional":
        values = fractional_values(counts, **options)
    elif piece.kind == "linear":
        values = options["init"] + (options["peak"] - options["init"]) * counts / options["steps"]
    else:
        values = np.full(steps, options["value"])
    return piece.offset + piece.scale * values


def fractional_values(counts, period, t_mult, eta_min=0.0, eta_max=1.0, eta_max_decay=1.0):
    """Cosine restarts whose period t_mult^i T_0 is not rounded."""
    values, start, cycle = [], 0.0, 0
    for count in counts:
        while count >= start + period * t_mult**cycle:
            start, cycle = start + period * t_mult**cycle, cycle + 1
        w = (1 + np.cos(np.pi * (count - start) / (period * t_mult**cycle))) / 2
        values.append(eta_max * eta_max_decay**cycle * w + eta_min * (1 - w))
    return np.array(values)


@pytest.mark.parametrize("entry", SCHEDULES, ids=lambda entry: entry["id"])
def test_twin_reproduces_the_schedule(entry):
    pieces, rate, _, _ = schedule_pieces({"kind": entry["kind"], **entry["args"]}, 1.0, entry["steps"])
    parts = [values_of(piece, piece.length or entry["steps"]) for piece in pieces]
    computed = rate * np.concatenate(parts)[: entry["steps"]]
    np.testing.assert_allclose(computed, load_trace(entry)["value"], rtol=0, atol=entry["tol"])
