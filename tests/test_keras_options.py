"""`OptaxOptimizer(function, rate, options=...)`: the numbers of Keras and of the preset, saved and loaded alone."""

import functools
import subprocess
import sys

import keras
import numpy as np
import optax
import pytest
from keras import layers

import adamw_jax as aj
from adamw_jax.keras import HyperparameterSetter, OptaxOptimizer
from tests.keras_models import close, data, dense, same, states, values

PATHS = ("hidden/kernel", "hidden/bias", "out/kernel", "out/bias")
MUON = {"hidden/kernel": aj.scale_by_muon, "": functools.partial(aj.scale_by_adam, b1=0.8)}
RAMP = keras.optimizers.schedules.PolynomialDecay(0.5, 6, end_learning_rate=1.0)

# name -> the function, the options, and what the function is called with in a plain loop where that differs.
OPTIONS = {
    "matrices": (aj.adamw, {"weight_decay": aj.matrices(0.1), "lr_multipliers": {"out": 3.0}}, {}),
    "one number": (aj.adamw, {"weight_decay": 4e-2, "coupling": "learning_rate", "moment_dtype": "packed"}, {}),
    "pairs": (aj.nadamw, {"weight_decay": {"kernel": (0.01, 0.1)}, "normalize_decay": 9}, {}),
    "cosine": (aj.sgdw, {"weight_decay": 0.1, "schedule": aj.cosine_warm_restarts(3, eta_min=0.1)}, {}),
    "one run": (aj.adamw, {"schedule": aj.warmup_stable_decay(6, warmup=2, decay=2), "amsgrad": True}, {}),
    "rules over time": (aj.adamw, {"weight_decay": {"hidden": aj.linear_warmup(3)}, "proximal_l1": {"out": 0.1}}, {}),
    "Keras's schedule": (aj.adamw, {"lr_multipliers": {"out": RAMP}}, {}),
    "forms": (aj.adamw, {"weight_decay": 0.1, "decay": aj.Huber(0.5), "coupling": aj.Corrected("hidden")}, {}),
    "cautious, held": (
        aj.adamw, {"weight_decay": {"out": 0.1}, "decay": aj.Cautious(), "hold_norm": "hidden/kernel"}, {}
    ),
    "frozen": (aj.adamw, {"weight_decay": 0.1, "freeze": ["hidden"], "multiplier_scales_decay": False}, {}),
    "directions": (
        aj.decoupled, {"direction": MUON, "weight_decay": 0.1},
        {"direction": {"hidden/kernel": aj.scale_by_muon(), "": aj.scale_by_adam(b1=0.8)}},
    ),
    "a direction": (aj.decoupled, {"direction": aj.scale_by_momentum(0.5), "weight_decay": 0.1}, {}),
    "optax's": (optax.adamw, {"weight_decay": 0.1, "b1": 0.8}, {}),
}  # fmt: skip


def gradients(step):
    rng = np.random.default_rng(step)
    return [rng.normal(size=np.shape(v)).astype(np.float32) for v in values(dense())]


def stepped(optimizer, model, steps, factor=None):
    optimizer.build(model.trainable_variables)
    if factor is not None:
        optimizer.decay_factor = factor
    for step in steps:
        optimizer.apply(gradients(step))
    return model


@pytest.mark.parametrize("name", OPTIONS)
def test_steps_are_the_functions_own_before_and_after_saving(name, tmp_path):
    function, options, instead = OPTIONS[name]
    model = dense()
    params = dict(zip(PATHS, values(model), strict=True))
    tx = function(learning_rate=0.05, **options | instead)
    state = tx.init(params)
    model.compile(OptaxOptimizer(function, 0.05, options=options), keras.losses.MeanSquaredError())
    stepped(model.optimizer, model, range(2))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert same(states(loaded.optimizer), states(model.optimizer))
    stepped(loaded.optimizer, loaded, range(2, 4))
    for step in range(4):
        updates, state = tx.update(dict(zip(PATHS, gradients(step), strict=True)), state, params)
        params = optax.apply_updates(params, updates)
    # The same operations one by one, four steps; Newton and Schulz's iteration makes a rounding a few times larger.
    assert close(values(loaded), [params[path] for path in PATHS], rtol=1e-5, atol=1e-5)


