"""A saved model always loads: every way to save, in every state, compared with Keras's own AdamW in the same cell."""

import copy
import functools
import warnings

import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from keras import layers
from keras.regularizers import L2

import adamw_jax as aj
from adamw_jax.keras import SGDW, AdamW, NadamW, OptaxOptimizer
from tests.keras_models import data, dense, same, states


@keras.saving.register_keras_serializable(package="tests")
def adam_of_rate(learning_rate):
    # Two transformations of one kind: their names in the state repeat.
    return optax.chain(optax.scale_by_adam(), optax.scale_by_adam(), optax.scale(-learning_rate))


# A loss given by its name does not come back from an .h5 file, in Keras.
LOSS = keras.losses.MeanSquaredError
PLAIN = {"init_verbose": False}
OPTIMIZERS = {
    "keras": lambda model: keras.optimizers.AdamW(1e-2),
    "AdamW, decays": lambda model: AdamW(1e-2, model=model, total_iterations=10, **PLAIN),
    "AdamW": lambda model: AdamW(1e-2, use_cosine_annealing=True, total_iterations=10, **PLAIN),
    "NadamW": lambda model: NadamW(1e-2, **PLAIN),
    "SGDW": lambda model: SGDW(1e-2, momentum=0.9, **PLAIN),
    "OptaxOptimizer": lambda model: OptaxOptimizer(adam_of_rate, 1e-2),
    "options": lambda model: OptaxOptimizer(aj.adamw, 1e-2, options=OPTIONS, average=aj.Ema(half_life=3)),
}
OPTIONS = {
    "weight_decay": aj.matrices(1e-3),
    "lr_multipliers": {"kernel": 0.5},
    "schedule": aj.cosine_warm_restarts(10),
    "moment_dtype": "bfloat16",
}
OFTEN = ("keras", "AdamW, decays", "options")
"""In every cell; of the others each meets every state and every way."""


def frozen(model, flag=True):
    model.get_layer("hidden").trainable = not flag


STATES = {
    "untrained": (None, None),
    "trained": (None, lambda model: None),
    "frozen after": (None, lambda model: setattr(model, "trainable", False)),
    "unfrozen after": (frozen, lambda model: frozen(model, False)),
    "int8": (None, lambda model: model.quantize("int8")),
    "LoRA": (None, lambda model: model.get_layer("hidden").enable_lora(2)),
    "mixed_float16": (None, lambda model: None),
}


def make(state, optimizer):
    """A model in a state, with its optimizer."""
    before, after = STATES[state]
    model = dense(4, regularizer=L2(0.25))
    if before:
        before(model)
    # Op by op: compiling would be most of this file's time.
    model.compile(OPTIMIZERS[optimizer](model), LOSS(), run_eagerly=True)
    if after:
        model.train_on_batch(*data(1))
        after(model)
    return model


def by_file(name):
    def way(model, state, optimizer, folder):
        model.save(folder / name)
        return keras.models.load_model(folder / name)

    return way


def by_weights(model, state, optimizer, folder):
    model.save_weights(folder / "model.weights.h5")
    rebuilt = make(state, optimizer)
    if not rebuilt.optimizer.built:
        rebuilt.optimizer.build(rebuilt.trainable_variables)
    rebuilt.load_weights(folder / "model.weights.h5")
    return rebuilt


def by_config(model, state, optimizer, folder):
    """The optimizer's configuration in a model of another architecture."""
    config = keras.optimizers.serialize(model.optimizer)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dense(2), layers.Dense(1)])
    other.compile(keras.optimizers.deserialize(config), LOSS(), run_eagerly=True)
    other.optimizer.build(other.trainable_variables)
    return other


WAYS = {
    "keras": by_file("model.keras"),
    "h5": by_file("model.h5"),
    "weights": by_weights,
    "deepcopy": lambda model, *_: copy.deepcopy(model),
    "from_config": by_config,
}


@functools.cache
def made(state, optimizer):
    """A model in a state and what it predicts; ways to save it, but "deepcopy", leave it as it is."""
    model = make(state, optimizer)
    return model, np.asarray(model(data(1)[0]))


