"""Pictures: what is drawn is what the schedules and the optimizers do."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax import plot

PARAMS = {"embed": jnp.ones((4, 2)), "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}


@pytest.fixture(autouse=True)
def closed():
    yield
    plot._curves.plt.close("all")


def restarts_of(ax):
    return [line.get_xdata()[0] for line in ax.get_lines() if line.get_color() == "0.6"]


def curves_of(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines() if line.get_color() != "0.6"}


def test_a_schedule_and_its_restarts():
    restarts = aj.cosine_warm_restarts(4, t_mult=2)
    ax = plot.schedule(restarts, 14)
    (drawn,) = curves_of(ax).values()
    np.testing.assert_array_equal(drawn, restarts(jnp.arange(14)))
    assert restarts_of(ax) == [4, 12]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("update", "factor")


def test_a_plain_schedule_has_no_restarts():
    ax = plot.schedule(optax.linear_schedule(1.0, 0.0, 4), 5)
    np.testing.assert_allclose(*curves_of(ax).values(), [1, 0.75, 0.5, 0.25, 0], rtol=1e-6)  # float32
    assert restarts_of(ax) == []


@pytest.mark.parametrize("coupling", ["schedule", "learning_rate", "constant", "corrected"])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_presets_rates_and_decays_are_what_an_update_does(coupling, scaled):
    tx = aj.adamw(
        0.1,
        weight_decay={"kernel": 0.02, "bias": 0.04},
        lr_multipliers={"embed": 0, "kernel": 0.5},
        multiplier_scales_decay=scaled,
        schedule=aj.cosine_warm_restarts(3, t_mult=2),
        normalize_decay="cycle",
        coupling=coupling,
    )
    eta, rate, decay = plot.schedule(tx, 8, PARAMS)
    assert [restarts_of(ax) for ax in (eta, rate, decay)] == [[3]] * 3
    labels = {"embed": "embed", "bias": "bias", "kernel": "kernel"}
    assert set(curves_of(rate)) == set(curves_of(decay)) == set(labels)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for count in range(8):
        assert curves_of(eta).popitem()[1][count] == pytest.approx(float(aj.current(state).eta), abs=1e-7)
        # Without gradients, what moves the weights (all of them are 1) is the decay.
        updates, state = update(jax.tree.map(jnp.zeros_like, PARAMS), state, PARAMS)
        for label, moved in (("kernel", updates["dense"]["kernel"]), ("bias", updates["dense"]["bias"])):
            # The factors in float64 against float32's.
            np.testing.assert_allclose(curves_of(decay)[label][count], -moved.ravel()[0], rtol=1e-5, atol=1e-9)
        alpha_eta = 0.1 * curves_of(eta).popitem()[1][count]
        rates = [curves_of(rate)[label][count] for label in ("embed", "kernel", "bias")]
        np.testing.assert_allclose(rates, [0, 0.5 * alpha_eta, alpha_eta], rtol=1e-6)  # 0.1 in float32


def test_alike_parameters_share_a_curve():
    _, rate, _ = plot.schedule(aj.sgdw(0.1), 3, PARAMS)
    assert list(curves_of(rate)) == ["dense/bias and 2 more"]


def test_a_legend_counts_the_parameters_of_a_rule_and_lies_beside_the_axes():
    tx = optax.chain(optax.clip(1.0), aj.adamw(0.1, weight_decay=aj.matrices(0.01)))
    _, rate, _ = plot.schedule(tx, 3, PARAMS)
    assert list(curves_of(rate)) == ["dense/bias", "matrices (2 parameters)"]
    rate.figure.canvas.draw()
    assert rate.get_legend().get_window_extent().x0 >= rate.get_window_extent().x1


@pytest.mark.parametrize("autorestart", [True, False])
def test_every_kind_of_restarts_is_drawn(autorestart):
    schedule = aj.cosine_warm_restarts(4, eta_max_decay=1.5 if autorestart else 1.0, autorestart=autorestart)
    eta, _, decay = plot.schedule(aj.adamw(0.1, weight_decay=0.01, schedule=schedule), 10, PARAMS)
    drawn = curves_of(eta).popitem()[1]
    np.testing.assert_allclose(drawn, schedule(jnp.arange(10)), rtol=1e-6)  # float32
    np.testing.assert_allclose(curves_of(decay).popitem()[1], 0.01 * drawn, rtol=1e-6)


def test_histories():
    runs = np.array([[4.0, 2.0, 1.0], [2.0, 2.0, 3.0]])
    ax = plot.history({"one": [3, 2, 1], "many": runs}, ylabel="test error (%)", log=True, first=0, step=5)
    drawn = curves_of(ax)
    np.testing.assert_array_equal(drawn["one"], [3, 2, 1])
    np.testing.assert_array_equal(drawn["many"], [3, 2, 2])
    (band,) = ax.collections
    assert band.get_datalim(ax.transData).bounds == pytest.approx((0, 1, 10, 3))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "test error (%)", "log")


def test_a_keras_history_is_drawn():
    ax = plot.history(types.SimpleNamespace(history={"loss": [2.0, 1.0], "val_loss": [3.0, 2.0]}))
    assert list(curves_of(ax)) == ["loss", "val_loss"]
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 2]


def reports(updates=12, every=3):
    tx = aj.observe(aj.adamw(0.1, freeze="embed"), every)
    params, state, seen = PARAMS, tx.init(PARAMS), []
    for _ in range(updates // every):
        for _ in range(every):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        seen.append(aj.report(state))
    return seen


def test_steps_are_layers_times_time():
    seen = reports()
    for of in ("ratio", "weight_rms"):
        ax = plot.steps(seen, of=of)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["dense/bias", "dense/kernel", "embed"]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["3", "6", "9", "12"]
        drawn = ax.images[0].get_array()
        expected = np.array([[each.rows[i][of] for each in seen] for i in range(3)])
        assert (expected[2] == 0).all() == (of == "ratio")  # what is frozen makes no step
        np.testing.assert_array_equal(np.ma.getmaskarray(drawn), expected == 0)
        np.testing.assert_allclose(10 ** drawn.filled(-np.inf), expected)
    logged = {key: [each.to_dict()[key] for each in seen] for key in seen[0].to_dict()}
    again = plot.steps(logged)
    np.testing.assert_array_equal(again.images[0].get_array(), plot.steps(seen).images[0].get_array())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: plot.schedule(0.1, 5), TypeError, "`of` must be a schedule or what a preset returned, got 0.1"),
        (
            lambda: plot.schedule(aj.linear_warmup(3), 0),
            ValueError,
            "`updates` must be an integer from 1 to 2147483647, got 0",
        ),
        (
            lambda: plot.schedule(aj.linear_warmup(3), 5, PARAMS),
            ValueError,
            "`params` must not be given with a schedule",
        ),
        (lambda: plot.schedule(aj.adamw(0.1), 5), ValueError, "`params` must be given with a preset, got None"),
        (lambda: plot.schedule(optax.adam(0.1), 5, PARAMS), TypeError, "got GradientTransformationExtraArgs"),
        (
            lambda: plot.schedule(aj.adamw(0.1), 5, PARAMS, ax=1),
            ValueError,
            "`ax` must be three axes for a preset, got 1",
        ),
        (lambda: plot.history({}), TypeError, "`values` must be {name: numbers} with a name at least"),
        (lambda: plot.history([1, 2]), TypeError, "got [1, 2]"),
        (lambda: plot.history({"a": "b"}), ValueError, "`values['a']` must be numbers in one or two axes, got 'b'"),
        (lambda: plot.history({"a": []}), ValueError, "`values['a']` must be numbers in one or two axes, got []"),
        (lambda: plot.history({"a": [1]}, log="yes"), TypeError, "`log` must be"),
        (lambda: plot.steps([]), TypeError, "`history` must be a list of reports, one at least"),
        (lambda: plot.steps([{"w/ratio": 1.0}]), TypeError, "or what a logger or Keras kept, got [{'w/ratio': 1.0}]"),
        (
            lambda: plot.steps({"loss": [1.0]}),
            ValueError,
            "`history` must have keys 'path/ratio' with as many numbers each, got ['loss']",
        ),
        (lambda: plot.steps([], of="norm"), ValueError, "`of` must be one of 'weight_rms', 'gradient_rms', "),
        (
            lambda: plot.steps([aj.Report([{"path": path}], 1) for path in "ab"]),
            ValueError,
            "`history` must be reports of the same parameters, ['a'], got others",
        ),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
