"""The slow twins reproduce the golden traces by themselves, and the presets agree with the twins in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import reference
from tests.golden_recipes import Recipe, load_index, load_problem, load_trace, recipe_of
from tests.golden_schedules import Piece, schedule_pieces
from tests.running import run
from tests.twins import factors_of_pieces, keras_adamw_positions, twin

ENTRIES = [entry for entry in load_index() if entry["source"] != "schedule"]
SCHEDULES = [entry for entry in load_index() if entry["source"] == "schedule"]
KERAS_ADAMW = [entry for entry in ENTRIES if entry["source"].startswith("ka-")]


def recorded_factors(entry, trace, recipe):
    """The factors (and periods) that the package used, from the trace: here only the update is on trial."""
    if entry["source"].startswith("ka-"):
        return trace["eta_used"].astype(np.float64), None
    if entry["source"] == "paper":
        return trace["lr"], (recipe.weight_decay / trace["lambda"]) ** 2
    return trace["lr"] / recipe.learning_rate, None


def largest_error(computed, trace, path):
    """Over the steps that may be compared: past `stable`, rounding decides an L1 decay's sign."""
    error = np.abs(computed - trace[f"p/{path}"])
    if f"stable/{path}" in trace:
        step = np.arange(len(error)).reshape(-1, *[1] * (error.ndim - 1))
        error = np.where(step <= trace[f"stable/{path}"], error, 0.0)
    return error.max()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_twin_reproduces_the_trace(entry):
    params, gradients = load_problem(entry["problem"])
    recipe, trace = recipe_of(entry, list(params)), load_trace(entry)
    trajectory = twin(recipe, params, gradients, *recorded_factors(entry, trace, recipe))
    # The twins calculate in float64: a float64 trace has to agree to its tol_float64.
    tolerance = entry.get("tol_float64", entry["tol"])
    assert max(largest_error(trajectory[path], trace, path) for path in params) <= tolerance


@pytest.mark.parametrize("entry", SCHEDULES, ids=lambda entry: entry["id"])
def test_twin_reproduces_the_schedule(entry):
    pieces, rate, _, _ = schedule_pieces({"kind": entry["kind"], **entry["args"]}, 1.0, entry["steps"])
    computed = rate * factors_of_pieces(pieces, entry["steps"])
    np.testing.assert_allclose(computed, load_trace(entry)["value"], rtol=0, atol=entry["tol"])


@pytest.mark.parametrize("entry", KERAS_ADAMW, ids=lambda entry: entry["id"])
def test_twin_reproduces_the_positions(entry):
    t_cur, eta = keras_adamw_positions(entry["steps"], entry["args"], entry["actions"])
    trace = load_trace(entry)
    np.testing.assert_array_equal(t_cur, trace["t_cur_before"])
    # The package's float32 cosine has an argument up to 3 pi, rounded at 5e-7; eta_max scales it.
    np.testing.assert_allclose(eta, trace["eta_used"], rtol=0, atol=1e-6 * max(1, eta.max()))


DIRECTIONS = {
    "adam": ("adam", {"b1": 0.85, "b2": 0.98, "eps": 1e-4}),
    "adam, eps in the root": ("adam", {"eps_root": 1e-6}),
    "adam, epsilon hat": ("adam", {"eps": 1e-3, "eps_root": 1e-6, "epsilon_hat": True}),
    "amsgrad": ("amsgrad", {"b2": 0.9, "eps": 1e-6}),
    "amsgrad, epsilon hat": ("amsgrad", {"b2": 0.9, "eps": 1e-3, "epsilon_hat": True}),
    "amsgrad of nu_hat": ("amsgrad", {"b2": 0.9, "eps_root": 1e-6, "max_of": "nu_hat"}),
    "nadam": ("nadam", {"momentum_decay": 0.004}),
    "nadam, fast": ("nadam", {"b1": 0.95, "momentum_decay": 1.0, "eps_root": 1e-6}),
    "nadam, constant": ("nadam", {"momentum_decay": None, "eps": 1e-3}),
    "nadam, shared": ("nadam", {"momentum_decay": None, "shared_correction": True}),
    "sgd": ("momentum", {"momentum": 0.0}),
    "heavy ball": ("momentum", {"momentum": 0.9}),
    "nesterov": ("momentum", {"momentum": 0.8, "nesterov": True}),
    "velocity of gradients": ("momentum", {"momentum": 0.8, "nesterov": True}),
}
SCHEDULE_OPTIONS = [
    {"period": 12},
    {"period": 7, "t_mult": 2, "endpoint": False, "eta_min": 0.1, "eta_max": 0.7},
    {"period": 5, "t_mult": 1.5, "eta_max_decay": 0.5, "eta_min": 0.2},
    {"period": 20, "t_mult": 0.6, "endpoint": False},
    {"period": 9, "autorestart": False, "eta_max": 2.0},
    {"period": 6, "warmup": 4, "t_mult": 2, "eta_min": 0.05},
    {"period": 1, "warmup": 3, "t_mult": 3, "endpoint": False, "eta_max_decay": 0.8},
]
DECAYS = [0.1, {"kernel": (0.02, 0.1), "bias": (0.0, 0.05)}, {"kernel$": (0.03, 0.0)}, 0.0]
MULTIPLIERS = [None, {"first": 0.5, "second/kernel": 3.0}, {"bias": 0.0}]
COUPLINGS = ["schedule", "learning_rate", "constant"]
NORMALIZATIONS = [None, 24, "cycle"]
STEPS = 40
SEED = 16


