"""Configurations of the golden kinds that no published trace has: the library against the twins of the same formulas.

A trace with any of these arguments could be dropped into golden/ and would be held to the package itself; until then
the formulas of tests/reference.py stand in for it.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden_recipes import FORMULAS, load_index, load_problem, recipe_of
from tests.golden_schedules import schedule_pieces
from tests.running import run
from tests.twins import factors_of_pieces, keras_adamw_positions, twin

L2 = {"dense_1/kernel:0": [0.0, 0.05], "lstm_1/kernel:0": [0.0, 0.2]}
CYCLES = {"total_iterations": 24, "use_cosine_annealing": True, "weight_decays": L2}
TORCH = {"kind": "torch_cawr", "T_0": 9, "T_mult": 2, "eta_min": 0.001}
KERAS = {"kind": "keras_cdr", "first_decay_steps": 10, "t_mul": 1.5, "m_mul": 0.8, "alpha": 0.1}
TIMM = {"kind": "timm_cosine", "t_initial": 20, "cycle_mul": 2.0, "cycle_decay": 0.5, "cycle_limit": 2, "lr_min": 0.001}
RAMPS = {"kind": "optax_sgdr", "cycles": [{"init_value": 0.1, "peak_value": 1.0, "decay_steps": 30, "warmup_steps": 5,
                                           "end_value": 0.1}] * 2}  # fmt: skip
PAPER = {"alpha": 0.01, "lambda_norm": 0.1, "b": 32, "B": 320}

# source, optimizer, formula, arguments, actions or schedule
KINDS = [
    ("ka-tfkeras", "AdamW", "F1", {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-4, "amsgrad": True, **CYCLES},
     [[20, "lr", 0.003]]),
    ("ka-tfkeras", "AdamW", "F1", {**CYCLES, "total_iterations": 1}, []),
    ("ka-tfkeras", "AdamW", "F1", {"total_iterations": 10, "autorestart": True, "eta_t": 0.5, "weight_decays": L2}, []),
    ("ka-tfkeras", "AdamW", "F1", {**CYCLES, "t_cur": 30, "eta_min": 0.2}, []),
    ("ka-tfkeras", "AdamW", "F1", {**CYCLES, "t_cur": -1, "eta_t": 0.3}, [[40, "t_cur", 5]]),
    ("ka-tfkeras", "NadamW", "F2a", {**CYCLES, "beta_2": 0.99, "total_iterations_wd": 100}, [[0, "t_cur", 7]]),
    ("ka-tfkeras", "SGDW", "F3", {**CYCLES, "momentum": 0.9, "nesterov": True, "lr_multipliers": {"lstm": 0.0}}, []),
    ("ka-tfkeras", "SGDW", "F3", {"total_iterations": 24, "weight_decays": L2, "lr_multipliers": {"none": 2.0}}, []),
    ("ka-keras", "AdamW", "F1", {**CYCLES, "decay": 0.01}, []),
    ("torch", "AdamW", "F4", {"betas": [0.8, 0.99], "eps": 1e-5, "amsgrad": True, "lr": 0.01}, TORCH),
    ("torch", "NAdam", "F5", {"momentum_decay": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}, None),
    ("optax", "amsgrad", "F11", {"learning_rate": 0.01, "b1": 0.8, "b2": 0.9, "eps_root": 1e-8}, None),
    ("optax", "sgdw", "F8", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, RAMPS),
    ("keras3", "AdamW", "F10", {"learning_rate": 0.01, "beta_1": 0.8, "epsilon": 1e-4, "amsgrad": True}, KERAS),
    ("keras3", "SGD", "F9", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, KERAS),
    ("timm", "adamw", "F4", {"lr": 0.01, "weight_decay": 0.5, "corrected_weight_decay": True}, TIMM),
    ("timm", "nadamw", "F7", {"lr": 0.01, "betas": [0.8, 0.99], "caution": True}, {**TIMM, "cycle_mul": 1.3}),
    ("paper", "AdamW", "F12", {**PAPER, "epochs": [1, 3, 4], "eta_min": 0.1}, None),
    ("paper", "SGDW", "F13", {**PAPER, "beta1": 0.9, "epochs": [2, 2, 4], "t_index": "authors_code"}, None),
]  # fmt: skip


def entry_of(source, optimizer, formula, args, rest):
    return {"source": source, "optimizer": optimizer, "formula": formula, "args": args, "steps": 72, "tags": [],
            "actions": rest if isinstance(rest, list) else [],
            "schedule": rest if isinstance(rest, dict) else None}  # fmt: skip


def factors_of(entry, recipe):
    """The factors and periods of each update, by formulas apart from the library."""
    if entry["source"].startswith("ka-"):
        return keras_adamw_positions(entry["steps"], entry["args"], entry["actions"])[1], None
    if entry["source"] != "paper":
        return factors_of_pieces(recipe.schedule, entry["steps"]) if recipe.schedule else np.ones(entry["steps"]), None
    args, factors, periods = entry["args"], [], []
    for cycle, epochs in enumerate(args["epochs"]):
        n = epochs * args["B"] // args["b"]
        first = 1 if cycle == 0 and args.get("t_index") == "authors_code" else 0
        low = args.get("eta_min", 0.0)
        factors += [low + (1 - low) * (1 + np.cos(np.pi * (k + first) / n)) / 2 for k in range(n)]
        periods += [n] * n
    return np.array(factors[: entry["steps"]]), np.array(periods[: entry["steps"]])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}-{kind[2]}")
def test_kind_agrees_with_the_twin(kind):
    entry = entry_of(*kind)
    params, gradients = load_problem("P")
    recipe = recipe_of(entry, list(params))
    expected = twin(recipe, params, gradients, *factors_of(entry, recipe))
    trajectory, before, _, _ = run(recipe, params, gradients)
    if entry["source"].startswith("ka-"):
        t_cur, eta = keras_adamw_positions(entry["steps"], entry["args"], entry["actions"])
        np.testing.assert_array_equal(before["t_cur"], t_cur)
        # float32 cosines of arguments up to 3 pi.
        np.testing.assert_allclose(before["eta"], eta, rtol=0, atol=2e-6)
    for path, values in trajectory.items():
        assert values.dtype == jnp.float32
        # The published traces' rule: 2e-5, or 4e-6 of the largest parameter where that is more (float32 over 72 steps).
        atol = max(2e-5, 4e-6 * np.abs(expected[path]).max())
        np.testing.assert_allclose(values, expected[path], rtol=0, atol=atol, err_msg=path)


def test_every_formula_of_a_difference_is_needed():
    """The names that the recipes of all traces and kinds report are those that have a formula, and no others."""
    paths, found = list(load_problem("P")[0]), set()
    for entry in [*load_index(), *(entry_of(*kind) for kind in KINDS)]:
        if entry["source"] == "schedule":
            found.update(schedule_pieces({"kind": entry["kind"], **entry["args"]}, 1.0, entry["steps"])[2])
        else:
            found.update(recipe_of(entry, paths).deviations)
    assert found == set(FORMULAS)


def test_an_argument_without_a_translation_is_an_error():
    """Nothing in an index entry is passed over in silence."""
    entry = entry_of("torch", "AdamW", "F4", {"lr": 0.01, "maximize": True}, None)
    with pytest.raises(NotImplementedError, match="maximize"):
        recipe_of(entry, ["kernel"])
