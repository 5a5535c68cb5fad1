"""What can be read from the optimizers, what can be set, and what refuses."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from keras import layers
from keras.regularizers import L2

from adamw_jax.keras import SGDW, AdamW, NadamW, OptaxOptimizer
from tests.keras_models import data, dense

CLASSES = {"AdamW": AdamW, "NadamW": NadamW, "SGDW": SGDW}
EACH = pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
GIVEN = {
    "decay": 0.5, "zero_penalties": False, "total_iterations": 7, "total_iterations_wd": 21, "t_mult": 2,
    "use_cosine_annealing": True, "autorestart": False, "coupling": "constant", "moment_dtype": "float32",
    "init_verbose": False,
}  # fmt: skip
OWN = {
    AdamW: {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "amsgrad": True},
    NadamW: {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "schedule_decay": 0.5},
    SGDW: {"momentum": 0.5, "nesterov": True},
}
SETTABLE = {"learning_rate": 0.25, "eta_min": 0.125, "eta_max": 0.75, "t_cur": 3, "eta_t": 0.5}


def variables():
    return [keras.Variable(np.full(2, 2.0, np.float32), name=name) for name in ("kernel", "bias")]


def stepped(optimizer, own, count=1, gradient=0.0):
    for _ in range(count):
        optimizer.apply([np.full(2, gradient, np.float32) for _ in own], own)
    return [v.numpy() for v in own]


@EACH
def test_every_option_can_be_read_and_the_fixed_ones_refuse(make):
    rules = {"weight_decays": {"kernel": (0.1, 0.2)}, "lr_multipliers": {"kernel": 0.5}}
    optimizer = make(**GIVEN, **OWN[make], **SETTABLE, **rules)
    assert set(optimizer._options) == {*GIVEN, *OWN[make]}
    for name, value in (GIVEN | OWN[make] | rules).items():
        assert getattr(optimizer, name) == value
        with pytest.raises(ValueError, match=rf"`{name}` can"):
            setattr(optimizer, name, value)
    for name, value in SETTABLE.items():
        assert float(getattr(optimizer, name)) == value
        setattr(optimizer, name, 2 * value)
        assert float(getattr(optimizer, name)) == 2 * value
    optimizer.lr = 0.125
    assert float(optimizer.learning_rate) == float(optimizer.lr) == 0.125
    with pytest.raises(AttributeError, match="no attribute 'beta_3'"):
        optimizer.beta_3  # noqa: B018, because reading is what raises
    with pytest.raises(TypeError):
        optimizer._options["decay"] = 1.0


def test_the_decays_of_a_model_are_read_by_path():
    model = dense(regularizer=L2(0.25))
    optimizer = AdamW(model=model, total_iterations=10, init_verbose=False)
    assert optimizer.weight_decays == {"hidden/kernel": (0.0, 0.25)}
    optimizer.build(model.trainable_variables)
    assert optimizer.weight_decays["hidden/kernel"] == (0.0, 0.25)
    assert list(optimizer.weight_decays) == [v.path for v in model.trainable_variables]


def cosine(t_cur, total):
    return 0.5 * (1 + np.cos(np.pi * t_cur / (total - 1)))


@EACH
@pytest.mark.parametrize("at", [0, 2, 4])
def test_total_iterations_acts_from_the_next_cycle_on(make, at):
    optimizer = make(use_cosine_annealing=True, total_iterations=4, init_verbose=False)
    own, seen = variables(), []
    for step in range(12):
        if step == at:
            optimizer.total_iterations = 6
        seen.append((int(optimizer.t_cur), float(optimizer.eta_t)))
        stepped(optimizer, own)
    first = [(t, 6) for t in range(6)] if at == 0 else [(t, 4) for t in range(4)]
    expected = (first + [(t, 6) for t in range(6)] * 2)[:12]
    assert [t for t, _ in seen] == [t for t, _ in expected]
    # One float32 cosine.
    np.testing.assert_allclose([eta for _, eta in seen], [cosine(*each) for each in expected], rtol=0, atol=2e-7)
    assert optimizer.total_iterations == optimizer.get_config()["total_iterations"] == 6
    assert optimizer.get_config()["total_iterations_wd"] == 4


def test_total_iterations_with_a_restart_by_hand_survives_saving(tmp_path):
    model, (x, y) = dense(), data(1)
    model.compile(AdamW(use_cosine_annealing=True, autorestart=False, total_iterations=4, init_verbose=False), "mse")
    optimizer, seen = model.optimizer, []
    for step in range(8):
        if step == 2:
            optimizer.t_cur, optimizer.total_iterations = -1, 6
        seen.append((int(optimizer.t_cur), float(optimizer.eta_t)))
        model.train_on_batch(x, y)
    assert [t for t, _ in seen] == [0, 1, -1, 0, 1, 2, 3, 4]
    etas = [*(cosine(t, 4) for t in range(3)), *(cosine(t, 6) for t in range(5))]
    np.testing.assert_allclose([eta for _, eta in seen], etas, rtol=0, atol=2e-7)
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    for each in (model, loaded):
        each.train_on_batch(x, y)
    assert float(loaded.optimizer.eta_t) == float(optimizer.eta_t)
    assert loaded.optimizer.total_iterations == 6


@pytest.mark.parametrize("options", [{}, {"use_cosine_annealing": True, "total_iterations": 4, "t_mult": 2}])
def test_total_iterations_refuses_where_no_cycle_takes_it(options):
    optimizer = AdamW(init_verbose=False, **options)
    with pytest.raises(ValueError, match=r"`total_iterations` can be set under `use_cosine_annealing=True` with"):
        optimizer.total_iterations = 9


def test_bounds_that_nobody_reads_refuse():
    with pytest.raises(ValueError, match=r"`eta_max` can be set under `use_cosine_annealing=True`.*eta_max=0.5"):
        AdamW(init_verbose=False).eta_max = 0.5


BAD = {
    "t_cur": (2.5, ValueError, "must be an integer"), "t_cur ": ("3", TypeError, "must be a number"),
    "eta_t": (-1.0, ValueError, "must be a finite number"), "eta_min": ("0", TypeError, "must be a number"),
    "total_iterations": (1, ValueError, "must be an integer from 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_values_of_another_kind_are_refused_when_set_and_when_made(name):
    value, error, rule = BAD[name]
    options = {"use_cosine_annealing": True, "total_iterations": 4, "init_verbose": False}
    optimizer = AdamW(**options)
    with pytest.raises(error, match=f"`{name.strip()}` {rule}"):
        setattr(optimizer, name.strip(), value)
    if name != "total_iterations":
        with pytest.raises(error, match=f"`{name.strip()}`"):
            AdamW(**options | {name.strip(): value})


NUMBERS = [np.float32(0.5), np.int64(2), jnp.float32(0.5), np.float64(0.5), 2]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_every_kind_of_number_is_one(number):
    for multipliers in ({"kernel": number}, [number, 1]):
        optimizer = SGDW(number, lr_multipliers=multipliers, init_verbose=False)
        kernel, bias = stepped(optimizer, variables(), gradient=1.0)
        np.testing.assert_allclose([kernel[0], bias[0]], [2 - float(number) ** 2, 2 - float(number)], rtol=1e-6)
    decays = {"kernel": (0, number)}
    optimizer = AdamW(weight_decays=decays, total_iterations=4, init_verbose=False)
    optimizer.build(variables())
    assert optimizer.get_config()["weight_decays"] == [(0.0, float(number)), (0.0, 0.0)]
    assert float(OptaxOptimizer(optax.sgd, number).learning_rate) == float(number)


@pytest.mark.parametrize("name", ["weight_decays", "lr_multipliers"])
def test_a_number_for_all_weights_is_refused_where_it_is_written(name):
    for value in (0.1, "kernel"):
        with pytest.raises(TypeError, match=rf"`{name}` must be a dictionary.*or a list.*Received: {value!r}"):
            AdamW(**{name: value})
    optimizer = AdamW(total_iterations=4, init_verbose=False, **{name: {"kernel": True}})
    with pytest.raises(TypeError, match=rf"`{name}\['kernel'\]` must be .*got True"):
        optimizer.build(variables())


SOURCES = {
    "a hyperparameter": lambda optimizer: optimizer.eta_max,
    "another optimizer's": lambda optimizer: AdamW(init_verbose=False).eta_t,
    "a Variable": lambda optimizer: keras.Variable(0.5),
    "an array": lambda optimizer: jnp.float32(0.5),
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_assigned_is_copied(source):
    model = dense()
    model.compile(AdamW(use_cosine_annealing=True, total_iterations=4, init_verbose=False), "mse")
    optimizer, (x, y) = model.optimizer, data(1)
    model.train_on_batch(x, y)
    count, value = len(optimizer.variables), SOURCES[source](optimizer)
    number = float(value)
    for name in ("eta_t", "learning_rate", "lr", "eta_min"):
        setattr(optimizer, name, value)
        if isinstance(value, keras.Variable):
            getattr(optimizer, name).assign(value)
        assert float(getattr(optimizer, name)) == number
        model.train_on_batch(x, y)
        optimizer.eta_max = 1.0
    assert len(optimizer.variables) == count
    assert np.isfinite(float(value))  # its buffer is not deleted


def excluding(make, **names):
    model = dense(regularizer=L2(0.25), bias_regularizer=L2(0.5))
    optimizer = make(model=model, total_iterations=4, init_verbose=False)
    optimizer.exclude_from_weight_decay(**{key: of(model) for key, of in names.items()})
    optimizer.build(model.trainable_variables)
    return optimizer


@EACH
def test_variables_are_excluded_from_the_decay(make):
    hidden = {"var_list": lambda model: [model.get_layer("hidden").kernel]}
    assert excluding(make, var_names=lambda model: ["bias"]).get_config()["weight_decays"][:2] == [(0, 0.25), (0, 0)]
    assert excluding(make, **hidden).get_config()["weight_decays"][:2] == [(0, 0), (0, 0.5)]
    both = excluding(make, var_names=lambda model: ["bias"], **hidden)
    assert both.get_config()["weight_decays"] is None
    with pytest.raises(ValueError, match="before the optimizer is built"):
        both.exclude_from_weight_decay(var_names=["kernel"])


@EACH
def test_an_excluded_variable_does_not_move_without_a_gradient(make):
    own = variables()
    optimizer = make(weight_decays=[(0, 0.5)] * 2, total_iterations=4, init_verbose=False)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = stepped(optimizer, own)
    assert bias.tolist() == [2.0, 2.0]
    np.testing.assert_allclose(kernel, 2 - 0.5 * 0.5 * 2, rtol=1e-6)


def test_kerass_coupled_decay_is_refused_everywhere():
    for optimizer in (AdamW(init_verbose=False), OptaxOptimizer(optax.adam, 0.1)):
        with pytest.raises(ValueError, match=r"`weight_decay` cannot be set.*weight_decay=0.5"):
            optimizer.weight_decay = 0.5
        assert optimizer.weight_decay is None
    with pytest.raises(ValueError, match=r"`exclude_from_weight_decay` would have no effect.*`mask=`"):
        OptaxOptimizer(optax.adamw, 0.1).exclude_from_weight_decay(var_names=["bias"])


def test_an_unknown_rate_reads_as_no_number():
    ready = OptaxOptimizer(optax.adam(0.1))
    assert np.isnan(ready.learning_rate)
    own = variables()
    with jax.debug_nans(True):
        stepped(ready, own, gradient=1.0)
    assert np.isnan(ready.learning_rate)
    assert float(OptaxOptimizer(optax.inject_hyperparams(optax.sgd)(0.5), 0.5).learning_rate) == 0.5
    function = OptaxOptimizer(optax.sgd, lambda: 0.5)
    with pytest.raises(TypeError, match="cannot be set to a number: the optimizer was made with a schedule or a func"):
        function.learning_rate = 0.25


def sub_model(name, units=4):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(units, name="d")(inputs), name=name)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.backbone = sub_model("backbone")
        self.tail = keras.Sequential([layers.Dense(3, name="x1")], name="tail")

    def call(self, x):
        return self.tail(self.backbone(x))


def nested():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1, name="head")(sub_model("two")(sub_model("one")(inputs))))


def positions(model, known=None, **rules):
    optimizer = AdamW(total_iterations=4, model=known, init_verbose=False, **rules)
    optimizer.build(model.trainable_variables)
    config = optimizer.get_config()
    chosen = config["lr_multipliers"] or config["weight_decays"]
    return [i for i, value in enumerate(chosen) if value not in (1.0, (0.0, 0.0))]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("head", [4, 5]), ("d", [0, 1, 2, 3]), ("d/kernel#1", [0]), ("d/kernel#2", [2]), ("d/kernel:0", [0, 2]),
        ("head/kernel", [4]), ("kernel", [0, 2, 4]), ("bias$", [1, 3, 5]),
    ],
)  # fmt: skip
def test_a_key_means_weights_by_path_name_or_pattern(key, expected):
    assert positions(nested(), weight_decays={key: (0, 0.5)}) == expected


def test_a_functional_model_inside_is_a_key_itself_or_by_name_of_a_known_model():
    model = nested()
    two = model.get_layer("two")
    assert positions(model, weight_decays={two: (0, 0.5)}) == positions(model, lr_multipliers={two: 0.5}) == [2, 3]
    for key, expected in (("one", [0, 1]), ("two/d", [2, 3]), ("two/d/kernel", [2]), ("two", [2, 3])):
        assert positions(model, model, lr_multipliers={key: 0.5}) == expected, key
    without = AdamW(model=model, lr_multipliers={"two": 0.5}, init_verbose=False)  # no decays, no cycle
    without.build(model.trainable_variables)
    assert without.get_config()["lr_multipliers"] == [1.0, 1.0, 0.5, 0.5, 1.0, 1.0]
    for rules in ({"weight_decays": {"two": (0, 0.5)}}, {"lr_multipliers": {"two": 0.5}}):
        with pytest.raises(ValueError, match=r"'two', which matches none.*use it as the key"):
            positions(model, **rules)


def test_names_are_found_in_subclassed_models_too():
    model = Subclassed()
    model(np.ones((1, 4), np.float32))
    assert positions(model, model, lr_multipliers={"backbone": 0.5}) == [0, 1]
    assert positions(model, weight_decays={model.backbone: (0, 1)}) == [0, 1]
    assert positions(model, weight_decays={"tail": (0, 1)}) == [2, 3]
    assert positions(model, weight_decays={"x1/kernel": (0, 1)}) == [2]


def test_a_layer_that_two_models_share_keeps_its_name():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(keras.Sequential([shared], name="inner")(inputs)))
    assert positions(model, weight_decays={"shared": (0, 1)}) == [0, 1]
    assert positions(model, model, lr_multipliers={"inner": 0.5}) == [0, 1]


def test_schedules_by_name_go_through_the_configuration():
    ramp = keras.optimizers.schedules.PolynomialDecay(1.0, 10)
    optimizer = AdamW(weight_decays={"a": ramp, "b": (ramp, 0.5)}, lr_multipliers={"a": ramp}, total_iterations=4)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert float(again.lr_multipliers["a"](5)) == float(ramp(5))
    assert float(again.weight_decays["b"][0](5)) == float(ramp(5))