def test_the_same_numbers_as_kerass_adamw():
    ours, theirs = dense(), dense()
    same_as = {"weight_decay": 4e-2, "coupling": "learning_rate", "eps": 1e-7, "epsilon_hat": True}
    stepped(OptaxOptimizer(aj.adamw, 1e-2, options=same_as), ours, range(6))
    stepped(keras.optimizers.AdamW(1e-2, weight_decay=4e-2), theirs, range(6))
    # Six steps of at most 0.01, in float32.
    assert close(values(ours), values(theirs), rtol=1e-5, atol=1e-6)


def test_one_factor_scales_every_decay_and_is_set_by_callbacks(tmp_path):
    options = {"weight_decay": {"kernel": (0.0, 0.5), "out/bias": aj.linear_warmup(0)}, "proximal_l1": 0.01}
    for factor, doubled in ((1.0, 1.0), (0.5, 0.5), (0.0, 0.0)):
        halved = {"weight_decay": {"kernel": 0.5 * doubled, "out/bias": doubled}, "proximal_l1": 0.01 * doubled}
        one = stepped(OptaxOptimizer(aj.adamw, 0.01, options=options), dense(), range(3), factor)
        other = stepped(OptaxOptimizer(aj.adamw, 0.01, options=halved), dense(), range(3))
        assert close(values(one), values(other), rtol=1e-6, atol=1e-7)
    model = dense()
    model.compile(OptaxOptimizer(aj.adamw, 0.01, options={"weight_decay": 0.5}), "mse", run_eagerly=True)
    model.fit(*data(2), batch_size=8, verbose=0, callbacks=[HyperparameterSetter({1: {"decay_factor": 0.25}})])
    assert float(model.optimizer.decay_factor) == 0.25
    model.save(tmp_path / "model.keras")
    assert float(keras.models.load_model(tmp_path / "model.keras").optimizer.decay_factor) == 0.25
    with pytest.raises(ValueError, match=r"`decay_factor` must be a finite number in \[0, inf\), got -1"):
        model.optimizer.decay_factor = -1
    with pytest.raises(ValueError, match="`decay_factor` multiplies a decay among `options`"):
        OptaxOptimizer(aj.adamw, 0.01).decay_factor = 0.5


@pytest.mark.parametrize("built", [False, True])
def test_what_is_excluded_from_the_decay_stays_so_after_loading(built, tmp_path):
    for listed in (lambda model: [model.layers[0].kernel], lambda model: [model.layers[0]]):
        # A Sequential's paths lose its name when it is loaded.
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)], name="net")
        model.compile(OptaxOptimizer(aj.adamw, 0.0, options={"weight_decay": 0.5}), "mse")
        model.optimizer.exclude_from_weight_decay(var_list=listed(model))
        if built:
            model.optimizer.build(model.trainable_variables)
        excluded = [True, isinstance(listed(model)[0], keras.Layer)]
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for v in loaded.trainable_variables:
            v.assign(np.ones(v.shape))
        before = values(loaded)
        loaded.optimizer.build(loaded.trainable_variables)
        loaded.optimizer.apply([np.zeros(v.shape, np.float32) for v in loaded.trainable_variables])
        same_as = [np.array_equal(a, b) for a, b in zip(before, values(loaded), strict=True)]
        assert same_as == [*excluded, False, False]


