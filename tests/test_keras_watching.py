"""The reports of `observe`, and skipped spikes, inside `fit`."""

import csv
import math

import keras
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax import plot
from adamw_jax.keras import OptaxOptimizer, StepLogger
from tests import reference_watch as twin
from tests.keras_models import data, dense, same, values

WEIGHTS = ["hidden/kernel", "hidden/bias", "out/kernel", "out/bias"]


def fitted(optimizer, callbacks=(), epochs=3, batches=2, **options):
    model = dense()
    model.compile(optimizer, "mse", **options)
    x, y = data(batches)
    history = model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model, history


def observed(every=1, rate=0.01):
    return OptaxOptimizer(lambda alpha: aj.observe(aj.adamw(alpha, weight_decay=0.1), every), rate)


def test_the_report_is_in_the_history_under_the_weights_paths():
    before = values(fitted(observed(), epochs=2)[0])
    model, history = fitted(observed(), [StepLogger()])
    assert set(history.history) == {"loss"} | {f"{path}/{name}" for path in WEIGHTS for name in (
        "weight_rms", "gradient_rms", "step_rms", "ratio", "angle")}  # fmt: skip
    assert all(len(numbers) == 3 for numbers in history.history.values())
    # One batch an epoch: the weights before the last update are those of the run that is one epoch shorter.
    before = values(fitted(observed(), epochs=2, batches=1)[0])
    model, history = fitted(observed(), [StepLogger()], batches=1)
    for path, old, new in zip(WEIGHTS, before, values(model), strict=True):
        numbers = twin.seen(old, new, new.astype(float) - old)
        for name in ("weight_rms", "ratio", "angle"):
            # The step is the difference of two float32 weights here.
            assert history.history[f"{path}/{name}"][-1] == pytest.approx(numbers[name], rel=1e-4, abs=1e-6)


def test_csv_and_plot(tmp_path):
    logger = StepLogger(["ratio", "angle"])
    _, history = fitted(observed(2), [logger, keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    first, *rest = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    # Without validation, Keras's CSVLogger leaves empty columns for it.
    written = {key for key in first if not key.startswith("val_")}
    assert written == {"epoch", "loss"} | {f"{path}/{name}" for path in WEIGHTS for name in ("ratio", "angle")}
    assert float(rest[-1]["out/kernel/ratio"]) == history.history["out/kernel/ratio"][-1] > 0
    assert [each.observed for each in logger.reports] == [2, 4, 6]
    for drawn in (logger.reports, history):
        ax = plot.steps(drawn)
        assert [label.get_text() for label in ax.get_yticklabels()] == WEIGHTS
        expected = np.log10([history.history[f"{path}/ratio"] for path in WEIGHTS])
        np.testing.assert_allclose(ax.images[0].get_array(), expected)
        plot._curves.plt.close("all")


def test_before_the_first_observation_there_is_no_number():
    _, history = fitted(observed(5), [StepLogger(["ratio"])])
    numbers = history.history["out/kernel/ratio"]
    assert [math.isnan(number) for number in numbers] == [True, True, False]


def test_observing_changes_no_weight_and_nothing_but_a_scalar_is_added():
    plain, watched = (
        fitted(tx)[0] for tx in (OptaxOptimizer(lambda rate: aj.adamw(rate, weight_decay=0.1), 0.01), observed())
    )
    # The compiled programs differ, and with them the last digit.
    assert all(np.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(values(plain), values(watched), strict=True))
    assert len(watched.optimizer.variables) == len(plain.optimizer.variables) + 4 + 6 * 4


def test_a_lost_batch_moves_nothing():
    x, y = data(4)
    spoiled = x.copy()
    spoiled[8:16] = np.nan
    kept = np.r_[0:8, 16:32]
    trained = []
    for inputs, labels in ((spoiled, y), (x[kept], y[kept])):
        model = dense()
        model.compile(OptaxOptimizer(lambda rate: aj.skip_spikes(aj.adamw(rate, weight_decay=0.1)), 0.01), "mse")
        model.fit(inputs, labels, batch_size=8, shuffle=False, verbose=0)
        trained.append(model)
    assert same(*map(values, trained))
    skipped = [v for v in trained[0].optimizer.variables if v.name == "skipped"]
    assert [int(v.value) for v in skipped] == [1]


def test_reports_of_mixed_precision_are_found_inside_the_loss_scale():
    model = dense(dtype="mixed_float16")
    model.compile(observed(), "mse")
    history = model.fit(*data(2), batch_size=8, verbose=0, callbacks=[StepLogger(["ratio"])])
    assert history.history["out/kernel/ratio"][0] > 0


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (
            lambda: keras.optimizers.SGD(name="plain"),
            "`StepLogger` needs an OptaxOptimizer(lambda rate: adamw_jax.observe(...), rate). "
            "Received: optimizer='plain' of type SGD",
        ),
        (
            lambda: OptaxOptimizer(optax.sgd, 0.1),
            "`state` must contain an ObserveState, got tuple without one: use `observe`",
        ),
    ],
)
def test_an_optimizer_that_observes_nothing_is_refused_when_training_begins(optimizer, text):
    with pytest.raises(ValueError, match=r"of type SGD|ObserveState") as caught:
        fitted(optimizer(), [StepLogger()])
    assert text in str(caught.value)


@pytest.mark.parametrize("quantities", ["ratio", [], ["norm"]])
def test_unknown_quantities(quantities):
    with pytest.raises(ValueError, match="`quantities` must be"):
        StepLogger(quantities)
