"""Penalties as decays: which weights are found, what is zeroed, what stays intact."""

import types

import keras
import numpy as np
import pytest
from keras import layers
from keras.regularizers import L1, L1L2, L2

from adamw_jax.keras import AdamW, fill_dict_in_order, get_weight_decays, restore_penalties
from adamw_jax.keras._adamw._rules import WeightRules
from adamw_jax.keras._paths import unique_paths
from adamw_jax.keras._weights import Weights
from tests.keras_models import data, dense, recurrent

REG = {"kernel_regularizer": L2(0.25)}


class Custom(layers.Layer):
    def build(self, shape):
        self.inner = layers.Dense(2, **REG)
        self.inner.build(shape)
        self.own = self.add_weight(shape=(2,), regularizer=L1(0.125), name="own")

    def call(self, x):
        return self.inner(x) + self.own


SEQUENCE = (None, 5, 3)
LAYERS = {
    "Dense": (lambda: layers.Dense(2, bias_regularizer=L1(0.125), **REG), (None, 3), 2),
    "Conv2D": (lambda: layers.Conv2D(2, 2, **REG), (None, 4, 4, 3), 1),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(2, depthwise_regularizer=L2(0.25)), (None, 4, 4, 3), 1),
    "LSTM": (lambda: layers.LSTM(2, recurrent_regularizer=L1(0.125), bias_regularizer=L2(0.25), **REG), SEQUENCE, 3),
    "GRU": (lambda: layers.GRU(2, **REG), SEQUENCE, 1),
    "Bidirectional": (lambda: layers.Bidirectional(layers.GRU(2, **REG)), SEQUENCE, 2),
    "StackedRNNCells": (lambda: layers.RNN([layers.GRUCell(2, **REG), layers.LSTMCell(2, **REG)]), SEQUENCE, 2),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(2, **REG)), SEQUENCE, 1),
    "Embedding": (lambda: layers.Embedding(4, 2, embeddings_regularizer=L1L2(0.125, 0.25)), (None, 5), 1),
    "MultiHeadAttention": (lambda: SelfAttention(), SEQUENCE, 4),
    "LayerNormalization": (lambda: layers.LayerNormalization(gamma_regularizer=L2(0.25)), (None, 3), 1),
    "BatchNormalization": (lambda: layers.BatchNormalization(beta_regularizer=L2(0.25)), (None, 3), 1),
    "PReLU": (lambda: layers.PReLU(alpha_regularizer=L1(0.125)), (None, 3), 1),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(2, **REG)), (None, 3), 1),
    "nested": (lambda: keras.Sequential([keras.Sequential([layers.Dense(2, **REG)]), layers.Dense(2)]), (1, 3), 1),
    "custom": (Custom, (None, 3), 2),
}  # fmt: skip


class SelfAttention(layers.Layer):
    def build(self, shape):
        self.attention = layers.MultiHeadAttention(1, 2, **REG)
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_gives_its_decays_and_loses_its_penalties(name):
    make, shape, count = LAYERS[name]
    model = keras.Sequential([make()])
    model.build(shape)
    penalties = sum(float(loss) for loss in model.losses)
    decays = get_weight_decays(model, zero_penalties=True)
    assert len(decays) == count
    assert set(decays.values()) <= {(0.0, 0.25), (0.125, 0.0), (0.125, 0.25)}
    assert [float(loss) for loss in model.losses] == [0.0] * len(model.losses)
    for layer in model._flatten_layers():
        for attribute, value in vars(layer).items():
            if attribute.endswith("regularizer") and value is not None:
                assert not any(keras.regularizers.serialize(value)["config"].values()), (layer, attribute)
    assert get_weight_decays(model) == decays
    restore_penalties(model)
    assert sum(float(loss) for loss in model.losses) == penalties


def test_the_numbers_are_those_that_were_typed():
    # L1 keeps float32, where 1e-4 is 9.999999747378752e-05.
    model = dense(regularizer=L1(1e-4))
    assert get_weight_decays(model) == {"hidden/kernel": (1e-4, 0.0)}


def test_zero_entries_are_kept_for_fill_dict_in_order():
    decays = get_weight_decays(dense(regularizer=L2(0)))
    assert decays == {"hidden/kernel": (0.0, 0.0)}
    assert fill_dict_in_order(decays, [(1e-4, 2e-4)]) == {"hidden/kernel": (1e-4, 2e-4)}
    with pytest.raises(ValueError, match=r"`values` must have one value per key \(1\)"):
        fill_dict_in_order(decays, [])


