"""Sweeps: the cells of a grid are the runs one by one; axes, chunks, bars, pictures."""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax import plot
from tests.running import quick_jit

RATES, DECAYS = [0.01, 0.1, 0.3], [0.0, 0.05]
GRID = {"learning_rate": RATES, "weight_decay": DECAYS}
TARGET = jnp.linspace(-1.0, 1.0, 5)


def train(learning_rate, weight_decay, make=aj.adamw):
    tx = make(learning_rate, weight_decay=weight_decay)

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(lambda p: jnp.sum(jnp.square(p - TARGET)))(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    params = jnp.ones(5)
    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), length=20)
    return {"losses": losses, "params": params}


@pytest.fixture(scope="module")
def runs():
    return aj.sweep(train, GRID)


def test_axes_are_labelled(runs):
    assert runs.axes == GRID
    assert runs.shape == (3, 2)
    assert runs.points[3] == {"learning_rate": 0.1, "weight_decay": 0.05}
    assert runs.values["losses"].shape == (3, 2, 20)
    assert runs.values["params"].shape == (3, 2, 5)


def test_a_cell_is_the_run_alone(runs):
    for i, rate in enumerate(RATES):
        for j, decay in enumerate(DECAYS):
            alone = jax.jit(lambda rate=rate, decay=decay: train(rate, decay))()
            for key in alone:
                # Twenty float32 updates in another order of fusion.
                np.testing.assert_allclose(runs.values[key][i, j], alone[key], rtol=2e-5, atol=2e-6)


def test_a_cell_is_the_run_of_optax():
    runs = aj.sweep(
        lambda learning_rate, weight_decay: train(
            learning_rate, weight_decay, lambda rate, **options: aj.adamw(rate, coupling="learning_rate", **options)
        ),
        GRID,
    )
    theirs = train(0.1, 0.05, optax.adamw)
    np.testing.assert_allclose(runs.values["params"][1, 1], theirs["params"], rtol=2e-5, atol=2e-6)


def test_chunks_change_nothing_and_there_is_one_program(runs):
    traces = []

    def counted(**point):
        traces.append(point)
        return train(**point)

    chunked = aj.sweep(counted, GRID, chunk_size=4, progress=False)
    assert len(traces) == 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), chunked.values, runs.values)


def hungry(size):
    compiled = jax.jit(jax.vmap(train)).lower(jnp.ones(size), jnp.ones(size)).compile().memory_analysis()
    return compiled.temp_size_in_bytes + compiled.output_size_in_bytes + compiled.argument_size_in_bytes


def too_little_for_six():
    return (hungry(3) + hungry(6)) / 2


class Device:
    def memory_stats(self):
        # A tenth of what is free is left alone.
        return {"bytes_limit": too_little_for_six() / 0.9 + 1000, "bytes_in_use": 1000}


@pytest.mark.parametrize("told_by", ["argument", "device"])
def test_the_program_is_halved_until_it_fits(runs, told_by, monkeypatch):
    sizes = []

    def counted(**point):
        sizes.append(1)
        return train(**point)

    limit = too_little_for_six() if told_by == "argument" else None
    if told_by == "device":
        monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    small = aj.sweep(counted, GRID, memory_limit=limit, progress=False)
    assert len(sizes) == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), small.values, runs.values)


def test_one_run_that_does_not_fit_is_an_error():
    with pytest.raises(MemoryError, match=r"one run needs .* bytes, `memory_limit` is 1"):
        aj.sweep(train, GRID, memory_limit=1)


def test_a_list_of_points():
    runs = aj.sweep(lambda a, b: a + b, [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.25}, {"b": 1.0, "a": 3}])
    assert runs.axes == {"point": [0, 1, 2]}
    assert runs.values.tolist() == [1.5, 2.25, 4.0]


def test_integers_stay_integers():
    runs = aj.sweep(lambda period: aj.cosine_warm_restarts(period)(jnp.arange(4)), {"period": [2, 3]})
    np.testing.assert_allclose(runs.values, [[1, 0, 1, 0], [1, 0.5, 0, 1]], atol=1e-6)


NUMBERS = {"learning_rate": 1, "l1": 0, "l2": 1, "multiplier": 2, "eps": 1, "interval": 4, "period": 3, "t_mult": 2}


def train_by_numbers(learning_rate, l1, l2, multiplier, eps, interval, period, t_mult):
    tx = aj.adamw(
        learning_rate,
        eps=eps,
        weight_decay={"": (l1, l2)},
        proximal_l1={"": l1},
        lr_multipliers={"": multiplier},
        multiplier_scales_decay=True,
        normalize_decay=interval,
        schedule=aj.cosine_warm_restarts(period, t_mult=t_mult),
    )
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update({"w": jnp.ones(2)}, state, params)
        params = optax.apply_updates(params, updates)
    return params["w"]


