"""OptaxOptimizer: any optax transformation in Keras equals the pure optax loop."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

from adamw_jax.keras import SGDW, AdamW, NadamW, OptaxOptimizer
from adamw_jax.keras._paths import unique_paths
from tests.keras_models import data, dense, same, states, values


def kernels(tree):
    return {path: path.endswith("kernel") for path in tree}


def labels(tree):
    return {path: "kernel" if path.endswith("kernel") else "other" for path in tree}


TRANSFORMATIONS = {
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "adagrad": optax.adagrad(1e-2),
    "adam, schedule": optax.adam(optax.cosine_decay_schedule(1e-2, 10)),
    "adamw, masked decay": optax.adamw(1e-2, weight_decay=0.1, mask=kernels),
    "adan": optax.adan(1e-2),
    "amsgrad": optax.amsgrad(1e-2),
    "apply_if_finite": optax.apply_if_finite(optax.adam(1e-2), 3),
    "clipped adabelief": optax.chain(optax.clip_by_global_norm(0.1), optax.adabelief(1e-2)),
    "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(1e-2, weight_decay=1e-2),
    "lamb": optax.lamb(1e-2),
    "lion": optax.lion(1e-3),
    "lookahead-like: schedule_free": optax.contrib.schedule_free_adamw(1e-2),
    "MultiSteps": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
    "muon": optax.contrib.muon(1e-2),
    "noisy": optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(1e-2)),
    "partition": optax.partition({"kernel": optax.adam(1e-2), "other": optax.sgd(1e-2)}, labels),
    "prodigy": optax.contrib.prodigy(1.0),
    "radam": optax.radam(1e-2),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9),
    "sgd, nesterov": optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "yogi": optax.yogi(1e-2),
}


# Less optimization: compiling is most of this file's time.
FAST = {"xla_backend_optimization_level": 0}


def gradients_like(parameters, step):
    rng = np.random.RandomState(step)
    return [rng.randn(*p.shape).astype(np.float32) for p in parameters]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_equals_a_pure_optax_loop(name):
    tx, model = TRANSFORMATIONS[name], dense()
    variables = model.trainable_variables
    keys = unique_paths(variables)
    parameters = dict(zip(keys, (v.value for v in variables), strict=True))
    optimizer = OptaxOptimizer(tx)
    optimizer.build(variables)
    ours, held = [v.value for v in variables], [v.value for v in optimizer.variables]
    # Donated, as Keras's trainer does: a state that shared a buffer with a parameter would fail.
    step = jax.jit(optimizer.stateless_apply, donate_argnums=0, compiler_options=FAST)

    @partial(jax.jit, compiler_options=FAST)
    def pure(gradients, state, parameters):
        updates, state = tx.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    state = tx.init(parameters)
    for index in range(4):
        gradients = gradients_like(ours, index)
        ours, held = step(held, gradients, ours)
        parameters, state = pure(dict(zip(keys, gradients, strict=True)), state, parameters)
        for key, value in zip(keys, ours, strict=True):
            # Two programs of the same operations: fusion may round differently in the last place.
            np.testing.assert_allclose(value, parameters[key], rtol=2e-6, atol=2e-7)


def test_the_state_lies_in_the_order_of_the_variables():
    # "b" and "a" are in that order in the model; JAX sorts the keys of a dictionary.
    variables = [keras.Variable(np.zeros(shape), name=name) for name, shape in (("b", 2), ("a", 3))]
    optimizer = OptaxOptimizer(optax.adam(0.1), name="o")
    optimizer.build(variables)
    assert [v.path for v in optimizer.variables] == [
        "o/iteration", "o/learning_rate", "o/count", "o/b_mu", "o/a_mu", "o/b_nu", "o/a_nu",
    ]  # fmt: skip
    assert [v.shape for v in optimizer.variables[3:]] == [(2,), (3,), (2,), (3,)]


def test_a_function_of_the_rate_follows_it_without_recompilation():
    traced = []

    def sgd(learning_rate):
        traced.append(learning_rate)
        return optax.sgd(learning_rate)

    optimizer = OptaxOptimizer(sgd, 0.5)
    variable = keras.Variable(np.zeros(2, np.float32))
    optimizer.build([variable])
    step = jax.jit(optimizer.stateless_apply)
    traced.clear()
    for rate in (0.5, 0.25, 0.0):
        optimizer.learning_rate = rate
        (value,), _ = step([v.value for v in optimizer.variables], [jnp.ones(2)], [variable.value])
        np.testing.assert_array_equal(value, -rate * np.ones(2))
    assert len(traced) == 1


def test_a_keras_schedule_reaches_the_transformation():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.125])
    optimizer, variable = OptaxOptimizer(optax.sgd, schedule), keras.Variable(np.zeros(1, np.float32))
    for expected in (-0.5, -1.0, -1.125):
        optimizer.apply([np.ones(1, np.float32)], [variable])
        assert float(variable.value[0]) == expected


def test_injected_hyperparameters_are_the_optimizers_own():
    optimizer, variable = OptaxOptimizer(optax.inject_hyperparams(optax.sgd)(0.5)), keras.Variable(np.zeros(1))
    optimizer.build([variable])
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.25
    optimizer.apply([np.ones(1, np.float32)])
    assert float(variable.value[0]) == -0.25
    given, variable = OptaxOptimizer(optax.inject_hyperparams(optax.sgd)(0.5), 0.125), keras.Variable(np.zeros(1))
    given.apply([np.ones(1, np.float32)], [variable])
    assert float(variable.value[0]) == -0.125


def test_a_schedule_inside_inject_hyperparams_can_be_read():
    tx = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1.0, 0.0, 4))
    optimizer, variable = OptaxOptimizer(tx), keras.Variable(np.zeros(1))
    rates = []
    for _ in range(3):
        optimizer.apply([np.ones(1, np.float32)], [variable])
        rates.append(float(optimizer.learning_rate))
    assert rates == [1.0, 0.75, 0.5]


@keras.saving.register_keras_serializable(package="tests")
def registered(learning_rate):
    return optax.sgd(learning_rate, momentum=0.5)


def test_a_registered_function_survives_saving(tmp_path):
    model, (x, y) = dense(), data()
    model.compile(OptaxOptimizer(registered, 0.1, clipnorm=1.0), "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert same(states(loaded.optimizer), states(model.optimizer))


def test_a_ready_transformation_says_how_to_load_and_that_way_works(tmp_path):
    model, (x, y) = dense(), data()
    model.compile(OptaxOptimizer(optax.adam(0.1)), "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="compile=False"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    loaded.compile(OptaxOptimizer(optax.adam(0.1)), "mse")
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights(tmp_path / "model.keras")
    assert same(states(loaded.optimizer), states(model.optimizer))


def test_bad_arguments_name_themselves():
    with pytest.raises(TypeError, match=r"`tx` must be .* init and update.*Received: tx=3"):
        OptaxOptimizer(3)
    with pytest.raises(ValueError, match="`learning_rate` is needed when `tx` is a function"):
        OptaxOptimizer(optax.adamw)
    with pytest.raises(ValueError, match="`weight_decay` belongs into `tx`"):
        OptaxOptimizer(optax.adamw, 0.1, weight_decay=0.1)
    variable = keras.Variable(np.zeros(1))
    with pytest.raises(ValueError, match="`learning_rate` would have no effect"):
        OptaxOptimizer(optax.adam(0.1), 0.5).build([variable])
    fixed = OptaxOptimizer(optax.adam(0.1))
    fixed.build([variable])
    with pytest.raises(ValueError, match="`learning_rate` cannot be set"):
        fixed.learning_rate = 0.5


def test_a_transformation_that_needs_the_loss_is_refused_clearly():
    tx = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    with pytest.raises(TypeError, match="Keras passes gradients and parameters only"):
        OptaxOptimizer(tx).apply([np.ones(1, np.float32)], [keras.Variable(np.zeros(1))])


def test_an_error_inside_a_transformation_stays_as_it_is():
    def update(updates, state, params=None):
        raise TypeError("of its own")

    tx = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    with pytest.raises(TypeError, match=r"^of its own$"):
        OptaxOptimizer(tx).apply([np.ones(1, np.float32)], [keras.Variable(np.zeros(1))])


def test_a_second_build_changes_nothing_and_a_state_may_be_a_bare_array():
    tx = optax.GradientTransformation(lambda params: jnp.zeros(2), lambda u, state, params=None: (u, state + 1))
    for optimizer in (OptaxOptimizer(tx), AdamW(init_verbose=False)):
        variable = keras.Variable(np.zeros(1))
        optimizer.apply([np.ones(1, np.float32)], [variable])
        held = states(optimizer)
        optimizer.build([variable])
        assert same(states(optimizer), held)
    bare = OptaxOptimizer(tx)
    bare.apply([np.ones(1, np.float32)], [keras.Variable(np.zeros(1))])
    assert next(v for v in bare.variables if v.name == "state").numpy().tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("saved", "own"),
    [
        (lambda: AdamW(init_verbose=False), lambda: NadamW(init_verbose=False)),
        (lambda: AdamW(init_verbose=False), lambda: SGDW(init_verbose=False)),
        (lambda: OptaxOptimizer(optax.adam, 0.1), lambda: OptaxOptimizer(optax.sgd, 0.1)),
    ],
)
def test_a_state_of_another_optimizer_is_skipped_whole(tmp_path, saved, own):
    model, (x, y) = dense(), data()
    model.compile(saved(), "mse")
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "a.weights.h5")
    other = dense()
    other.compile(own(), "mse")
    other.optimizer.build(other.trainable_variables)
    before = states(other.optimizer)
    with pytest.warns(UserWarning, match=r"Skipping variable loading for optimizer .* it starts afresh"):
        other.load_weights(tmp_path / "a.weights.h5")
    assert same(values(other), values(model))
    assert same(states(other.optimizer), before)


def test_a_state_of_another_model_is_refused_whole():
    store = {}
    trained, other = (OptaxOptimizer(optax.adam, 0.1) for _ in range(2))
    trained.apply([np.ones(2, np.float32)] * 2, [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(2))])
    other.build([keras.Variable(np.zeros(2)), keras.Variable(np.zeros(3))])
    trained.save_own_variables(store)
    before = states(other)
    with pytest.raises(ValueError, match=r"nothing was loaded.*\(3,\)"):
        other.load_own_variables(store)
    assert same(states(other), before)


def test_fit_takes_the_steps_of_a_loop():
    model, (x, y) = dense(), data()
    model.compile(OptaxOptimizer(optax.adamw, 1e-2), "mse")
    start = values(model)
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert int(model.optimizer.iterations) == 12
    assert not same(start, values(model))


IMPORTS = """
import os, sys
import adamw_jax
assert not [name for name in sys.modules if name.split(".")[0] == "keras"], "adamw_jax imports keras"
for backend in {backends!r}:
    for name in [name for name in sys.modules if name.startswith(("keras", "adamw_jax.keras"))]:
        del sys.modules[name]
    os.environ["KERAS_BACKEND"] = backend
    try:
        import adamw_jax.keras
    except ImportError as error:
        assert "KERAS_BACKEND=jax" in str(error) and backend in str(error), error
    else:
        raise AssertionError(backend)
"""


def test_another_backend_is_refused_and_the_core_needs_no_keras():
    # numpy can be imported and is the wrong one; tensorflow, Keras's default, is not even installed here.
    script = IMPORTS.format(backends=["tensorflow", "numpy"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