def test_other_regularizers_stay_in_the_loss_with_a_warning():
    model = dense(regularizer=keras.regularizers.OrthogonalRegularizer(0.5))
    before = float(model.losses[0])
    with pytest.warns(UserWarning, match="OrthogonalRegularizer of 'hidden/kernel'.* stays in the loss"):
        assert get_weight_decays(model, zero_penalties=True) == {}
    assert float(model.losses[0]) == before > 0


def test_shared_regularizer_objects_stay_intact():
    shared = L2(0.25)
    model, other = dense(regularizer=shared, activity_regularizer=shared), dense(regularizer=shared)
    penalty = float(other.losses[0])
    get_weight_decays(model, zero_penalties=True)
    assert shared.l2 == 0.25
    assert float(other.losses[0]) == penalty > 0
    assert model.get_layer("hidden").activity_regularizer is shared


def test_a_saved_model_carries_no_second_penalty(tmp_path):
    model, (x, y) = recurrent(), (np.zeros((4, 5, 3), np.float32), np.zeros((4, 1), np.float32))
    model.compile(AdamW(model=model, total_iterations=10, init_verbose=False), "mse")
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [float(loss) for loss in loaded.losses] == [0.0] * len(loaded.losses)
    assert loaded.optimizer.get_config()["weight_decays"] == model.optimizer.get_config()["weight_decays"]
    assert [tuple(d) for d in loaded.optimizer.get_config()["weight_decays"] if any(d)] == [
        (0.01, 0.0), (0.0, 0.02), (0.0, 0.02), (0.01, 0.03),
    ]  # fmt: skip


def test_a_second_optimizer_finds_the_same_decays():
    model = recurrent()
    first, second = (AdamW(model=model, total_iterations=10, init_verbose=False) for _ in range(2))
    for optimizer in (first, second):
        optimizer.build(model.trainable_variables)
    assert first.get_config()["weight_decays"] == second.get_config()["weight_decays"]
    assert any(map(any, second.get_config()["weight_decays"]))


def test_an_unbuilt_model_is_read_when_the_optimizer_is_built():
    model = keras.Sequential([layers.Dense(2, **REG), layers.Dense(1)])
    with pytest.raises(ValueError, match="`model` must be built"):
        get_weight_decays(model)
    model.compile(AdamW(model=model, total_iterations=10, init_verbose=False), "mse")
    x, y = data()
    loss = model.train_on_batch(x, y)
    assert model.optimizer.get_config()["weight_decays"] == [(0.0, 0.25), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    assert [float(loss) for loss in model.losses] == [0.0]
    assert loss < 100


def test_a_layer_frozen_later_is_named():
    model = dense(regularizer=L2(0.25))
    optimizer = AdamW(model=model, total_iterations=10, init_verbose=False)
    model.get_layer("hidden").trainable = False
    with pytest.warns(UserWarning, match=r"penalty zeroed, but no decay.*hidden/kernel"):
        optimizer.build(model.trainable_variables)


LSTM_1 = "sequential/lstm_1/lstm_cell"
PATHS = [f"{LSTM_1}/kernel", f"{LSTM_1}/recurrent_kernel", "dense/kernel", "d/dense/kernel"]


def resolved(weight_decays=None, lr_multipliers=None):
    rules = WeightRules(None, True, weight_decays, lr_multipliers)
    weights = Weights.of([types.SimpleNamespace(path=path) for path in PATHS])
    rules.resolve(weights, weights.variables, [False] * 4, False)
    return rules


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("sequential/lstm_1/lstm_cell/kernel", 0),
        ("lstm_1/kernel:0", 0),
        ("lstm_1/recurrent_kernel:0", 1),
        ("recurrent_kernel", 1),
        ("dense/kernel", 2),
        ("d/dense/kernel:0", 3),
    ],
)
def test_a_typed_key_means_one_weight(key, index):
    expected = [(0.0, 0.0)] * 4
    expected[index] = (0.5, 0.25)
    assert resolved(weight_decays={key: (0.5, 0.25)}).decays == expected


def test_a_key_is_a_path_or_names_or_a_pattern():
    decay = (0.0, 0.5)
    for key, expected in (
        ("lstm_1", [0, 1]),
        ("sequential", [0, 1]),
        ("dense", [2, 3]),
        ("d", [3]),
        ("d/kernel", [3]),
        ("kernel", [0, 1, 2, 3]),
        ("/kernel$", [0, 2, 3]),
        ("lstm_cell/kernel", [0]),
    ):
        assert [i for i, pair in enumerate(resolved({key: decay}).decays) if pair == decay] == expected, key


