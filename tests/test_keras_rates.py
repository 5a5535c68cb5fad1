"""The learning rate: the one leaf that is it follows, several keep their own values, and a vain change is refused."""

from functools import partial

import keras
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax.keras import HyperparameterSetter, OptaxOptimizer
from tests.keras_models import data, dense
from tests.running import quick_jit

I = optax.inject_hyperparams  # noqa: E741  # as short as in the table below


def by_layer(tree):
    return {path: path.split("/")[0] for path in tree}


def two(first, second):
    return optax.partition({"hidden": first, "out": second}, by_layer)


FALL = optax.linear_schedule(1e-1, 0.0, 8)

NESTED = I(lambda learning_rate: optax.chain(I(optax.sgd)(0.5), optax.scale(learning_rate)))(1e-2)

# What OptaxOptimizer is given.
TRANSFORMATIONS = {
    "one": (I(optax.sgd)(1e-2),),
    "one in a chain": (optax.chain(optax.clip(0.1), I(optax.adam)(1e-2)),),
    "one with its rate given": (I(optax.sgd)(1e-2), 0.5),
    "one of two groups": (two(I(optax.sgd)(1e-2), optax.sgd(0.1)),),
    "partition": (two(I(optax.sgd)(1e-3), I(optax.sgd)(1e-1)),),
    "multi_transform, one frozen by 0": (
        optax.multi_transform({"hidden": I(optax.sgd)(0.0), "out": I(optax.adam)(1e-2)}, by_layer),
    ),
    "chain of two": (optax.chain(I(optax.sgd)(0.5), I(optax.sgd)(-0.25)),),
    "nested": (NESTED,),
    "a schedule inside": (I(optax.sgd)(FALL),),
    "a schedule and a number": (two(I(optax.sgd)(FALL), I(optax.sgd)(1e-2)),),
    "a function of half the rate": (lambda rate: I(optax.sgd)(0.5 * rate), 0.1),
    "a function with two rates": (lambda rate: two(I(optax.sgd)(rate), I(optax.sgd)(1e-3)), 0.1),
    "a function without injection": (lambda rate: optax.adam(2 * rate), 0.01),
    "this library's": (partial(aj.adamw, weight_decay=0.1), 0.01),
}


def pure_of(name):
    if name == "one with its rate given":
        return I(optax.sgd)(0.5)
    tx, *rate = TRANSFORMATIONS[name]
    return tx(*rate) if rate else tx


def started(*given):
    model = dense()
    optimizer = OptaxOptimizer(*given)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_equals_a_loop_of_the_same_transformation(name):
    tx = pure_of(name)
    model, optimizer = started(*TRANSFORMATIONS[name])
    keys = [v.path for v in model.trainable_variables]
    ours, held = [v.value for v in model.trainable_variables], [v.value for v in optimizer.variables]
    params, step = dict(zip(keys, ours, strict=True)), quick_jit(optimizer.stateless_apply)
    state = tx.init(params)
    pure = quick_jit(tx.update)
    for index in range(3):
        grads = [np.random.default_rng(index).normal(size=p.shape).astype(np.float32) for p in ours]
        ours, held = step(held, grads, ours)
        updates, state = pure(dict(zip(keys, grads, strict=True)), state, params)
        params = optax.apply_updates(params, updates)
    for key, value in zip(keys, ours, strict=True):
        # Two programs of the same operations.
        np.testing.assert_allclose(value, params[key], rtol=2e-6, atol=2e-7)


def moved(optimizer, variables):
    before = [v.numpy() for v in variables]
    optimizer.apply([np.ones(v.shape, np.float32) for v in variables])
    return [float((b - v.numpy()).mean()) for b, v in zip(before, variables, strict=True)]


@pytest.mark.parametrize(
    "name", ["one", "one in a chain", "a function of half the rate", "a function without injection"]
)
def test_a_new_rate_acts_where_it_can_be_set(name):
    model, optimizer = started(*TRANSFORMATIONS[name])
    first = moved(optimizer, model.trainable_variables)
    optimizer.learning_rate = 3 * float(optimizer.learning_rate)
    # theta - (theta - u) rounds in the last place of theta; Adam's steps of one sign are as long.
    np.testing.assert_allclose(moved(optimizer, model.trainable_variables), 3 * np.array(first), rtol=1e-3, atol=1e-6)


REFUSED = {
    "partition": "`tx` holds 2 rates, which keep their own values",
    "chain of two": "`tx` holds 2 rates",
    "nested": "`tx` holds 2 rates",
    "a schedule inside": "`tx` takes its rate from a schedule",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_rate_that_would_do_nothing_is_refused_by_attribute_argument_and_callback(name):
    (tx,) = TRANSFORMATIONS[name]
    model, optimizer = started(tx)
    with pytest.raises(ValueError, match=f"`learning_rate` cannot be set: {REFUSED[name]}.*learning_rate=0.5"):
        optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match=f"`learning_rate` would have no effect: {REFUSED[name]}.*learning_rate=0.5$"):
        started(tx, 0.5)
    late = OptaxOptimizer(tx)
    late.learning_rate = 0.5
    with pytest.raises(ValueError, match="`learning_rate` would have no effect"):
        late.build(model.trainable_variables)
    assert np.isnan(optimizer.learning_rate) == ("schedule" not in name)


@pytest.mark.parametrize(
    "callback",
    [
        lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5),
        lambda: HyperparameterSetter({1: {"learning_rate": 0.5}}),
    ],
)
def test_a_callback_that_would_set_a_rate_in_vain_is_refused(callback):
    model = dense()
    model.compile(OptaxOptimizer(I(optax.sgd)(FALL)), "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="`learning_rate` cannot be set: `tx` takes its rate from a schedule"):
        model.fit(*data(1), verbose=0, callbacks=[callback()])


def test_a_keras_schedule_drives_the_one_rate():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.125])
    model, optimizer = started(I(optax.sgd)(1e-2), schedule)
    steps = [moved(optimizer, model.trainable_variables)[1] for _ in range(2)]
    np.testing.assert_allclose(steps, [0.5, 0.125], rtol=1e-5)
