"""Every golden trace of keras-adamw, its peers, the paper and the schedules, by presets or chains of stages."""

import jax
import numpy as np
import optax
import pytest

from tests.golden_recipes import FORMULAS, load_index, load_problem, load_trace, recipe_of, value_for
from tests.golden_schedules import schedule_pieces
from tests.running import run, schedule_function, values_of

INDEX = load_index()
CASES = [
    pytest.param(entry, width, id=f"{entry['id']}-{width}")
    for entry in INDEX
    for width in ("float32", "float64")
    if width == "float32" or "tol_float64" in entry
]

DEVIATIONS = {
    "pub-ka-tfkeras-adamw-06": ("first factor",),
    "pub-ka-tfkeras-adamw-09": ("first factor",),
    "pub-ka-tfkeras-adamw-12": ("legacy decay ignored",),
    "pub-ka-tfkeras-nadamw-01": ("tf.keras NadamW",),
    "pub-ka-tfkeras-nadamw-02": ("tf.keras NadamW",),
    "pub-ka-tfkeras-nadamw-03": ("tf.keras NadamW",),
    "pub-ka-tfkeras-nadamw-04": ("tf.keras NadamW",),
    "pub-ka-tfkeras-sgdw-04": ("first factor",),
    "pub-ka-tfkeras-sgdw-05": ("legacy decay",),
    "pub-ka-keras-adamw-02": ("compounding multipliers",),
    "pub-timm-adamw-02": ("cautious mask",),
    "pub-paper-adamw-03": ("authors' code",),
    "pub-sched-authorslua-01": ("authors' code",),
}
"""The published traces that follow another formula than the package's documents or the paper; the tests below hold this
table, and the formulas of the differences, to what the recipes find."""


def error_of(entry, trace, trajectory):
    """The largest error over the steps that may be compared: past `stable`, rounding decides an L1 decay's sign."""
    largest = 0.0
    for path, values in trajectory.items():
        error = np.abs(values.astype(np.float64) - trace[f"p/{path}"])
        assert error.shape == (entry["steps"] + 1, *values.shape[1:])
        if f"stable/{path}" in trace:
            step = np.arange(len(error)).reshape(-1, *[1] * (error.ndim - 1))
            error = np.where(step <= trace[f"stable/{path}"], error, 0.0)
        largest = max(largest, error.max())
    return largest


def schedule_error(entry, trace, pieces, rate):
    return np.abs(rate * values_of(schedule_function(pieces), entry["steps"]) - trace["value"]).max()


def check_position(entry, trace, recipe, before, after):
    """The state that can be read: the factor and t_cur around each update, and the period."""
    # The factor's float32 cosine has an argument up to 3 pi, which is rounded at 5e-7; the largest factor scales it.
    atol = 2e-6 * max(1.0, np.max(trace.get("eta_used", 1.0)))
    if entry["source"].startswith("ka-"):
        for name, values in (("eta_used", before["eta"]), ("eta_after", after["eta"])):
            np.testing.assert_allclose(values, trace[name], rtol=0, atol=atol, err_msg=name)
        np.testing.assert_array_equal(before["t_cur"], trace["t_cur_before"])
        np.testing.assert_array_equal(after["t_cur"], trace["t_cur_after"])
    elif entry["source"] == "paper":
        # PENDING factors (negative) are those an action has left to the update itself.
        known = np.asarray(before["eta"]) >= 0
        np.testing.assert_allclose(before["eta"][known], trace["lr"][known], rtol=0, atol=atol)
        np.testing.assert_allclose(recipe.weight_decay / np.sqrt(before["period"]), trace["lambda"], rtol=1e-6)
    else:
        rates = recipe.learning_rate * (1.0 if recipe.corrected else before.get("eta", 1.0))
        np.testing.assert_allclose(rates, trace["lr"], rtol=0, atol=atol * trace["lr"].max())


def check_final_weights(entry, trace, state, multipliers):
    """Moments, velocities and momentum products that the package saves; it calls nu v, and stores -r velocity."""
    owners = {"m": ("mu", 1.0), "v": ("nu", 1.0), "vhat": ("nu_max", 1.0), "momentum": ("trace", -1.0)}
    for number, name in enumerate(entry.get("weight_names", ())):
        expected = trace[f"final_weights/{number:02d}"]
        path, kind = name.removesuffix(":0").partition("/")[2].rsplit("/", 1) if name.count("/") > 1 else ("", name)
        if kind.endswith("iter:0"):
            actual = optax.tree.get_all_with_path(state, "count")[0][1]
        elif kind.endswith("momentum_cache:0"):
            actual = optax.tree.get(state, "mu_product")
        else:
            field, sign = owners[kind]
            r = value_for(multipliers, path, 1.0) if field == "trace" else 1.0
            actual = sign * r * optax.tree.get(state, field)[path]
        # 1 - b2 of a float32 b2 = 0.999 is 1.3e-5 off, in both or in one of them; zero gradients leave exact zeros.
        np.testing.assert_allclose(actual, expected, rtol=5e-5, atol=0, err_msg=name)


@pytest.mark.parametrize(("entry", "width"), CASES)
def test_trace(entry, width):
    trace = load_trace(entry)
    tolerance = entry["tol"] if width == "float32" else entry["tol_float64"]
    with jax.enable_x64(width == "float64"):
        if entry["source"] == "schedule":
            pieces, rate, _, _ = schedule_pieces({"kind": entry["kind"], **entry["args"]}, 1.0, entry["steps"])
            assert schedule_error(entry, trace, pieces, rate) <= tolerance
            return
        params, gradients = load_problem(entry["problem"])
        recipe = recipe_of(entry, list(params))
        trajectory, before, after, state = run(recipe, params, gradients)
        assert error_of(entry, trace, trajectory) <= tolerance
        check_position(entry, trace, recipe, before, after)
        check_final_weights(entry, trace, state, recipe.lr_multipliers)


def deviations_of(entry):
    if entry["source"] == "schedule":
        return tuple(schedule_pieces({"kind": entry["kind"], **entry["args"]}, 1.0, entry["steps"])[2])
    return recipe_of(entry, list(load_problem(entry["problem"])[0])).deviations


DEVIATING = [entry for entry in INDEX if deviations_of(entry)]


def test_the_table_of_deviations_is_complete_and_current():
    found = {entry["id"]: deviations_of(entry) for entry in DEVIATING if entry["id"].startswith("pub-")}
    assert found == DEVIATIONS


@pytest.mark.parametrize("entry", DEVIATING, ids=lambda entry: entry["id"])
def test_the_documented_behaviour_is_not_the_trace(entry):
    """Without the formula of the difference the trace is missed by far: the table lists real deviations only."""
    trace = load_trace(entry)
    if entry["source"] == "schedule":
        _, rate, _, documented = schedule_pieces({"kind": entry["kind"], **entry["args"]}, 1.0, entry["steps"])
        assert schedule_error(entry, trace, documented, rate) > 3 * entry["tol"]
        return
    params, gradients = load_problem(entry["problem"])
    recipe = recipe_of(entry, list(params))
    trajectory, before, _, _ = run(recipe.as_documented(), params, gradients)
    assert error_of(entry, trace, trajectory) > 3 * entry["tol"], [FORMULAS[name] for name in recipe.deviations]
    if recipe.deviations == ("first factor",):
        differs = np.abs(np.asarray(before["eta"]) - trace["eta_used"]) > 1e-3
        np.testing.assert_array_equal(np.flatnonzero(differs), [0])
