"""Callbacks: checked when training begins, and each step once."""

import keras
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax.keras import AdamW, HyperparameterSetter, OptaxOptimizer, RateLogger, StepLogger
from tests.keras_models import data, dense, same, values


class Counting(HyperparameterSetter):
    """Tells how often each step was due."""

    def __init__(self, steps):
        super().__init__({step: {"eta_t": 1.0} for step in steps})
        self.fired = []
        self.schedule = Noted(self.schedule, self.fired)


class Noted(dict):
    def __init__(self, steps, fired):
        super().__init__(steps)
        self.fired = fired

    def get(self, key, default=None):
        if key in self:
            self.fired.append(key)
        return super().get(key, default)


def fitted(optimizer, callback, batches=6, epochs=2, x=None, model=None, **options):
    model = model or dense()
    if not model.compiled:
        model.compile(optimizer, "mse", run_eagerly=True, **options)
    given, y = data(batches)
    x = given if x is None else x
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback])
    return model


def adamw(**options):
    return AdamW(init_verbose=False, **options)


def test_a_step_acts_once_where_an_execution_is_cut_short():
    # Executions of 4 and 2 batches: 6 and 7 belong to the second epoch.
    setter = Counting(range(12))
    model = fitted(adamw(), setter, steps_per_execution=4)
    assert setter.fired == list(range(12))
    fitted(None, setter, model=model)
    assert setter.fired == list(range(12))
    more = Counting(range(26))
    fitted(None, more, model=model, epochs=1)
    assert more.fired == [24, 25]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_step_acts_once_for_a_generator_of_unknown_length():
    def batches():
        x, y = data(6)
        for index in range(6):
            yield x[8 * index : 8 * index + 8], y[8 * index : 8 * index + 8]

    setter, model = Counting(range(6)), dense()
    model.compile(adamw(), "mse", steps_per_execution=4, run_eagerly=True)
    model.fit(batches(), shuffle=False, verbose=0, callbacks=[setter])
    assert setter.fired == list(range(6))


def test_a_step_acts_once_after_skipped_updates():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x, _ = data(6)
        x[:24] = np.inf  # the first three batches make no update
        setter = Counting(range(12))
        model = fitted(adamw(), setter, x=x)
    finally:
        keras.config.set_dtype_policy("float32")
    assert setter.fired == list(range(12))
    assert int(model.optimizer.inner_optimizer.iterations) < 12


def test_the_count_goes_on_for_a_loaded_optimizer(tmp_path):
    model = fitted(adamw(), Counting([]), epochs=1)
    model.save(tmp_path / "a.keras")
    setter = Counting(range(20))
    fitted(None, setter, model=keras.models.load_model(tmp_path / "a.keras"), epochs=1)
    assert setter.fired == list(range(6, 12))


def test_total_iterations_is_set_by_step():
    model = fitted(
        adamw(use_cosine_annealing=True, total_iterations=4), HyperparameterSetter({2: {"total_iterations": 6}})
    )
    assert model.optimizer.total_iterations == 6
    assert int(model.optimizer.t_cur) == (12 - 4) % 6