def configuration(name, rng):
    """A recipe with this direction and, drawn, a value of every other option."""
    direction, options = DIRECTIONS[name]
    rates = np.full(STEPS, 0.03)
    rates[25:] = rng.choice([0.03, 0.01])

    def draw(values):
        return values[rng.integers(len(values))]

    return Recipe(
        direction, options, rates, draw(DECAYS), draw(MULTIPLIERS), draw(COUPLINGS), draw(NORMALIZATIONS),
        (Piece("cosine", draw(SCHEDULE_OPTIONS)),), rate_in_velocity=name != "velocity of gradients",
        multiplier_scales_decay=draw([False, True]),
    )  # fmt: skip


RNG = np.random.default_rng(SEED)
CONFIGURATIONS = [configuration(name, RNG) for name in 2 * list(DIRECTIONS)]


def random_problem():
    """Two layers; gradients over four decades, some exactly zero; a parameter that starts at zero and stays there."""
    rng = np.random.default_rng(7)
    shapes = {"first/kernel": (3, 2), "first/bias": (2,), "second/kernel": (2, 4)}
    params = {path: rng.normal(size=shape) for path, shape in shapes.items()}
    gradients = {
        path: rng.normal(size=(STEPS, *shape)) * 10 ** rng.uniform(-4, 0, size=(STEPS, *shape))
        for path, shape in shapes.items()
    }
    params["first/kernel"][0, 0] = gradients["first/kernel"][:, 0, 0] = 0.0
    return params, gradients


@pytest.mark.parametrize("recipe", CONFIGURATIONS, ids=list(DIRECTIONS) * 2)
def test_library_agrees_with_the_twin(recipe):
    params, gradients = random_problem()
    positions = reference.warm_restarts(STEPS, **recipe.schedule[0].options)
    expected = twin(recipe, params, gradients, [p.eta for p in positions], [p.period for p in positions])
    with jax.enable_x64(True):
        trajectory, before, _, _ = run(recipe, params, gradients)
    for number, name in enumerate(reference.Position._fields):
        # The float64 cosine; the whole numbers are equal.
        np.testing.assert_allclose(before[name], [p[number] for p in positions], rtol=0, atol=1e-14, err_msg=name)
    for path, values in trajectory.items():
        assert values.dtype == np.float64
        # Parameters of order 1 over 40 updates: rounding errors of 1e-16 each, a hundredfold for ill-conditioned ones.
        np.testing.assert_allclose(values, expected[path], rtol=0, atol=1e-12, err_msg=path)


def test_the_configurations_cover_every_option():
    """Each value of each option appears, and each coupling meets each normalization and each way of multiplying."""
    for name, count in (("weight_decay", 4), ("lr_multipliers", 3), ("coupling", 3), ("normalize", 3), ("schedule", 7)):
        assert len({repr(getattr(recipe, name)) for recipe in CONFIGURATIONS}) == count
    decaying = [r for r in CONFIGURATIONS if r.weight_decay != 0.0]
    assert len({(r.coupling, r.normalize) for r in decaying}) == 9
    multiplied = [r for r in decaying if r.lr_multipliers]
    assert len({(r.coupling, r.multiplier_scales_decay) for r in multiplied}) == 6
    by_preset = [r for r in multiplied if r.direction == "momentum" and r.rate_in_velocity]
    assert {r.multiplier_scales_decay for r in by_preset} == {False, True}


def test_a_wrong_twin_is_noticed():
    """The comparison above can fail: a decay off by one part in 1e9 is seen."""
    params, gradients = random_problem()
    recipe = next(r for r in CONFIGURATIONS if r.weight_decay == 0.1)
    positions = reference.warm_restarts(STEPS, **recipe.schedule[0].options)
    factors = [p.eta for p in positions], [p.period for p in positions]
    right = twin(recipe, params, gradients, *factors)
    wrong = twin(dataclasses.replace(recipe, weight_decay=0.1 * (1 + 1e-9)), params, gradients, *factors)
    assert max(np.abs(right[path] - wrong[path]).max() for path in params) > 1e-12
