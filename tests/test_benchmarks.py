"""The numbers that the benchmarks derive, on made-up measurements; the rotation; the pictures."""

import functools
import json

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import adamw_jax as aj
from benchmarks import pictures
from benchmarks.collectives import bytes_by_kind
from benchmarks.decoupling import tables
from benchmarks.decoupling.figures import best_pair, coupling_slope, interval, optimum, paired
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.grids import load
from benchmarks.decoupling.networks import convolve, residual
from benchmarks.decoupling.regimes import by_lot, shift
from benchmarks.decoupling.rotation import angle, predicted, turning
from benchmarks.decoupling.trainings import Problem, Regime, fit, train
from examples import maps
from tests.running import quick_jit

RATES, DECAYS = np.geomspace(1e-3, 1e-1, 5), np.geomspace(1e-6, 1.0, 25)


def valley(slope):
    """Losses whose best decay lies on a line over the rate."""
    place = np.log(1e-3) + slope * np.log(RATES / 1e-2)
    return 1 + 1e-3 * (np.log(DECAYS) - place[:, None]) ** 2


@pytest.mark.parametrize("slope", [0.0, -1.0, 1.0])
def test_the_slope_tells_a_decoupled_grid_from_a_coupled_one(slope):
    # The losses are parabolas, which the interpolation finds exactly.
    assert coupling_slope(RATES, DECAYS, valley(slope)) == pytest.approx(slope, abs=1e-9)


def test_rates_far_from_the_best_loss_do_not_count():
    losses = valley(0.0)
    losses[0] = 2 + np.linspace(0, 1, len(DECAYS))
    assert coupling_slope(RATES, DECAYS, losses) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(coupling_slope(RATES, DECAYS, losses + np.array([10.0, 20, 30, 40, 0])[:, None]))


def test_rates_whose_best_decay_lies_beyond_the_grid_do_not_count():
    losses = valley(-1.0)
    losses[0] = 1 + 1e-3 * np.arange(25.0)[::-1]
    assert coupling_slope(RATES, DECAYS, losses) == pytest.approx(-1.0, abs=1e-9)


def test_an_optimum_at_the_end_of_the_axis_stays_there():
    assert optimum(DECAYS, np.arange(25.0)) == pytest.approx(np.log(1e-6))
    assert optimum(DECAYS, -np.arange(25.0)) == pytest.approx(0.0)


def test_the_best_pair_is_that_of_the_mean_over_the_seeds():
    errors = np.full((2, 3, 2), 5.0)
    errors[0, 1] = [0, 9]
    errors[1, 2] = [4, 4]
    assert best_pair(errors) == (1, 2)


def test_the_paired_test_counts_signs():
    # All five differences have one sign: of 32 choices of signs, all plus and all minus are as far from 0.
    mean, error, p = paired([2, 3, 4, 5, 6], [1, 1, 1, 1, 1])
    assert (mean, p) == (3.0, 2 / 32)
    assert error == pytest.approx(np.std([1, 2, 3, 4, 5], ddof=1) / 5**0.5)
    assert paired([1, 2], [2, 1])[2] == 1.0


def test_the_interval_of_seeds_alike_is_a_point():
    values = np.full(5, 0.3)
    assert interval(lambda seeds: values[seeds].mean(), 5) == pytest.approx((0.3, 0.3))
    assert np.isnan(interval(lambda seeds: np.nan, 5)).all()


def test_a_normalized_kernel_turns_as_predicted_at_every_rate():
    data, _ = maps.teacher(examples=2000, noise=0.2)

    def turn(rate):
        tx = aj.adamw(rate, b2=0.99, weight_decay=1e-2)
        return turning(tx, 0, 600, 200, data)["angle"][:2].mean()

    # Lengths forget their start within 1/decay = 100 updates. The study finds 0.95 to 1.07 of the prediction in these
    # layers, because gradients of two updates are a little alike.
    angles = jax.jit(jax.vmap(turn))(jnp.array([1e-3, 1e-1]))
    np.testing.assert_allclose(angles, predicted(1e-2), rtol=0.12)


def test_under_l2_the_same_kernels_turn_with_the_rate():
    data, _ = maps.teacher(examples=2000, noise=0.2)

    def turn(rate):
        return turning(FORMS["Adam + L2"](rate, 1e-2, lambda count: 1.0, 0.99), 0, 600, 200, data)["angle"].mean()

    slow, fast = jax.jit(jax.vmap(turn))(jnp.array([1e-3, 1e-1]))
    assert fast > 5 * slow


def test_an_angle_is_exact_for_small_turns_and_large():
    a = {"w": jnp.array([3.0, 0.0])}
    for turn in (1e-4, 0.3, 2.0):
        b = {"w": 5 * jnp.array([np.cos(turn), np.sin(turn)])}
        assert float(angle(a, b)["w"]) == pytest.approx(turn, rel=1e-3)  # float32: 1e-7 / 1e-4