def test_the_peak_of_a_corrected_coupling_is_that_of_the_rate_that_was_given(tmp_path):
    options, rates = {"weight_decay": 0.5, "coupling": aj.Corrected(layers="kernel")}, (0.1, 0.02)
    model = dense()
    params = dict(zip(PATHS, values(model), strict=True))
    model.compile(OptaxOptimizer(aj.sgdw, rates[0], options=options), "mse")
    model.optimizer.learning_rate = rates[1]
    stepped(model.optimizer, model, range(1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    stepped(loaded.optimizer, loaded, range(1, 2))
    tx = aj.sgdw(rates[1], weight_decay=0.5, coupling=aj.Corrected(layers="kernel", peak=rates[0]))
    state = tx.init(params)
    for step in range(2):
        updates, state = tx.update(dict(zip(PATHS, gradients(step), strict=True)), state, params)
        params = optax.apply_updates(params, updates)
    assert close(values(loaded), [params[path] for path in PATHS], rtol=1e-6, atol=1e-7)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    with pytest.raises(ValueError, match=r"`coupling` must be Corrected\(peak=...\) where a function gives"):
        OptaxOptimizer(aj.adamw, schedule, options={"weight_decay": 0.5, "coupling": "corrected"})


def test_trees_that_are_given_to_optax_have_the_paths_as_keys():
    # In another order than the names have, and with the model's own name or without.
    def build():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="b"), layers.Dense(1, name="a")], name="net")

    def masked(tree):
        return {path: path.endswith("kernel") for path in tree}

    def labelled(tree):
        return {path: "one" if "a/" in path else "other" for path in tree}

    paths = [v.path for v in build().trainable_variables]
    parts = {"one": optax.sgd(0.1), "other": optax.adam(0.1)}
    for names in (paths, [path.removeprefix("net/") for path in paths]):
        for tx, same_as in (
            (optax.masked(optax.adam(0.1), masked(names)), optax.masked(optax.adam(0.1), masked)),
            (optax.partition(parts, labelled(names)), optax.partition(parts, labelled)),
        ):
            one, other = (stepped_by_name(OptaxOptimizer(each), build()) for each in (tx, same_as))
            assert same(one, other)
    with pytest.raises(ValueError, match=r"must have the paths as keys, \['b/kernel'.*"):
        OptaxOptimizer(optax.masked(optax.adam(0.1), {"kernel": True})).build(build().trainable_variables)


def stepped_by_name(optimizer, model):
    optimizer.build(model.trainable_variables)
    optimizer.apply([np.ones(v.shape, np.float32) for v in model.trainable_variables])
    return values(model)


def test_options_are_read_and_kerass_decay_refuses():
    options = {"weight_decay": 4e-3, "b1": 0.8}
    optimizer = OptaxOptimizer(aj.adamw, 1e-3, options=options)
    assert optimizer.options == options
    assert optimizer.weight_decay == 4e-3
    with pytest.raises(ValueError, match=r"`weight_decay` cannot be set.*weight_decay=0.1"):
        optimizer.weight_decay = 0.1
    assert "decay_factor" not in [v.name for v in OptaxOptimizer(aj.adamw, 1e-3, options={"b1": 0.8}).variables]