def test_bad_keys_and_values_are_named_with_the_paths():
    with pytest.raises(ValueError, match=r"`weight_decays` must match .*'gru/kernel'.*the nearest are .*dense/kernel"):
        resolved({"gru/kernel": (0, 0)})
    for value, rule in (((1, 2, 3), "must be a number l2 or a pair"), ((-1, 0), "l1` must be a finite number in")):
        with pytest.raises(ValueError, match=rf"`weight_decays\['dense/kernel'\].*{rule}"):
            resolved({"dense/kernel": value})
    with pytest.raises(ValueError, match="'gru' is part of no path"):
        resolved(lr_multipliers={"gru": 0.5})
    with pytest.raises(ValueError, match=r"`lr_multipliers\['lstm'\]` must be a finite number in"):
        resolved(lr_multipliers={"lstm": -1})


def test_the_first_key_that_means_a_weight_decides():
    assert resolved(lr_multipliers={"recurrent": 2, "lstm": 0.5}).multipliers == [0.5, 2.0, 1.0, 1.0]
    decays = resolved({"d": (0, 1), "kernel": (0, 2)}).decays
    assert [l2 for _, l2 in decays] == [2.0, 2.0, 2.0, 1.0]


def test_repeated_paths_are_told_apart():
    variables = [keras.Variable(np.zeros(1), name="w") for _ in range(3)]
    assert unique_paths(variables) == ["w", "w#2", "w#3"]
    optimizer = AdamW(weight_decays={"w#2": (0, 1.0)}, total_iterations=2, init_verbose=False)
    optimizer.build(variables)
    assert optimizer.get_config()["weight_decays"] == [(0.0, 0.0), (0.0, 1.0), (0.0, 0.0)]


def half_frozen():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a", **REG), layers.Dense(1, name="b", **REG)])
    model.get_layer("a").trainable = False
    return model


def test_only_penalties_that_were_read_are_zeroed(tmp_path):
    model = half_frozen()
    AdamW(model=model, total_iterations=10, init_verbose=False)
    assert [float(layer.kernel.regularizer(layer.kernel)) > 0 for layer in model.layers] == [True, False]
    assert [model.get_layer(name).kernel_regularizer.l2 for name in "ab"] == [0.25, 0.0]
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    loaded.get_layer("a").trainable = True
    with pytest.warns(UserWarning, match=r"`model` gives no decay to \['.*b/kernel'\].*coefficients 0"):
        optimizer = AdamW(model=loaded, total_iterations=10, init_verbose=False)
    assert [decay for decay in optimizer.weight_decays.values() if any(decay)] == [(0.0, 0.25)]
    restore_penalties(model)
    assert [float(layer.kernel.regularizer(layer.kernel)) > 0 for layer in model.layers] == [True, True]
    assert model.get_layer("b").kernel_regularizer.l2 == 0.25


def test_one_object_on_a_frozen_and_a_trained_layer():
    shared = L2(0.25)
    model = keras.Sequential([keras.Input((4,)), *(layers.Dense(2, name=n, kernel_regularizer=shared) for n in "ab")])
    model.get_layer("a").trainable = False
    get_weight_decays(model, zero_penalties=True)
    assert [model.get_layer(name).kernel_regularizer.l2 for name in "ab"] == [0.25, 0.0]


