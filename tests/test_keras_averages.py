"""The average of the weights in Keras: evaluated, saved, put back whatever happens, written into configurations."""

import keras
import numpy as np
import optax
import pytest
from keras import layers

import adamw_jax as aj
from adamw_jax.keras import AdamW, OptaxOptimizer, SwapAveragedWeights, averaged_weights
from tests.keras_models import close, data, dense, same, states, values

HALF = aj.Ema(half_life=2)


def normalized():
    """A network whose batch normalization has weights that are not trained."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = layers.BatchNormalization(name="bn")(layers.Dense(3, name="hidden")(inputs))
    return keras.Model(inputs, layers.Dense(1, name="out")(hidden))


def trained(optimizer=None, model=None, epochs=1, callbacks=(), **options):
    model = model or dense()
    if not model.compiled:
        model.compile(optimizer or OptaxOptimizer(aj.adamw, 0.05, average=HALF), "mse", run_eagerly=True)
    fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(*data(3), epochs=epochs, callbacks=list(callbacks), **fit, **options)
    return model


def average_of(model):
    """The average as the core reads it."""
    _, params = model.optimizer.as_optax()
    average = aj.averaged(model.optimizer, params)
    return [np.asarray(average[key]) for key in params]


class Stop(keras.callbacks.Callback):
    """Raises in a batch of an evaluation."""

    def __init__(self, batch, error):
        super().__init__()
        self.batch, self.error = batch, error

    def on_test_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            raise self.error


class Weights(keras.callbacks.Callback):
    """Keeps the weights of every evaluation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_begin(self, logs=None):
        self.seen.append(values(self.model))


def test_an_evaluation_has_the_average_and_training_the_weights():
    plain, seen = trained(OptaxOptimizer(aj.adamw, 0.05), epochs=2), Weights()
    model = trained(epochs=2, validation_data=data(2), callbacks=[SwapAveragedWeights(), seen])
    assert close(values(model), values(plain), rtol=1e-6, atol=1e-7)
    assert len(seen.seen) == 2
    assert same(seen.seen[-1], average_of(model))
    assert not same(seen.seen[-1], values(model))
    with averaged_weights(model):
        expected = model.evaluate(*data(2), verbose=0)
    assert model.evaluate(*data(2), verbose=0, callbacks=[SwapAveragedWeights()]) == expected
    assert model.history.history["val_loss"][-1] == pytest.approx(expected)
    predicted = model.predict(data(2)[0], verbose=0, callbacks=[SwapAveragedWeights()])
    with averaged_weights(model):
        np.testing.assert_array_equal(predicted, model.predict(data(2)[0], verbose=0))
    assert not np.array_equal(predicted, model.predict(data(2)[0], verbose=0))


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_weights_are_back_after_an_evaluation_that_is_cut_short(batch, error):
    model, swap, stop = trained(), SwapAveragedWeights(), Stop(batch, error)
    before, given = model.get_weights(), {"batch_size": 8, "verbose": 0}
    with averaged_weights(model):
        expected = model.evaluate(*data(2), **given)
    with pytest.raises(error), averaged_weights(model):
        model.evaluate(*data(2), **given, callbacks=[stop])
    assert same(model.get_weights(), before)
    with pytest.raises(error):
        model.evaluate(*data(2), **given, callbacks=[swap, stop])
    assert model.evaluate(*data(2), **given, callbacks=[swap]) == expected
    assert same(model.get_weights(), before)
    with pytest.raises(error):
        trained(model=model, validation_data=data(2), callbacks=[swap, Stop(batch, error)])
    assert same(values(model), values(trained(epochs=2)))


def test_what_is_not_trained_is_back_too():
    model = trained(model=normalized())
    before = model.get_weights()
    with pytest.raises(RuntimeError), averaged_weights(model):
        model.evaluate(*data(2), verbose=0, callbacks=[Stop(0, RuntimeError)])
    assert same(model.get_weights(), before)


def test_training_that_goes_on_from_the_average_keeps_what_it_learns():
    model = trained()
    with pytest.raises(RuntimeError):
        model.evaluate(*data(2), verbose=0, callbacks=[SwapAveragedWeights(), Stop(0, RuntimeError)])
    with pytest.warns(UserWarning, match="training went on from the average"):
        trained(model=model)
    after = values(model)
    with averaged_weights(model):
        pass
    assert same(values(model), after)


