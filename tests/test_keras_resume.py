"""Saving in the middle of a cycle, loading in a new process, and going on as if nothing had happened."""

import subprocess
import sys

import keras
import numpy as np
from keras import layers
from keras.regularizers import L1, L2

from adamw_jax.keras import SGDW, AdamW, NadamW
from tests.keras_models import same, sequences, states, values

HALF = 40
TOTAL = 2 * HALF
# 24 updates per cycle: the 40th is in the middle of the second.
OPTIONS = {"total_iterations": 24, "use_cosine_annealing": True, "init_verbose": False}


def recurrent(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3))
    x = layers.GRU(2, kernel_regularizer=L1(1e-2), recurrent_regularizer=L2(2e-2), name=f"{name}_gru")(inputs)
    return keras.Model(inputs, layers.Dense(1, name=f"{name}_out")(x))


def sequential(wrapped):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5, 3)), wrapped, layers.GRU(2), layers.Dense(1, kernel_regularizer=L2(1e-2))])


def bidirectional(reg):
    return sequential(layers.Bidirectional(layers.GRU(2, return_sequences=True, kernel_regularizer=reg)))


def time_distributed(reg):
    return sequential(layers.TimeDistributed(layers.Dense(2, kernel_regularizer=reg)))


CASES = {
    "functional": (lambda: recurrent("first"), AdamW, {"lr_multipliers": {"gru": 0.5}}),
    "Bidirectional": (lambda: bidirectional(L2(0.1)), NadamW, {"lr_multipliers": {"dense": 0.5}}),
    "TimeDistributed": (lambda: time_distributed(L1(0.1)), SGDW, {"momentum": 0.9, "t_mult": 2}),
}


def compiled(case):
    build, make, options = CASES[case]
    model = build()
    model.compile(make(model=model, **OPTIONS, **options), "mse")
    return model


def train(model, start, stop):
    x, y = sequences(8)
    for step in range(start, stop):
        batch = slice(4 * (step % 8), 4 * (step % 8) + 4)
        model.train_on_batch(x[batch], y[batch])
    return model


def everything(model):
    return [*values(model), *states(model.optimizer)]


def go_on(folder):
    """Run in the new process: load each model, train the second half, leave all arrays."""
    for case in CASES:
        model = keras.models.load_model(f"{folder}/{case}.keras")
        np.savez(f"{folder}/{case}.npz", *everything(train(model, HALF, TOTAL)))
        np.savez(f"{folder}/{case}.paths.npz", np.array([v.path for v in model.trainable_variables]))
    model = recurrent("renamed")
    # Another rate and position, which the saved state replaces; the decays come with the rebuilt model.
    model.compile(AdamW(0.5, model=model, t_cur=3, lr_multipliers={"renamed_gru": 0.5}, **OPTIONS), "mse")
    model.optimizer.build(model.trainable_variables)
    model.load_weights(f"{folder}/functional.weights.h5")
    np.savez(f"{folder}/renamed.npz", *everything(train(model, HALF, TOTAL)))


def arrays(folder, name):
    with np.load(folder / f"{name}.npz") as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]


def test_resume_in_a_new_process_is_bit_for_bit(tmp_path):
    expected, paths = {}, {}
    for case in CASES:
        model = train(compiled(case), 0, HALF)
        assert int(model.optimizer.t_cur) == HALF % 24
        model.save(tmp_path / f"{case}.keras")
        model.save_weights(tmp_path / f"{case}.weights.h5")
        expected[case] = everything(train(model, HALF, TOTAL))
        paths[case] = [v.path for v in model.trainable_variables]
    script = f"from tests.test_keras_resume import go_on; go_on({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    for case in CASES:
        assert same(arrays(tmp_path, case), expected[case]), case
    for case in ("Bidirectional", "TimeDistributed"):
        assert list(arrays(tmp_path, f"{case}.paths")[0]) != paths[case]
    # From weights.h5, into a model with other names.
    assert same(arrays(tmp_path, "renamed"), expected["functional"])