COPIES = {
    "clone_model": keras.models.clone_model,
    "to_json": lambda model: keras.models.model_from_json(model.to_json()),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_a_zeroed_model_says_that_it_has_no_decays(way):
    model = dense(regularizer=L2(0.25))
    AdamW(model=model, total_iterations=10, init_verbose=False)
    with pytest.warns(UserWarning, match=r"`model` gives no decay to \['hidden/kernel'\]"):
        AdamW(model=COPIES[way](model), total_iterations=10, init_verbose=False)
    restore_penalties(model)
    assert get_weight_decays(COPIES[way](model)) == {"hidden/kernel": (0.0, 0.25)}


def test_a_regularizer_set_after_the_layer_was_built_is_named_and_kept():
    model = dense()
    model.get_layer("hidden").kernel_regularizer = L2(0.25)
    with pytest.warns(UserWarning, match=r"gives no decay for \['hidden.kernel_regularizer'\]: set after"):
        AdamW(model=model, total_iterations=10, init_verbose=False)
    assert model.get_layer("hidden").kernel_regularizer.l2 == 0.25


def test_a_layer_without_bias_may_have_a_regularizer_for_one():
    model = dense(use_bias=False, bias_regularizer=L2(0.25))
    AdamW(model=model, total_iterations=10, init_verbose=False)


def test_repeated_paths_go_round_by_method_2():
    inputs = keras.Input((4,))
    parts = [
        keras.Model(i := keras.Input((4,)), layers.Dense(4, name="d", **REG)(i), name=name) for name in ("one", "two")
    ]
    model = keras.Model(inputs, parts[1](parts[0](inputs)))
    decays = get_weight_decays(model)
    assert list(decays) == ["d/kernel#1", "d/kernel#2"]
    optimizer = AdamW(
        weight_decays=fill_dict_in_order(decays, [(0, 1), (0, 2)]), total_iterations=2, init_verbose=False
    )
    optimizer.build(model.trainable_variables)
    assert [l2 for _, l2 in optimizer.get_config()["weight_decays"]] == [1.0, 0.0, 2.0, 0.0]


def penalty(model):
    return float(sum(model.losses))


def test_a_penalty_that_is_zero_when_an_optimizer_is_built_counts_when_it_is_raised():
    for make in (
        lambda model: AdamW(init_verbose=False),
        lambda model: AdamW(weight_decays={"out": (0, 0.1)}, total_iterations=4, init_verbose=False),
        lambda model: keras.optimizers.SGD(0.1),
    ):
        mine = L2(0.0)
        model = dense(regularizer=mine)
        make(model).build(model.trainable_variables)
        mine.l2 = 0.5
        kernel = model.get_layer("hidden").kernel
        assert penalty(model) == pytest.approx(0.5 * float((kernel.numpy() ** 2).sum()), rel=1e-6)
    mine = L2(0.0)
    model = dense(regularizer=mine)
    with pytest.warns(UserWarning, match="gives no decay to"):
        AdamW(model=model, total_iterations=4, init_verbose=False)
    mine.l2 = 0.5
    assert penalty(model) > 0


def test_a_replacement_that_is_raised_counts_again(tmp_path):
    model, (x, y) = dense(regularizer=L2(0.25)), data(1)
    model.compile(AdamW(model=model, total_iterations=4, init_verbose=False), "mse", run_eagerly=True)
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        assert penalty(each) == 0
        each.get_layer("hidden").kernel_regularizer.l2 = 0.5
        square = float((each.get_layer("hidden").kernel.numpy() ** 2).sum())
        assert penalty(each) == pytest.approx(0.5 * square, rel=1e-6)
        assert get_weight_decays(each) == {"hidden/kernel": (0.0, 0.5)}


def test_decays_without_total_iterations_name_the_choices():
    model = dense(regularizer=L2(0.25))
    for rules in ({"weight_decays": {"out/kernel": (0, 1e-3)}}, {"weight_decays": [(0, 1e-3)] * 4}, {"model": model}):
        with pytest.raises(
            ValueError, match=r"`total_iterations` must be given.*sqrt.* or 0,.*OptaxOptimizer\(adamw_jax"
        ):
            AdamW(1e-2, **rules)
    assert penalty(model) > 0
    AdamW(model=dense(), init_verbose=False)  # without penalties there is nothing to decay


def test_a_misspelt_key_is_an_error_while_decays_are_off():
    with pytest.warns(UserWarning, match="total_iterations=0 must be > 1"):
        optimizer = AdamW(weight_decays={"haed": (0, 1e-3)}, total_iterations=0, init_verbose=False)
    with pytest.raises(ValueError, match="'haed', which matches none"):
        optimizer.build(dense().trainable_variables)


def test_the_table_shows_what_the_normalization_leaves(capsys):
    model = dense()
    AdamW(weight_decays={"out/kernel": (0, 1e-2)}, total_iterations=4).build(model.trainable_variables)
    lines = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    assert lines["out/kernel"] == "0.005"
    with pytest.warns(UserWarning, match="going on without either"):
        off = AdamW(weight_decays={"out/kernel": (0, 1e-2)}, total_iterations=0)
    off.build(model.trainable_variables)
    lines = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    assert lines["out/kernel"] == "0"


def test_names_are_kept_after_loading(tmp_path):
    model, rules = dense(), {"weight_decays": {"out/kernel": (0.0, 1e-3)}, "lr_multipliers": {"hidden/kernel": 0.5}}
    model.compile(AdamW(total_iterations=4, init_verbose=False, **rules), "mse")
    model.optimizer.build(model.trainable_variables)
    for name in ("a.keras", "b.keras"):
        model.save(tmp_path / name)
        model = keras.models.load_model(tmp_path / name)
        assert {rule: getattr(model.optimizer, rule) for rule in rules} == rules