def test_swaps_inside_one_another_put_back_once():
    model = trained()
    before, average = values(model), average_of(model)
    with averaged_weights(model):
        model.evaluate(*data(1), verbose=0, callbacks=[SwapAveragedWeights()])
        assert same(values(model), average)
    assert same(values(model), before)


def test_a_checkpoint_between_epochs_has_the_average(tmp_path):
    swap = SwapAveragedWeights(swap_on_epoch=True)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    model = trained(epochs=2, callbacks=[swap, checkpoint])
    saved = dense(seed=1)
    saved.load_weights(tmp_path / "2.weights.h5")
    assert same(values(saved), average_of(model))
    assert close(values(model), values(trained(epochs=2)), rtol=1e-6, atol=1e-7)


def test_until_the_average_has_begun_the_weights_are_evaluated():
    late = OptaxOptimizer(aj.adamw, 0.05, average=aj.Ema(half_life=2, start=9))
    model = trained(late, validation_data=data(1), callbacks=[SwapAveragedWeights()])
    assert model.history.history["val_loss"][0] == pytest.approx(model.evaluate(*data(1), verbose=0))
    with pytest.raises(ValueError, match="the average must have begun"), averaged_weights(model):
        pass


AVERAGING = {
    "options": lambda: OptaxOptimizer(
        aj.adamw, 0.05, options={"weight_decay": 0.01}, average={"average": HALF, "store": "bfloat16", "but": "out"}
    ),
    "keras-adamw's class": lambda: AdamW(0.05, average=aj.CycleMean(), use_cosine_annealing=True, total_iterations=4,
                                         init_verbose=False),
    "use_ema, too": lambda: OptaxOptimizer(aj.adamw, 0.05, average=HALF, use_ema=True),
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGING)
def test_the_average_is_written_and_resumed(name, tmp_path):
    model = trained(AVERAGING[name]())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        trained(model=each)
    assert same(values(loaded), values(model))
    assert same(states(loaded.optimizer), states(model.optimizer))
    assert same(average_of(loaded), average_of(model))


def test_a_transformation_with_an_average_trains_and_resumes(tmp_path):
    def make():
        return OptaxOptimizer(aj.with_average(aj.adamw(0.05), HALF))

    model, again = trained(make()), dense(seed=1)
    model.save_weights(tmp_path / "a.weights.h5")
    again.compile(make(), "mse", run_eagerly=True)
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "a.weights.h5")
    for each in (model, again):
        trained(model=each)
    assert same(average_of(again), average_of(model))


def test_an_optimizer_inside_others_swaps_its_own_weights():
    ours = OptaxOptimizer(aj.adamw, 0.05, average=HALF)
    pair = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {"out/.*": ours})
    model = trained(keras.optimizers.MultiOptimizer(pair))
    before = values(model)
    with averaged_weights(model):
        assert [np.array_equal(a, b) for a, b in zip(before, values(model), strict=True)] == [True, True, False, False]
    assert same(values(model), before)


@pytest.mark.parametrize("optimizer", [lambda: "sgd", lambda: OptaxOptimizer(optax.sgd, 0.1)])
def test_without_an_average_training_does_not_begin(optimizer):
    model = dense()
    model.compile(optimizer(), "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"an average of the weights is kept by .*Received: optimizer="):
        trained(model=model, callbacks=[SwapAveragedWeights()])
    with pytest.raises(ValueError, match="Received: a model that is not compiled"), averaged_weights(dense()):
        pass


def test_states_are_read_from_a_keras_optimizer_and_set():
    options = {"schedule": aj.cosine_warm_restarts(8)}
    model = trained(OptaxOptimizer(aj.adamw, 0.05, options=options))
    for holder in (model, model.optimizer, model.optimizer.optax_state()):
        assert int(aj.current(holder).t_cur) == 3
    with pytest.raises(TypeError, match=r"pass optimizer.optax_state\(\).*set_optax_state"):
        aj.restart(model.optimizer)
    model.optimizer.set_optax_state(aj.restart(model.optimizer.optax_state(), period=5))
    assert int(aj.current(trained(model=model)).t_cur) == 3
    ours = trained(AdamW(0.05, use_cosine_annealing=True, total_iterations=4, init_verbose=False))
    now = aj.current(ours)
    assert (int(now.count), int(now.t_cur), float(now.eta)) == (3, 3, float(ours.optimizer.eta_t))
    assert float(now.learning_rate) == pytest.approx(0.05)