def outcome(state, way, optimizer, folder):
    """What happened: (loaded, predicts as before, trains), and what training said."""
    x, y = data(1)
    # A model that was saved is not copied any more, with Keras's own optimizers, either.
    model, before = (made.__wrapped__ if way == "deepcopy" else made)(state, optimizer)
    try:
        loaded = WAYS[way](model, state, optimizer, folder)
    except (ValueError, TypeError) as error:
        return (False, False, False), str(error)
    alike = np.array_equal(np.asarray(loaded(x)), before) or way == "from_config"
    try:
        loaded.train_on_batch(x, y)
    except (ValueError, TypeError) as error:
        return (True, alike, False), str(error)
    return (True, alike, True), ""


def in_cell(state, way):
    others = [name for name in OPTIMIZERS if name not in OFTEN]
    return [*OFTEN, others[(list(STATES).index(state) + list(WAYS).index(way)) % len(others)]]


def test_every_optimizer_meets_every_state_and_every_way():
    for optimizer in OPTIMIZERS:
        cells = [(state, way) for state in STATES for way in WAYS if optimizer in in_cell(state, way)]
        assert {state for state, _ in cells} == set(STATES)
        assert {way for _, way in cells} == set(WAYS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
def test_no_cell_is_worse_than_kerass(state, way, tmp_path):
    if state == "mixed_float16":
        keras.config.set_dtype_policy("mixed_float16")
    try:
        found = {optimizer: outcome(state, way, optimizer, tmp_path) for optimizer in in_cell(state, way)}
    finally:
        keras.config.set_dtype_policy("float32")
    theirs, _ = found.pop("keras")
    assert theirs[0], state
    for optimizer, (ours, said) in found.items():
        # Decays by position that fit other variables: the model predicts, and training says what to do.
        misfit = not ours[2] and "call `model.compile` with a new optimizer" in said
        compared = zip(ours, theirs, strict=True) if not misfit else zip(ours[:2], theirs[:2], strict=True)
        assert optimizer == "AdamW, decays" or not misfit, (optimizer, said)
        assert all(own >= other for own, other in compared), (optimizer, ours, theirs, said)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "keras"])
def test_a_model_that_was_never_trained_goes_on_from_its_scalars(optimizer, tmp_path):
    model = make("untrained", optimizer)
    model.optimizer.learning_rate = 0.125
    model.save(tmp_path / "a.keras")
    for loaded in (keras.models.load_model(tmp_path / "a.keras"), copy.deepcopy(model)):
        assert float(loaded.optimizer.learning_rate) == 0.125
        loaded.train_on_batch(*data(1))
        assert int(loaded.optimizer.iterations) == 1


def test_the_configuration_says_none_where_nothing_was_given():
    model = make("trained", "AdamW")
    config = model.optimizer.get_config()
    assert config["weight_decays"] is config["lr_multipliers"] is None
    optimizer = AdamW.from_config(config)
    optimizer.build([keras.Variable(np.zeros(2))])
    optimizer.apply([np.ones(2, np.float32)])


@pytest.mark.parametrize("rules", [{"weight_decays": [(0, 0.1)]}, {"lr_multipliers": {"nothing": 0.5}}])
def test_rules_that_do_not_fit_are_an_error_when_they_are_used(rules):
    variables = [keras.Variable(np.zeros(2, np.float32), name=name) for name in "ab"]
    config = AdamW(total_iterations=10, **PLAIN, **rules).get_config()
    optimizer = AdamW.from_config(config)
    optimizer.build(variables)
    name = next(iter(rules))
    with pytest.raises(ValueError, match=rf"does not fit the 2 variables.*`model.compile`.*`{name}`"):
        optimizer.apply([np.ones(2, np.float32)] * 2, variables)
    again = optimizer.get_config()
    assert [tuple(d) if isinstance(d, tuple) else d for d in again[name]] == list(config[name])
    with pytest.raises(ValueError, match=rf"`{name}`"):
        AdamW(total_iterations=10, **PLAIN, **rules).build(variables)


