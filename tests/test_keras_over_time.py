"""Keras trains with schedules among its decays and multipliers as the JAX preset does with the same ones."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax.keras import SGDW, AdamW, NadamW
from tests import keras_models
from tests.running import quick_jit

T, UPDATES, RATE = 4, 8, 0.02
PATHS = ("hidden/kernel", "hidden/bias", "out/kernel", "out/bias")
RAMP, FALL = optax.linear_schedule(0.0, 1.0, 6), optax.linear_schedule(0.5, 0.0, 6)
KERAS_RAMP = keras.optimizers.schedules.PolynomialDecay(0.0, 6, end_learning_rate=1.0)
KERAS_FALL = keras.optimizers.schedules.PolynomialDecay(0.5, 6, end_learning_rate=0.0)

CLASSES = {
    "AdamW": (AdamW, {}, lambda **given: aj.adamw(RATE, eps=1e-7, epsilon_hat=True, **given)),
    "NadamW": (NadamW, {}, lambda **given: aj.nadamw(RATE, eps=1e-7, **given)),
    "SGDW": (SGDW, {"momentum": 0.9}, lambda **given: aj.sgdw(RATE, momentum=0.9, **given)),
}


@keras.saving.register_keras_serializable(package="tests")
def late(count):
    return jnp.where(count < 3, 0.0, 0.5)


# What Keras is given, and the same for the preset, by the paths of the weights.
RULES = {
    "a layer's multiplier": ({"lr_multipliers": {"hidden": late}}, {"lr_multipliers": {"hidden": late}}),
    "a multiplier as Keras's schedule": (
        {"lr_multipliers": {"hidden/kernel": KERAS_RAMP, "out": 0.5}},
        {"lr_multipliers": {"hidden/kernel": RAMP, "out": 0.5}},
    ),
    "multipliers by position": (
        {"lr_multipliers": [1.0, RAMP, 0.5, late]},
        {"lr_multipliers": {"hidden/bias": RAMP, "out/kernel": 0.5, "out/bias": late}},
    ),
    "a layer's decay": ({"weight_decays": {"hidden": (0.0, FALL)}}, {"weight_decay": {"hidden": FALL}}),
    "a schedule alone is an l2": (
        {"weight_decays": {"out/kernel": KERAS_FALL}},
        {"weight_decay": {"out/kernel": FALL}},
    ),
    "an l1 over time": (
        {"weight_decays": {"hidden/kernel": (KERAS_RAMP, 0.25), "out/kernel": (0.125, late)}},
        {"weight_decay": {"hidden/kernel": (RAMP, 0.25), "out/kernel": (0.125, late)}},
    ),
    "decays by position": (
        {"weight_decays": [(0.0, FALL), (0.0, 0.0), (late, 0.0), (0.0, 0.0)]},
        {"weight_decay": {"hidden/kernel": FALL, "out/kernel": (late, 0.0)}},
    ),
    "both": (
        {
            "lr_multipliers": {"hidden": late},
            "weight_decays": {"hidden": (0.0, KERAS_FALL), "out/kernel": (0.0, 0.125)},
        },
        {"lr_multipliers": {"hidden": late}, "weight_decay": {"hidden": FALL, "out/kernel": 0.125}},
    ),
}


def batches(updates=UPDATES):
    x, y = keras_models.data(batches=updates)
    return x.reshape(updates, 8, 4), y.reshape(updates, 8, 1)


def by_fit(optimizer, updates=UPDATES):
    """Return the model and the values of its weights after `updates` batches of `fit`."""
    model = keras_models.dense()
    model.compile(optimizer, loss="mse")
    x, y = batches(updates)
    model.fit(x.reshape(-1, 4), y.reshape(-1, 1), batch_size=8, shuffle=False, verbose=0)
    return model, keras_models.values(model)


def by_preset(tx, every=1):
    """Return the weights after the same batches, in a loop; the gradients of `every` batches are averaged."""
    model = keras_models.dense()
    params = dict(zip(PATHS, (v.value for v in model.trainable_variables), strict=True))

    def loss(params, x, y):
        hidden = jnp.tanh(x @ params["hidden/kernel"] + params["hidden/bias"])
        return jnp.mean((hidden @ params["out/kernel"] + params["out/bias"] - y) ** 2)

    @quick_jit
    def step(params, state, x, y):
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    x, y = (part.reshape(-1, 8 * every, part.shape[-1]) for part in batches())
    for each in zip(x, y, strict=True):
        params, state = step(params, state, *each)
    return [np.asarray(params[path]) for path in PATHS]


def preset(make, **rules):
    return make(schedule=aj.cosine_warm_restarts(T), normalize_decay=T, **rules)


def optimizer_of(name="AdamW", **given):
    cls, own, _ = CLASSES[name]
    return cls(RATE, total_iterations=T, use_cosine_annealing=True, init_verbose=False, **own, **given)


# Two compiled programs of the same formula round differently: a few float32 ulps of weights of order 1, over 8 updates.
# Adam's first steps have the sign of the gradient alone, which none here is too small to have.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@functools.cache
def without_rules():
    return by_preset(preset(CLASSES["AdamW"][2]))


@pytest.mark.parametrize("rules", RULES)
def test_schedules_act_as_in_the_preset(rules):
    given, same = RULES[rules]
    _, fitted = by_fit(optimizer_of(**given))
    assert keras_models.close(fitted, by_preset(preset(CLASSES["AdamW"][2], **same)), **CLOSE)
    # The schedules matter: without them the weights are elsewhere.
    assert not keras_models.close(fitted, without_rules(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["NadamW", "SGDW"])
def test_schedules_act_in_the_other_classes(name):
    given, same = RULES["both"]
    _, fitted = by_fit(optimizer_of(name, **given))
    assert keras_models.close(fitted, by_preset(preset(CLASSES[name][2], **same)), **CLOSE)


def test_under_accumulation_schedules_count_real_updates():
    given, same = RULES["both"]
    _, fitted = by_fit(optimizer_of(gradient_accumulation_steps=2, **given))
    assert keras_models.close(fitted, by_preset(preset(CLASSES["AdamW"][2], **same), every=2), **CLOSE)


def test_a_layer_stands_still_while_its_multiplier_is_zero_and_then_thaws():
    start = keras_models.values(keras_models.dense())
    rules = {"lr_multipliers": {"hidden": late}, "weight_decays": {"hidden/kernel": (0.0, 0.5)}}
    _, cold = by_fit(optimizer_of(**rules), updates=3)
    _, warm = by_fit(optimizer_of(**rules), updates=5)
    assert keras_models.same(cold[:2], start[:2])
    assert not np.array_equal(cold[2], start[2])
    assert not any(np.array_equal(a, b) for a, b in zip(warm[:2], start[:2], strict=True))


def test_schedules_go_on_where_a_saved_model_stopped(tmp_path):
    given, _ = RULES["both"]
    _, whole = by_fit(optimizer_of(**given))
    x, y = batches()
    model = keras_models.dense()
    model.compile(optimizer_of(**given), loss="mse")
    for part in (slice(0, 5), slice(5, UPDATES)):
        model.fit(x[part].reshape(-1, 4), y[part].reshape(-1, 1), batch_size=8, shuffle=False, verbose=0)
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    assert keras_models.same(keras_models.values(model), whole)


@pytest.mark.parametrize(
    "rules",
    [
        {"lr_multipliers": {"hidden": lambda count: -1.0}},
        {"weight_decays": {"hidden": (0.0, lambda count: -1.0)}},
        {"weight_decays": {"hidden": lambda count: (0.0, 1.0)}},
    ],
    ids=["a negative multiplier", "a negative decay", "a pair"],
)
def test_a_schedule_that_says_no_number_from_zero_on_is_an_error(rules):
    with pytest.raises((ValueError, TypeError), match=r"\(count\)` must be"):
        by_fit(optimizer_of(**rules))
