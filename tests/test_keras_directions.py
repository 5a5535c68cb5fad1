"""Directions by path inside Keras: they train, are saved, loaded and resumed."""

import keras
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax.keras import OptaxOptimizer
from tests.keras_models import close, data, dense, same, states, values

OPTIONS = {"weight_decay": {"kernel": 1e-2}, "schedule": aj.cosine_warm_restarts(6, eta_min=0.1)}


@keras.saving.register_keras_serializable(package="tests")
def muon_by_path(learning_rate):
    directions = {"hidden/kernel": aj.scale_by_muon(), "": aj.scale_by_adam(moment_dtype="packed")}
    return aj.decoupled(directions, learning_rate, lr_multipliers={"hidden/kernel": 2.0}, **OPTIONS)


@keras.saving.register_keras_serializable(package="tests")
def narrow_lion_by_path(learning_rate):
    directions = {"kernel": aj.with_narrow_state(optax.scale_by_lion()), "": optax.trace(0.9)}
    return aj.decoupled(directions, learning_rate, coupling="learning_rate", freeze="out/bias", **OPTIONS)


MAKERS = [muon_by_path, narrow_lion_by_path]


def compiled(make):
    model = dense()
    model.compile(OptaxOptimizer(make, 0.02), "mse")
    return model


def fit(model, epochs):
    x, y = data()
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


@pytest.mark.parametrize("make", MAKERS)
def test_a_function_that_returns_directions_by_path_trains_and_resumes(make, tmp_path):
    whole, half = compiled(make), compiled(make)
    losses = fit(whole, 6)
    assert losses[-1] < 0.8 * losses[0]
    fit(half, 3)
    half.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == half.optimizer.get_config()
    assert same(states(loaded.optimizer), states(half.optimizer))
    fit(loaded, 3)
    # The same programs on the same numbers.
    assert same(values(loaded), values(whole))
    assert same(states(loaded.optimizer), states(whole.optimizer))


def test_keras_takes_the_steps_of_a_loop():
    model = compiled(muon_by_path)
    names = [v.path for v in model.trainable_variables]
    params = dict(zip(names, values(model), strict=True))
    tx = muon_by_path(0.02)
    state = tx.init(params)
    grads = {name: np.random.default_rng(1).normal(size=p.shape).astype(np.float32) for name, p in params.items()}
    for _ in range(3):
        model.optimizer.apply([grads[name] for name in names], model.trainable_variables)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    # A program and a loop of calls, whose roundings Newton and Schulz's iteration makes a few times larger.
    assert close(values(model), [params[name] for name in names], rtol=0, atol=1e-5)
    assert int(aj.current(state).count) == 3


def test_a_leaf_without_direction_is_named_when_training_begins():
    optimizer = OptaxOptimizer(lambda rate: aj.decoupled({"kernel": aj.scale_by_muon()}, rate), 0.02)
    with pytest.raises(ValueError, match=r"`direction` must have a pattern for .* got none for 'hidden/bias'"):
        optimizer.build(dense().trainable_variables)