def test_integer_hyperparameters_train_as_floats_do():
    points = [NUMBERS, NUMBERS | {"multiplier": 0}, NUMBERS | {"l1": 1, "l2": 0}]
    whole = aj.sweep(train_by_numbers, points)
    floats = aj.sweep(train_by_numbers, [{name: float(value) for name, value in point.items()} for point in points])
    np.testing.assert_array_equal(whole.values, floats.values)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bfloat16"])
def test_traced_numbers_of_any_dtype_train_as_floats_do(dtype):
    expected = quick_jit(train_by_numbers)(**{name: jnp.float32(value) for name, value in NUMBERS.items()})
    with jax.numpy_dtype_promotion("strict"):
        got = quick_jit(train_by_numbers)(**{name: jnp.asarray(value, dtype) for name, value in NUMBERS.items()})
    np.testing.assert_array_equal(got, expected)


def test_the_best_point():
    runs = aj.sweep(lambda a, b: jnp.where(a > 2, jnp.nan, a - b), {"a": [1.0, 2.0, 3.0], "b": [0.0, 0.5]})
    assert runs.best() == {"a": 1.0, "b": 0.5}
    assert runs.best(largest=True) == {"a": 2.0, "b": 0.0}
    assert runs.best(lambda values: -values) == {"a": 2.0, "b": 0.0}
    with pytest.raises(ValueError, match=r"`of` must return one score per run, shape \(3, 2\), got \(\)"):
        runs.best(lambda values: values.sum())
    with pytest.raises(ValueError, match="`of` must return a score that is not nan"):
        runs.best(lambda values: values * np.nan)


def test_the_bar_is_there_if_tqdm_is_and_a_terminal(capsys, monkeypatch):
    aj.sweep(lambda a: a, {"a": [1.0, 2.0, 3.0]}, chunk_size=1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    aj.sweep(lambda a: a, {"a": [1.0, 2.0, 3.0]}, chunk_size=1)
    assert "3/3" in capsys.readouterr().err
    aj.sweep(lambda a: a, {"a": [1.0, 2.0, 3.0]}, chunk_size=1, progress=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    aj.sweep(lambda a: a, {"a": [1.0, 2.0, 3.0]}, chunk_size=1)
    assert capsys.readouterr().err == ""


def test_a_heat_map_marks_the_best_cell(runs, tmp_path):
    ax = plot.heat_map(runs, lambda values: values["losses"][..., -1], label="loss")
    best = runs.best(lambda values: values["losses"][..., -1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("weight_decay", "learning_rate")
    assert len(ax.texts) == 6
    (frame,) = ax.patches
    assert frame.get_xy() == (DECAYS.index(best["weight_decay"]) - 0.5, RATES.index(best["learning_rate"]) - 0.5)
    assert ax.images[0].colorbar.ax.get_ylabel() == "loss (dark: smaller, better)"
    ax.figure.savefig(tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"`runs` must have two axes to be drawn, got \['a'\]"):
        plot.heat_map(aj.sweep(lambda a: a, {"a": [1.0]}))


@pytest.mark.parametrize("largest", [False, True])
def test_dark_is_good_in_a_heat_map(runs, largest):
    ax = plot.heat_map(runs, lambda values: values["losses"][..., -1], largest=largest)
    scores, image = np.asarray(runs.values["losses"][..., -1]), ax.images[0]
    light = {kind: sum(image.to_rgba(value)[:3]) for kind, value in (("low", scores.min()), ("high", scores.max()))}
    assert (light["high"] < light["low"]) == largest
    name = "score (dark: larger, better)" if largest else "loss (dark: smaller, better)"
    assert image.colorbar.ax.get_ylabel() == name


BAD = {
    "empty": ({}, ValueError, "`grid` must have at least one point with one hyperparameter"),
    "no values": ({"a": []}, ValueError, "`grid` must have at least one point with one hyperparameter"),
    "text": ({"a": ["adam"]}, TypeError, "`grid a` must be a number or a JAX scalar, got 'adam'"),
    "not finite": ({"a": [float("nan")]}, ValueError, "`grid a` must be a finite number"),
    "other names": ([{"a": 1}, {"b": 1}], ValueError, r"`grid` must name the same hyperparameters in all points"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_grids_are_named(name):
    grid, error, message = BAD[name]
    with pytest.raises(error, match=message):
        aj.sweep(lambda **point: 0.0, grid)


@pytest.mark.parametrize(("argument", "value"), [("chunk_size", 0), ("memory_limit", 0.0)])
def test_bad_sizes_are_named(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be"):
        aj.sweep(lambda a: a, {"a": [1.0]}, **{argument: value})