def test_a_frozen_model_keeps_its_rules_through_a_second_saving(tmp_path):
    model = make("frozen after", "AdamW, decays")
    decays = model.optimizer.get_config()["weight_decays"]
    for name in ("a.keras", "b.keras"):
        model.save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.models.load_model(tmp_path / name)
        assert [tuple(pair) for pair in model.optimizer.get_config()["weight_decays"]] == decays


def test_another_number_of_arrays_warns_and_starts_afresh(tmp_path):
    make("trained", "NadamW").save_weights(tmp_path / "a.weights.h5")
    model = make("trained", "AdamW")
    held = states(model.optimizer)
    with pytest.warns(UserWarning, match=r"Skipping variable loading for optimizer 'adam_w\w*'.* starts afresh"):
        model.load_weights(tmp_path / "a.weights.h5")
    assert same(states(model.optimizer), held)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        model.optimizer.set_weights(held[:-1])
    model.optimizer.set_weights([0 * array for array in held])
    assert not any(array.any() for array in states(model.optimizer))
    with pytest.raises(ValueError, match="nothing was loaded"):
        model.optimizer.set_weights([*held[:-1], np.zeros(7)])


def test_names_in_the_state_are_all_different():
    variables = [keras.Variable(np.zeros(2), name="w") for _ in range(3)]
    optimizer = OptaxOptimizer(adam_of_rate, 0.1)
    optimizer.build(variables)
    names = [v.path for v in optimizer.variables]
    assert len(set(names)) == len(names)


def test_an_h5_model_trains_on_with_its_decays_and_a_fresh_state(tmp_path):
    # Keras builds the optimizer of an .h5 model for no variables, and its own then refuses to train.
    model = make("trained", "AdamW, decays")
    decays = model.optimizer.get_config()["weight_decays"]
    loaded = WAYS["h5"](model, None, None, tmp_path)
    loaded.train_on_batch(*data(1))
    assert int(loaded.optimizer.iterations) == 1
    assert loaded.optimizer.get_config()["weight_decays"] == decays


def test_a_frozen_model_trains_on_when_it_is_thawed(tmp_path):
    model = make("frozen after", "AdamW, decays")
    decays = model.optimizer.get_config()["weight_decays"]
    model.save(tmp_path / "a.keras")
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        loaded = keras.models.load_model(tmp_path / "a.keras")
    loaded.trainable = True
    loaded.train_on_batch(*data(1))
    assert loaded.optimizer.get_config()["weight_decays"] == decays


def test_what_no_configuration_can_hold_names_itself(tmp_path):
    ready, partial = optax.adam(0.1), functools.partial(optax.adamw, weight_decay=0.1)
    for tx, kind in ((ready, "ready transformation"), (partial, "functools.partial")):
        config = OptaxOptimizer(tx, None if tx is ready else 0.1).get_config()
        with pytest.raises(ValueError, match=rf"it was a {kind}.*compile=False"):
            OptaxOptimizer.from_config(config)


def test_a_state_lives_in_buffers_of_its_own():
    model, given = make("trained", "AdamW"), [jnp.asarray(a) for a in states(make("trained", "AdamW").optimizer)]
    model.optimizer.set_weights(given)
    model.fit(*data(2), batch_size=8, verbose=0)
    assert all(np.isfinite(np.asarray(array)).all() for array in given)


def test_a_schedule_of_kerass_under_a_layer_as_key_goes_on(tmp_path):
    """On loading, a model inside has left the weights' paths, and Keras numbers the objects of a file."""
    backbone = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="stem")], name="backbone")
    model = keras.Sequential([keras.Input((3,)), backbone, layers.Dense(1, name="head")])
    thaw = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.1])
    model.compile(OptaxOptimizer(aj.adamw, 1e-2, options={"lr_multipliers": {backbone: thaw}}), loss=LOSS())
    x, y = np.ones((4, 3)), np.ones((4, 1))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, epochs=2, verbose=0)
    assert same(model.get_weights(), loaded.get_weights())