BAD = {
    "a Keras name": ({"beta_1": 0.9}, TypeError, r"adamw\(\) has no argument `beta_1`: did you mean 'b1'"),
    "a misspelt name": ({"weight_decy": 0.1}, TypeError, "no argument `weight_decy`: did you mean 'weight_decay'"),
    "a rate": ({"learning_rate": 0.1}, TypeError, "`options` must not have the learning rate"),
    "no mapping": ([("b1", 0.9)], TypeError, "`options` must be a mapping"),
    "a bad number": ({"b1": 1.5}, ValueError, r"`b1` must be a finite number in \[0, 1\), got 1.5"),
    "a bad decay": ({"weight_decay": {"kernel": -1}}, ValueError, "must be a finite number"),
    "a bad choice": ({"coupling": "both"}, ValueError, "`coupling` must be one of"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_refused_when_they_are_given(name):
    options, error, said = BAD[name]
    with pytest.raises(error, match=said):
        OptaxOptimizer(aj.adamw, 1e-3, options=options)


def test_what_does_not_go_with_options_names_itself():
    with pytest.raises(TypeError, match=r"`options` must be arguments of lion: .*unexpected keyword argument 'beta'"):
        OptaxOptimizer(optax.lion, 0.1, options={"beta": 0.9})
    with pytest.raises(TypeError, match="`options` are for a function `tx`"):
        OptaxOptimizer(optax.adam(0.1), options={"b1": 0.9})
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    with pytest.raises(ValueError, match="`learning_rate` must be a number with a decay and coupling='schedule'"):
        OptaxOptimizer(aj.adamw, schedule, options={"weight_decay": 0.1})
    OptaxOptimizer(aj.adamw, schedule, options={"weight_decay": 0.1, "coupling": "learning_rate"})
    misspelt = OptaxOptimizer(aj.adamw, 0.1, options={"lr_multipliers": {"hiden": 1.0}})
    with pytest.raises(ValueError, match=r"`options\['lr_multipliers'\]` must match .* got 'hiden'.*'hidden/"):
        misspelt.build(dense().trainable_variables)
    without = OptaxOptimizer(aj.decoupled, 0.1, options={"direction": {"kernel": aj.scale_by_muon}})
    with pytest.raises(ValueError, match=r"must have a key for every weight.* got none for 'hidden/bias'"):
        without.build(dense().trainable_variables)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (
            lambda: OptaxOptimizer(aj.adamw, 0.1, options={"weight_decay": {"": lambda count: 0.1}}),
            "adamw.*weight_decay=",
        ),
        (lambda: OptaxOptimizer(lambda rate: aj.adamw(rate), 0.1), "it was a lambda"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(optimizer, kind):
    with pytest.raises(ValueError, match=rf"{kind}.*compile=False.*OptaxOptimizer\(adamw_jax.adamw, 1e-3, options="):
        OptaxOptimizer.from_config(optimizer().get_config())


def test_rules_by_name_survive_other_names(tmp_path):
    options = {
        "lr_multipliers": {"hidden": 0.0},
        "freeze": "out/bias",
        "direction": {"out": aj.scale_by_adam, "": aj.scale_by_nadam},
    }
    model = dense()
    model.compile(OptaxOptimizer(aj.decoupled, 0.1, options=options), "mse")
    model.optimizer.build(model.trainable_variables)
    config, others = (
        model.optimizer.get_config(),
        [keras.Variable(v.value, name=f"w{i}") for i, v in enumerate(model.weights)],
    )
    again = OptaxOptimizer.from_config(config)
    again.build(others)
    again.apply(gradients(0))
    moved = [not np.array_equal(a, v.numpy()) for a, v in zip(values(model), others, strict=True)]
    assert moved == [False, False, True, False]
    # Another model's weights have the rules by name.
    swapped = dense()
    again = OptaxOptimizer.from_config(config)
    again.build(swapped.trainable_variables[2:] + swapped.trainable_variables[:2])
    before = values(swapped)
    again.apply(gradients(0)[2:] + gradients(0)[:2])
    assert [not np.array_equal(a, b) for a, b in zip(before, values(swapped), strict=True)] == [
        False,
        False,
        True,
        False,
    ]
    # New rules count, not those that were saved.
    other = OptaxOptimizer.from_config(
        config | {"options": config["options"] | {"lr_multipliers": {"out/kernel": 0.0}}}
    )
    model = stepped(other, dense(), range(1))
    assert [not np.array_equal(a, b) for a, b in zip(values(dense()), values(model), strict=True)] == [
        True,
        True,
        False,
        False,
    ]


SCRIPT = """
import keras
import adamw_jax.keras
model = keras.models.load_model({path!r})
assert model.optimizer.options["lr_multipliers"] == {{"head": 3.0}}
print(model.optimizer.options["weight_decay"].value)
"""


def test_a_new_process_needs_the_import_alone(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="head")])
    options = {"weight_decay": aj.matrices(1e-4), "lr_multipliers": {"head": 3.0}}
    model.compile(OptaxOptimizer(aj.adamw, 1e-3, options=options), "mse")
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", SCRIPT.format(path=str(tmp_path / "model.keras"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.split() == ["0.0001"], done.stderr


def test_keras_names_the_adapter_for_an_optimizer_of_this_library():
    with pytest.raises(ValueError, match=r"Could not interpret.*adamw_jax.keras.OptaxOptimizer"):
        dense().compile(aj.adamw(1e-3), "mse")
