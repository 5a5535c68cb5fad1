"""Names: a model's own never counts, former models leave none, optimizers are numbered, messages say what to do."""

import gc
import types

import keras
import numpy as np
import pytest
from keras import layers

import adamw_jax as aj
from adamw_jax.keras import SGDW, AdamW, NadamW, OptaxOptimizer
from adamw_jax.keras._weights import Weights
from tests.keras_models import data


class Subclass(keras.Model):
    def __init__(self, name):
        super().__init__(name=name)
        self.hidden, self.out = layers.Dense(3, name="hidden"), layers.Dense(1, name="out")

    def call(self, x):
        return self.out(self.hidden(x))


def sequential(name):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="hidden"), layers.Dense(1, name="out")], name=name)


def functional(name):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1, name="out")(layers.Dense(3, name="hidden")(inputs)), name=name)


def subclass(name):
    model = Subclass(name)
    model(np.ones((1, 4), np.float32))
    return model


KINDS = {"Sequential": sequential, "functional": functional, "subclass": subclass}
EACH = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def stepped(model, optimizer):
    """Which variables an update without gradients (or with ones) moves."""
    optimizer.build(model.trainable_variables)
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply([np.ones(v.shape, np.float32) for v in model.trainable_variables])
    return [not np.array_equal(b, v.numpy()) for b, v in zip(before, model.trainable_variables, strict=True)]


@EACH
def test_a_models_own_name_freezes_nothing(make):
    model = make("lstm_classifier")
    for optimizer in (
        lambda: AdamW(lr_multipliers={"lstm": 0.0}, init_verbose=False),
        lambda: AdamW(weight_decays={"lstm": (0, 0.1)}, total_iterations=4, init_verbose=False),
        lambda: OptaxOptimizer(aj.adamw, 0.1, options={"lr_multipliers": {"lstm": 0.0}}),
        lambda: OptaxOptimizer(aj.adamw, 0.1, options={"freeze": "lstm"}),
        lambda: OptaxOptimizer(aj.adamw, 0.1, options={"weight_decay": aj.matrices(0.1, but="lstm")}),
    ):
        with pytest.raises(ValueError, match=r"lstm.*(matches none|part of no path)"):
            optimizer().build(model.trainable_variables)
    frozen = OptaxOptimizer(aj.adamw, 0.1, options={"freeze": "out", "lr_multipliers": {"hidden/kernel": 0.0}})
    assert stepped(model, frozen) == [False, True, False, False]


@EACH
def test_a_models_own_name_makes_no_norms_of_its_matrices(make):
    model, decayed = make("layer_norm"), make("bias_net")
    rule = {"weight_decay": aj.matrices(0.5)}
    for each in (model, decayed):
        optimizer = OptaxOptimizer(aj.sgdw, 0.0, options=rule)
        before = [v.numpy() for v in each.trainable_variables]
        optimizer.build(each.trainable_variables)
        optimizer.apply([np.zeros(v.shape, np.float32) for v in each.trainable_variables])
        for b, v, factor in zip(before, each.trainable_variables, (0.5, 1.0, 0.5, 1.0), strict=True):
            np.testing.assert_allclose(v.numpy(), factor * b, rtol=1e-6)


@EACH
def test_a_models_own_name_excludes_nothing_from_the_decay(make):
    for optimizer in (
        AdamW(weight_decays=[(0, 0.5)] * 4, total_iterations=4, init_verbose=False),
        OptaxOptimizer(aj.adamw, 0.0, options={"weight_decay": 0.5}),
    ):
        model = make("debias_net")
        optimizer.exclude_from_weight_decay(var_names=["bias"], var_list=[model.get_layer("out")])
        for v in model.trainable_variables:
            v.assign(np.ones(v.shape))
        before = [v.numpy() for v in model.trainable_variables]
        optimizer.learning_rate = 0.0
        optimizer.build(model.trainable_variables)
        optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables])
        moves = [not np.array_equal(b, v.numpy()) for b, v in zip(before, model.trainable_variables, strict=True)]
        assert moves == [True, False, False, False]


def named(*paths):
    return Weights.of([types.SimpleNamespace(path=path) for path in paths])


def test_what_all_paths_begin_with_is_no_name_without_the_model():
    weights = named("backbone/d/kernel", "backbone/d/bias")
    assert weights.keys == ["d/kernel", "d/bias"]
    assert weights.find("freeze", "backbone/d/bias") == weights.find("freeze", "backbone/bias") == [1]
    with pytest.raises(ValueError, match="'back', which matches none"):
        weights.find("freeze", "back")
    with pytest.raises(ValueError, match=r"all paths begin with 'backbone'.*use the layer as the key, or .*model="):
        weights.find("freeze", "backbone")
    # A pattern that is in a layer's name, too, is the layer's.
    assert named("lstm/lstm_1/lstm_cell/kernel", "lstm/dense/kernel").find("freeze", "lstm") == [0]
    single = named("head/kernel", "head/bias")
    assert single.keys == ["head/kernel", "head/bias"]
    assert single.find("freeze", "head") == [0, 1]