REFUSED = {
    "a rate nobody sees": (
        lambda: OptaxOptimizer(optax.adam(0.1)), HyperparameterSetter({1: {"learning_rate": 0.0}}), ValueError,
        "`learning_rate` cannot be set",
    ),
    "a rate from a schedule": (
        lambda: adamw(learning_rate=keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)),
        HyperparameterSetter({9: {"learning_rate": 0.0}}), TypeError, "`learning_rate` cannot be set to a number",
    ),
    "an option": (
        adamw, HyperparameterSetter({1: {"beta_1": 0.5}}), ValueError, "no hyperparameter 'beta_1' that can be set",
    ),
    "a bound nobody reads": (adamw, HyperparameterSetter({1: {"eta_max": 0.5}}), ValueError, "`eta_max` can be set"),
    "Keras's Adam, t_cur": (
        keras.optimizers.Adam, HyperparameterSetter({1: {"t_cur": 0}}), ValueError, "no hyperparameter 't_cur'",
    ),
    "Keras's Adam, logged": (keras.optimizers.Adam, RateLogger(), ValueError, "`RateLogger` logs eta_t and lr_t"),
    "optax, logged": (lambda: OptaxOptimizer(optax.adam(0.1)), RateLogger(), ValueError, "`RateLogger` logs eta_t"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_callback_that_does_not_fit_is_refused_when_training_begins(case):
    make, callback, error, said = REFUSED[case]
    model = dense()
    before = values(model)
    model.compile(make(), "mse", run_eagerly=True)
    with pytest.raises(error, match=said):
        fitted(None, callback, model=model)
    assert same(values(model), before)


def test_steps_are_integers():
    with pytest.raises(ValueError, match=r"`schedule` must be an integer from 0.*got 2.5"):
        HyperparameterSetter({2.5: {"t_cur": 0}})


def test_kerass_rate_is_set_too():
    model = fitted(keras.optimizers.SGD(0.5), HyperparameterSetter({3: {"learning_rate": 0.25}}))
    assert float(model.optimizer.learning_rate) == 0.25


def test_an_unknown_rate_is_not_logged_as_a_number():
    plateau = keras.callbacks.ReduceLROnPlateau("loss")
    history = fitted(OptaxOptimizer(optax.adam(0.1)), plateau).history.history
    assert np.isnan(history["learning_rate"]).all()


def pair(first, second):
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(first, {"out/.*": second}))


def test_callbacks_find_the_optimizer_inside_a_multi_optimizer():
    ours = adamw(use_cosine_annealing=True, total_iterations=6)
    logger = RateLogger(every_batch=True)
    setter = HyperparameterSetter({2: {"momentum/learning_rate": 0.0}, 3: {"t_cur": 3}})
    model = fitted(pair(ours, keras.optimizers.SGD(0.1, name="momentum")), logger, batches=2, epochs=1)
    assert logger.batches["eta_t"] == pytest.approx([0.9045085, 0.6545085])
    fitted(None, setter, model=model, batches=2, epochs=1)
    assert int(ours.t_cur) == 4
    late = HyperparameterSetter({5: {"t_cur": 4}})
    fitted(None, late, model=model, batches=2, epochs=1)
    assert int(ours.t_cur) == 5
    assert float(model.optimizer.optimizers[0].learning_rate) == 0


def test_what_two_optimizers_have_is_named_by_optimizer():
    first, second = adamw(name="first"), adamw(name="second")
    logger = RateLogger()
    model = fitted(pair(first, second), logger, batches=1, epochs=1)
    assert {"first/eta_t", "second/lr_t"} <= set(model.history.history)
    with pytest.raises(ValueError, match=r"must name one optimizer, as in '(first|second)/eta_t'"):
        fitted(None, HyperparameterSetter({5: {"eta_t": 0.5}}), model=model)
    fitted(None, HyperparameterSetter({1: {"second/eta_t": 0.5}}), model=model, batches=1, epochs=1)
    assert (float(first.eta_t), float(second.eta_t)) == (1.0, 0.5)


def test_a_multi_optimizer_without_such_an_optimizer_is_refused_when_training_begins():
    plain = pair(keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1))
    for callback, said in (
        (RateLogger(), "`RateLogger` logs eta_t and lr_t"),
        (HyperparameterSetter({1: {"t_cur": 0}}), "no hyperparameter 't_cur'"),
        (StepLogger(), "`StepLogger` needs an OptaxOptimizer"),
    ):
        with pytest.raises(ValueError, match=said):
            fitted(plain, callback)


def test_steps_are_observed_inside_a_multi_optimizer():
    observing = OptaxOptimizer(lambda rate: aj.observe(optax.sgd(rate)), 0.1)
    model = fitted(pair(keras.optimizers.SGD(0.1), observing), StepLogger(["ratio"]), batches=1, epochs=1)
    assert set(model.history.history) == {"loss", "out/kernel/ratio", "out/bias/ratio"}