def test_the_map_network_ignores_the_length_of_its_kernels():
    (x, y), _ = maps.teacher(examples=8)
    params = maps.init_params(jax.random.key(0))
    long = jax.tree.map(lambda p: 10 * p, params)
    logits = quick_jit(maps.logits)
    np.testing.assert_allclose(logits(long, x), logits(params, x), atol=1e-4)
    assert y.shape == (8,)


@pytest.mark.parametrize(("axes", "stride"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_the_convolution_is_that_of_xla(axes, stride):
    x = jax.random.normal(jax.random.key(0), (2, *[8] * axes, 3))
    kernel = jax.random.normal(jax.random.key(1), (*[3] * axes, 3, 4))
    letters = "HW"[:axes]
    names = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    of_xla = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=[stride] * axes,
        padding=[(1, 1)] * axes,
        dimension_numbers=names,
    )
    both = quick_jit(lambda x, kernel: (convolve(x, kernel, stride), of_xla(x, kernel)))
    np.testing.assert_allclose(*both(x, kernel), atol=1e-4)  # sums of 27 products near 1


def test_predictions_of_a_batch_norm_do_not_depend_on_one_another():
    init, logits = residual("batch", width=2)
    params = quick_jit(init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (12, 40, 1))
    of_eight = quick_jit(lambda x: logits(params, x, 8))
    np.testing.assert_allclose(of_eight(x)[:10], of_eight(x[:10]), atol=1e-5)


def test_labels_by_lot_and_shifts_leave_shapes_and_most_labels():
    y = jnp.zeros(4000, jnp.int32)
    drawn = quick_jit(by_lot, static_argnums=3)(jax.random.key(0), y, 0.2, 10)
    # A tenth of those drawn stay what they were: 0.18, and five standard deviations of a share of 4000.
    assert float((drawn != y).mean()) == pytest.approx(0.18, abs=0.03)
    for shape in ((3, 40, 1), (3, 8, 8, 1)):
        assert jax.eval_shape(shift, jax.random.key(1), jnp.ones(shape)).shape == shape


def test_one_pass_takes_every_example_once():
    part = (jnp.eye(6), jnp.zeros(6, jnp.int32))
    init, logits = lambda key: {"w": jnp.zeros((6, 2))}, lambda params, x, rows: x @ params["w"]
    regime = Regime(lambda seed: Problem(part, part, part), init, logits, 3, 2, one_pass=True)
    params = fit(regime, optax.sgd(1.0), init(None), part, jax.random.key(0), 3)
    # Each example moves a row of its own from 0, where both classes have probability 1/2; batches have two.
    np.testing.assert_allclose(params["w"], np.tile([0.25, -0.25], (6, 1)))
    assert set(train(regime, optax.sgd(1.0), 0)) == {
        "validation loss",
        "validation error",
        "test loss",
        "test error",
    }


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_published_tables_are_those_of_the_measurements(name):
    rows_of, part = tables.TABLES[name]
    path = pictures.HERE / "results" / f"{name}.json"
    assert path.exists() == bool(load(part) and rows_of())
    published = json.loads(path.read_text())["rows"] if path.exists() else []
    assert published == json.loads(json.dumps(rows_of()))


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_results_become_a_picture_with_labelled_axes(name):
    function, size, grid = pictures.PICTURES[name]
    figure, axes = plt.subplots(*grid, figsize=size)
    function(axes, pictures.rows_of(name))
    assert all(axes.get_xlabel() and axes.has_data() for axes in figure.axes)
    assert figure.axes[0].get_ylabel() or figure.axes[0].get_yticklabels()
    plt.close(figure)


class Compiled:
    """What `collectives` reads of a compiled program."""

    def __init__(self, text):
        self.text = text

    def as_text(self):
        return self.text


def test_clones_of_a_collective_are_one():
    """XLA for TPUs clones an all-gather into the fusions that it overlaps with, under one chain_id."""
    line = '  %{} = f32[8,128]{{1,0}} all-gather({}), dimensions={{0}}, frontend_attributes={{chain_id="{}"}}'
    lines = ["%fused.1 (p: f32[1,128]) -> f32[8,128] {", line.format("a", "%p", 5), "}"]
    lines += ["%fused.2 (p: f32[1,128]) -> f32[8,128] {", line.format("b", "%p", 5), line.format("c", "%p", 6), "}"]
    lines += [
        "ENTRY %main (p: f32[1,128]) -> f32[8,128] {",
        "  %d = f32[8,128]{1,0} all-gather(%p), dimensions={0}",
        "}",
    ]
    assert bytes_by_kind(Compiled("\n".join(lines))) == {"all-gather": 3 * 8 * 128 * 4}
