"""keras-adamw's documented behaviour, for its three classes on Keras 3."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.regularizers import L1, L1L2, L2

from adamw_jax.keras import SGDW, AdamW, NadamW, fill_dict_in_order, get_weight_decays
from tests.keras_models import close, data, dense, recurrent, same, sequences, states, values

CLASSES = {"AdamW": AdamW, "NadamW": NadamW, "SGDW": SGDW}
EACH = pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)


def cosine(t_cur, total, eta_min=0.0, eta_max=1.0):
    return eta_min + 0.5 * (eta_max - eta_min) * (1 + np.cos(np.pi * t_cur / (total - 1)))


def compiled(make, model=None, **options):
    model = model or dense()
    model.compile(make(**{"init_verbose": False} | options), "mse")
    return model


@EACH
def test_warm_restarts_follow_the_formula_and_survive_saving(make, tmp_path):
    model = recurrent()
    options = {"use_cosine_annealing": True, "total_iterations": 6, "init_verbose": False}
    optimizer = make(lr=1e-3, model=model, lr_multipliers={"gru": 0.5}, **options)
    model.compile(optimizer, "mse")
    assert all(float(loss) == 0.0 for loss in model.losses)
    x, y = sequences(1)
    seen = []
    for _ in range(15):
        seen.append((int(optimizer.t_cur), float(optimizer.eta_t)))
        model.train_on_batch(x, y)
    assert [t for t, _ in seen] == [*range(6), *range(6), *range(3)]
    # One float32 cosine.
    np.testing.assert_allclose([eta for _, eta in seen], [cosine(t, 6) for t, _ in seen], rtol=0, atol=2e-7)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is make
    assert same(values(loaded), values(model))
    assert same(states(loaded.optimizer), states(optimizer))
    assert int(loaded.optimizer.t_cur) == 3


@EACH
def test_a_manual_restart_acts_after_the_next_update(make):
    model, (x, y) = compiled(make, use_cosine_annealing=True, autorestart=False, total_iterations=6), data(1)
    optimizer, seen = model.optimizer, []
    for step in range(9):
        if step == 4:
            optimizer.t_cur = -1
        seen.append((int(optimizer.t_cur), float(optimizer.eta_t)))
        model.train_on_batch(x, y)
    assert [t for t, _ in seen] == [0, 1, 2, 3, -1, 0, 1, 2, 3]
    expected = [cosine(t, 6) for t in (0, 1, 2, 3, 4, 0, 1, 2, 3)]
    np.testing.assert_allclose([eta for _, eta in seen], expected, rtol=0, atol=2e-7)


@EACH
def test_without_autorestart_the_cosine_comes_back_up(make):
    model, (x, y) = compiled(make, use_cosine_annealing=True, autorestart=False, total_iterations=3), data(1)
    for t_cur in range(6):
        assert float(model.optimizer.eta_t) == pytest.approx(cosine(t_cur, 3), abs=2e-7)
        model.train_on_batch(x, y)


@EACH
def test_eta_bounds_and_start_are_settable(make):
    options = {"use_cosine_annealing": True, "total_iterations": 5, "eta_min": 0.1, "eta_max": 0.9, "t_cur": 2}
    model, (x, y) = compiled(make, **options), data(1)
    optimizer = model.optimizer
    assert float(optimizer.eta_t) == pytest.approx(cosine(2, 5, 0.1, 0.9), rel=1e-6)
    model.train_on_batch(x, y)
    assert float(optimizer.eta_t) == pytest.approx(cosine(3, 5, 0.1, 0.9), rel=1e-6)
    optimizer.eta_max, optimizer.eta_min = 0.5, 0.25
    model.train_on_batch(x, y)
    assert float(optimizer.eta_t) == pytest.approx(0.25, rel=1e-6)
    model.train_on_batch(x, y)
    assert float(optimizer.eta_t) == pytest.approx(0.5, rel=1e-6)
    given = make(eta_t=0.75, **options)
    assert float(given.eta_t) == 0.75


@EACH
def test_cycles_grow_by_t_mult(make):
    model, (x, y) = compiled(make, use_cosine_annealing=True, total_iterations=2, t_mult=2), data(1)
    seen = []
    for _ in range(8):
        seen.append(int(model.optimizer.t_cur))
        model.train_on_batch(x, y)
    assert seen == [0, 1, 0, 1, 2, 3, 0, 1]


@EACH
def test_nothing_moves_where_eta_t_is_zero(make):
    decays = {"hidden/kernel": (0.1, 0.1)}
    model, (x, y) = compiled(make, eta_t=0.0, weight_decays=decays, total_iterations=5), data(1)
    before = values(model)
    for _ in range(3):
        model.train_on_batch(x, y)
    assert same(values(model), before)
    model.optimizer.eta_t = 1.0
    model.train_on_batch(x, y)
    assert not any(np.array_equal(a, b) for a, b in zip(values(model), before, strict=True))


KERAS = {
    "Adam": (AdamW, {}, lambda: keras.optimizers.Adam(0.01)),
    "Adam, amsgrad": (AdamW, {"amsgrad": True}, lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    "Adam, epsilon": (AdamW, {"beta_1": 0.8, "epsilon": 1e-3}, lambda: keras.optimizers.Adam(0.01, 0.8, epsilon=1e-3)),
    "Nadam": (NadamW, {"schedule_decay": 1.0}, lambda: keras.optimizers.Nadam(0.01)),
    "SGD": (SGDW, {}, lambda: keras.optimizers.SGD(0.01)),
    "SGD, momentum": (SGDW, {"momentum": 0.9}, lambda: keras.optimizers.SGD(0.01, 0.9)),
    "SGD, nesterov": (SGDW, {"momentum": 0.9, "nesterov": True}, lambda: keras.optimizers.SGD(0.01, 0.9, True)),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_equals_kerass_own_form_when_extras_are_off(name):
    make, options, reference = KERAS[name]
    ours, theirs, (x, y) = dense(), dense(), data()
    ours.compile(make(0.01, init_verbose=False, **options), "mse")
    theirs.compile(reference(), "mse")
    for model in (ours, theirs):
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    # 12 updates of float32 operations in another order, with steps of at most 0.01.
    assert close(values(ours), values(theirs), rtol=2e-5, atol=2e-6)


@EACH
@pytest.mark.parametrize("total_wd", [None, 90])
def test_the_models_decays_are_applied_and_scale_with_neither_rate_nor_multiplier(make, total_wd):
    model = dense(regularizer=L1L2(0.25, 0.5))
    options = {"total_iterations": 10, "total_iterations_wd": total_wd, "init_verbose": False}
    optimizer = make(0.0, model=model, lr_multipliers={"hidden": 0.5}, **options)
    model.compile(optimizer, "mse")
    before = values(model)
    model.train_on_batch(*data(1))
    n = np.sqrt(1 / (total_wd or 10))
    expected = before[0] - n * (0.25 * np.sign(before[0]) + 0.5 * before[0])
    np.testing.assert_allclose(values(model)[0], expected, rtol=1e-6, atol=1e-7)
    assert same(values(model)[1:], before[1:])


def test_the_multiplier_scales_the_step_of_its_layers():
    moved = []
    for options in ({}, {"lr_multipliers": {"hidden": 0.25}}):
        model = compiled(AdamW, **options)
        before = values(model)
        model.train_on_batch(*data(1))
        moved.append([after - b for after, b in zip(values(model), before, strict=True)])
    for index, factor in enumerate((0.25, 0.25, 1.0, 1.0)):
        # theta + u - theta rounds to the last place of theta.
        np.testing.assert_allclose(moved[1][index], factor * moved[0][index], rtol=2e-3, atol=1e-7)


def test_method_2_fills_the_decays_in_order():
    model = recurrent()
    decays = fill_dict_in_order(
        get_weight_decays(model, zero_penalties=True), [(0, 1e-3), (1e-4, 2e-4), (0, 0), (0, 1)]
    )
    optimizer = AdamW(weight_decays=decays, total_iterations=10, init_verbose=False)
    optimizer.build(model.trainable_variables)
    resolved = optimizer.get_config()["weight_decays"]
    assert [pair for pair in resolved if any(pair)] == [(0.0, 1e-3), (1e-4, 2e-4), (0.0, 1.0)]


def test_decay_divides_the_rate():
    decaying = compiled(SGDW, learning_rate=0.5, decay=1.0)
    weight = decaying.trainable_variables[0]
    optimizer = decaying.optimizer
    optimizer.build(decaying.trainable_variables)
    steps = []
    for _ in range(3):
        before = weight.numpy()
        optimizer.apply([np.ones(v.shape, np.float32) for v in decaying.trainable_variables])
        steps.append((before - weight.numpy()).mean())
    np.testing.assert_allclose(steps, [0.5, 0.25, 0.5 / 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("coupling", "factor"), [("schedule", 0.25), ("learning_rate", 0.25 * 0.125), ("constant", 1.0)]
)
def test_coupling_says_what_multiplies_the_decay(coupling, factor):
    variable = keras.Variable(np.full(2, 4.0, np.float32), name="w")
    optimizer = AdamW(
        0.125, weight_decays={"w": (0, 0.5)}, total_iterations=4, eta_t=0.25, coupling=coupling, init_verbose=False
    )
    optimizer.apply([np.zeros(2, np.float32)], [variable])
    np.testing.assert_allclose(variable.numpy(), 4.0 - factor * 0.5 * 0.5 * 4.0, rtol=1e-6)


def test_init_verbose_prints_one_aligned_table(capsys):
    model = recurrent()
    AdamW(model=model, total_iterations=4, lr_multipliers={"gru": 0.5}).build(model.trainable_variables)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["weight", "shape", "rate", "x", "l1", "l2"]
    assert set(lines.pop(1)) == {"-"}
    assert [line.split()[0] for line in lines[1:]] == [v.path for v in model.trainable_variables]
    assert lines[1].split()[-3:] == ["0.5", "0.005", "0"]
    column = lines[0].index("shape")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert len({len(line) for line in lines}) == 1  # the numbers end under each other


@EACH
def test_too_few_iterations_warn_and_go_on_without(make):
    with pytest.warns(UserWarning, match=r"total_iterations=0 must be > 1.*going on without either"):
        optimizer = make(
            weight_decays={"w": (0, 0.5)}, total_iterations=0, use_cosine_annealing=True, init_verbose=False
        )
    variable = keras.Variable(np.ones(1, np.float32), name="w")
    for _ in range(2):
        optimizer.apply([np.zeros(1, np.float32)], [variable])
    assert float(optimizer.eta_t) == 1.0
    assert variable.numpy() == 1.0


def test_penalties_stay_in_the_loss_when_decay_is_off():
    model = dense(regularizer=L2(0.25))
    with pytest.warns(UserWarning, match="penalties stay in the loss"):
        AdamW(model=model, total_iterations=0, init_verbose=False)
    assert float(model.losses[0]) > 0


def test_zero_penalties_false_keeps_them():
    model = dense(regularizer=L2(0.25))
    optimizer = AdamW(model=model, total_iterations=10, zero_penalties=False, init_verbose=False)
    optimizer.build(model.trainable_variables)
    assert float(model.losses[0]) > 0
    assert optimizer.get_config()["weight_decays"][0] == (0.0, 0.25)


def test_the_model_wins_over_weight_decays():
    model = dense(regularizer=L2(0.25))
    with pytest.warns(UserWarning, match="`weight_decays` is ignored"):
        optimizer = AdamW(model=model, weight_decays={"a": (0, 1)}, total_iterations=10, init_verbose=False)
    optimizer.build(model.trainable_variables)
    assert optimizer.get_config()["weight_decays"][0] == (0.0, 0.25)


@EACH
def test_the_whole_configuration_goes_round(make):
    options = {
        "learning_rate": 0.25, "decay": 0.5, "total_iterations": 7, "total_iterations_wd": 21, "t_mult": 2,
        "use_cosine_annealing": True, "autorestart": False, "eta_min": 0.125, "eta_max": 0.75, "t_cur": 3,
        "eta_t": 0.5, "coupling": "constant", "moment_dtype": "float32",
        "init_verbose": False, "clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.5,
        "weight_decays": {"hidden/kernel": (0.1, 0.2)}, "lr_multipliers": {"hidden": 0.5}, "name": "mine",
    }  # fmt: skip
    own = {
        AdamW: {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "amsgrad": True},
        NadamW: {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "schedule_decay": 0.5},
        SGDW: {"momentum": 0.5, "nesterov": True},
    }[make]
    config = make(**options, **own).get_config()
    assert {name: config[name] for name in [*options, *own]} == options | own
    again = keras.optimizers.deserialize(keras.optimizers.serialize(make.from_config(config)))
    assert type(again) is make
    assert again.get_config() == config
    model = dense()
    again.build(model.trainable_variables)
    built = again.get_config()
    assert built["weight_decays"] == [(0.1, 0.2), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    assert built["lr_multipliers"] == [0.5, 0.5, 1.0, 1.0]
    renamed = make.from_config(built)
    renamed.build([keras.Variable(v.value, name=f"other_{i}") for i, v in enumerate(model.trainable_variables)])
    assert renamed.get_config() == built


BAD = {
    "`autorestart` needs": {"autorestart": True},
    "`momentum` must": {"make": SGDW, "momentum": 1.5},
    "`momentum` must be ": {"make": SGDW, "momentum": -0.1},
    "`beta_1` must": {"beta_1": 1.0},
    "`beta_2` must": {"make": NadamW, "beta_2": -1.0},
    "`epsilon` must": {"epsilon": 0.0},
    "`total_iterations` must": {"total_iterations": 2.5},
    "`total_iterations_wd` must": {"total_iterations_wd": -3},
    "`eta_min` must not be above `eta_max`": {"eta_min": 2.0},
    "`eta_t` must": {"eta_t": -1.0},
    "`decay` must": {"decay": -1.0},
    "`coupling` must": {"coupling": "both"},
    "`t_mult` must": {"t_mult": 0},
    "`weight_decay` is not an argument here": {"weight_decay": 0.1},
    "not recognized: {'total_iteration'": {"total_iteration": 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_name_themselves(message):
    options = dict(BAD[message])
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        options.pop("make", AdamW)(**options)


def test_a_model_in_the_place_of_the_rate_is_refused():
    with pytest.raises(TypeError, match="pass the model as `model=model`"):
        AdamW(dense())


def test_rules_of_another_length_are_refused():
    model = dense()
    for name, rule in (("weight_decays", [(0, 1)]), ("lr_multipliers", [1.0])):
        optimizer = AdamW(total_iterations=10, init_verbose=False, **{name: rule})
        with pytest.raises(ValueError, match=rf"`{name}` must have one value per trainable variable \(4\)"):
            optimizer.build(model.trainable_variables)


def test_the_readme_example_of_keras_adamw_runs():
    from keras.layers import LSTM, Dense, Input
    from keras.models import Model
    from keras.regularizers import l1, l1_l2, l2

    ipt = Input(shape=(6, 4))
    x = LSTM(3, activation="relu", name="lstm_1", kernel_regularizer=l1(1e-4), recurrent_regularizer=l2(2e-4))(ipt)
    out = Dense(1, activation="sigmoid", kernel_regularizer=l1_l2(1e-4, 2e-4))(x)
    model = Model(ipt, out)
    optimizer = AdamW(
        lr=1e-4, model=model, lr_multipliers={"lstm_1": 0.5}, use_cosine_annealing=True, total_iterations=24
    )
    model.compile(optimizer, loss="binary_crossentropy")
    rng = np.random.RandomState(0)
    for _ in range(3):
        for iteration in range(24):
            assert int(optimizer.t_cur) == iteration
            assert np.isfinite(model.train_on_batch(rng.rand(10, 6, 4), rng.randint(0, 2, (10, 1))))
    assert [pair for pair in optimizer.get_config()["weight_decays"] if any(pair)] == [
        (1e-4, 0.0), (0.0, 2e-4), (1e-4, 2e-4),
    ]  # fmt: skip


def test_embeddings_and_constraints():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = layers.GRU(2, recurrent_regularizer=L1(1e-4))(layers.Embedding(5, 3, mask_zero=True)(inputs))
    limit = keras.constraints.MaxNorm(0.5)
    outputs = layers.Dense(2, activation="softmax", kernel_constraint=limit)(x)
    model = keras.Model(inputs, outputs)
    model.compile(AdamW(0.1, decay=1e-3, init_verbose=False), "sparse_categorical_crossentropy")
    rng = np.random.RandomState(0)
    model.fit(rng.randint(0, 5, (8, 4)), rng.randint(0, 2, 8), batch_size=4, verbose=0)
    norms = np.linalg.norm(model.layers[-1].kernel.numpy(), axis=0)
    assert (norms <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("moment_dtype", ["packed", "bfloat16"])
@pytest.mark.parametrize("make", [AdamW, NadamW, SGDW])
def test_narrow_moments_train_and_are_saved(make, moment_dtype, tmp_path):
    x, y = data()
    model = dense()
    model.compile(make(1e-2, moment_dtype=moment_dtype, init_verbose=False), loss="mse")
    losses = model.fit(x, y, batch_size=8, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    slots = [v for v in model.optimizer.variables if v.shape == model.trainable_variables[0].shape]
    expected = "uint32" if moment_dtype == "packed" and make is not SGDW else "bfloat16"
    assert {keras.backend.standardize_dtype(v.dtype) for v in slots} == {expected}
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert same(states(loaded.optimizer), states(model.optimizer))