OWN_NAMES = {
    # A Sequential or subclass with a part that was built before, and one whose weights are all its own.
    "a built part": (("conv/kernel", "lstm_x/dense/kernel", "lstm_x/lstm_1/lstm_cell/kernel"), "lstm_x"),
    "a built model": (("backbone/d/kernel", "lstm_x/dense/kernel"), "lstm_x"),
    "a pattern over steps": (("backbone/d/kernel", "lstm_x/dense/kernel"), "lstm_x", "lstm.*kernel"),
    "two parts of it": (("lstm_body/d/kernel", "lstm_x/dense/kernel"), "lstm_body", "lstm_"),
    "weights of the model alone": (("lstm_x/a", "lstm_x/b"), "lstm_x"),
}


@pytest.mark.parametrize("case", OWN_NAMES)
def test_a_part_of_what_may_be_the_models_own_name_is_an_error(case):
    paths, name, *pattern = OWN_NAMES[case]
    with pytest.raises(ValueError, match=rf"a part of the model's own name, .* is found in '{name}.*in full.*model="):
        named(*paths).find("freeze", *(pattern or ["lstm"]))


def test_layers_whose_names_begin_paths_are_found():
    blocks = named("block_1/mlp/kernel", "block_2/mlp/kernel", "attention/query/kernel", "out/kernel")
    assert blocks.find("freeze", "block") == [0, 1]
    assert blocks.find("freeze", "block_2") == [1]
    assert blocks.find("freeze", "attention/.*kernel") == [2]
    assert blocks.find("freeze", "block_\\d+/") == [0, 1]
    assert blocks.find("freeze", "kernel") == [0, 1, 2, 3]
    assert blocks.find("freeze", "") == [0, 1, 2, 3]
    assert blocks.find("freeze", "ou") == [3]
    nested = named("backbone/dense/kernel", "dense/kernel")
    assert nested.find("freeze", "^dense") == [1]


def test_a_layer_of_a_former_model_is_no_name():
    former = functional("former")
    former.get_layer("hidden").name = "gone"
    model = functional("model")
    gc.disable()
    try:
        with pytest.raises(ValueError, match="'gone'"):
            AdamW(lr_multipliers={"gone": 0.5}, init_verbose=False).build(model.trainable_variables)
    finally:
        gc.enable()


def test_layers_are_keys_of_rules_and_masks():
    model = functional("model")
    hidden, out = model.get_layer("hidden"), model.get_layer("out")
    options = {"lr_multipliers": {hidden: 0.0}, "weight_decay": {out: 0.1}, "freeze": [out.bias]}
    optimizer = OptaxOptimizer(aj.adamw, 0.1, options=options)
    assert stepped(model, optimizer) == [False, False, True, False]
    again = OptaxOptimizer.from_config(optimizer.get_config())
    assert stepped(functional("model"), again) == [False, False, True, False]
    rules = {"weight_decays": {hidden: (0, 0.5)}, "lr_multipliers": {out: 0.5}}
    ours = AdamW(total_iterations=4, init_verbose=False, **rules)
    ours.build(model.trainable_variables)
    config = ours.get_config()
    assert [l2 for _, l2 in config["weight_decays"]] == [0.5, 0.5, 0.0, 0.0]
    assert config["lr_multipliers"] == [1.0, 1.0, 0.5, 0.5]
    with pytest.raises(ValueError, match=r"`options\['freeze'\]` .*<Dense name=elsewhere.*is it built, and trainable"):
        OptaxOptimizer(aj.adamw, 0.1, options={"freeze": layers.Dense(1, name="elsewhere")}).build(model.weights)
    with pytest.raises(TypeError, match=r"`lr_multipliers` must have names, layers or Variables as keys, got 3"):
        AdamW(lr_multipliers={3: 0.5}, init_verbose=False).build(model.weights)


def test_optimizers_have_names_of_their_own():
    makes = [
        lambda: AdamW(init_verbose=False), lambda: NadamW(init_verbose=False), lambda: SGDW(init_verbose=False),
        lambda: OptaxOptimizer(aj.adamw, 0.1),
    ]  # fmt: skip
    for make in makes:
        first, second = make(), make()
        assert first.name != second.name
        assert not {v.path for v in first.variables} & {v.path for v in second.variables}


def test_a_state_tree_of_two_optimizers_has_both():
    model = functional("model")
    pair = keras.optimizers.OptimizerMap(AdamW(init_verbose=False), {"out/.*": AdamW(init_verbose=False)})
    model.compile(keras.optimizers.MultiOptimizer(pair), "mse", run_eagerly=True)
    model.train_on_batch(*data(1))
    tree = model.get_state_tree(value_format="numpy_array")
    moments = [name for part in tree["optimizer_variables"].values() for name in part if name.endswith("_mu")]
    assert len(moments) == 4


def test_rules_by_position_count_what_the_user_has():
    model = functional("model")
    model.get_layer("hidden").quantize("float8")
    every = len(model.trainable_variables)
    assert every > 4
    multipliers = [0.0 if v.path == "out/bias" else 1.0 for v in model.trainable_variables]
    optimizer = AdamW(lr_multipliers=multipliers, init_verbose=False)
    optimizer.build(model.trainable_variables)
    assert optimizer.get_config()["lr_multipliers"] == [1.0, 1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=rf"per trainable variable \(4\), or with the {every - 4} .* \({every}\)"):
        AdamW(lr_multipliers=[1.0] * 5, init_verbose=False).build(model.trainable_variables)
