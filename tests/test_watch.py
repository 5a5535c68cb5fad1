"""What is seen of a step, and which steps are left out: numbers against twins, and that nothing else changes."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamw_jax as aj
from tests import reference_watch as twin
from tests.catalogue import OPTIMIZERS, RESTARTS, STORED
from tests.running import lenient, optimized_jit, quick_jit

NAN, INF = float("nan"), float("inf")


def make_params(dtype=jnp.float32):
    rng = np.random.RandomState(0)
    return {
        "body": {"kernel": jnp.asarray(rng.randn(8, 4), dtype), "bias": None},
        "head": [jnp.asarray(rng.randn(4), dtype), {"kernel": jnp.asarray(rng.randn(16), dtype)}],
    }


def make_grads(step, size=1.0):
    rng = np.random.RandomState(100 + step)
    return jax.tree.map(lambda p: jnp.asarray(size * rng.randn(*p.shape), p.dtype), make_params())


def run(tx, grads, jit=True):
    """Return parameters and state after these gradients, the updates added outside of the compiled program."""
    params = make_params()
    state, step = tx.init(params), optimized_jit(tx.update) if jit else tx.update
    for g in grads:
        updates, state = step(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def scanned(tx, grads):
    """Return the same, as one program that adds the updates, too."""

    def body(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    start = make_params()
    return quick_jit(lambda start: jax.lax.scan(body, start, stacked)[0])((start, tx.init(start)))


# What is seen.


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_report_is_numpys(every, dtype, jit):
    tx = aj.observe(aj.adamw(0.01, weight_decay=0.1), every)
    params = make_params(dtype)
    state, step = tx.init(params), jax.jit(tx.update) if jit else tx.update
    for number in range(1, 8):
        grads = jax.tree.map(lambda g: g.astype(dtype), make_grads(number))
        updates, state = step(grads, state, params)
        if number % every == 0:
            leaves = zip(*map(jax.tree.leaves, (params, grads, updates)), strict=True)
            expected = [twin.seen(*(np.asarray(x, np.float64) for x in each)) for each in leaves]
        report = aj.report(state)
        assert report.observed == number - number % every
        if report.observed:
            assert [row["path"] for row in report.rows] == ["body/kernel", "head/0", "head/1/kernel"]
            for row, numbers in zip(report.rows, expected, strict=True):
                # float32's sums; an arc cosine near 1 has lost half of float64's digits.
                assert {key: row[key] for key in numbers} == pytest.approx(numbers, rel=2e-6, abs=1e-8)
        params = optax.apply_updates(params, updates)


def test_the_angle_of_a_small_step_has_all_its_digits():
    weight, across = jnp.array([3.0, 4.0]), jnp.array([-4e-5, 3e-5])
    tx = aj.observe(optax.identity())
    for step, angle in ((across, math.atan2(5e-5, 5)), (-0.001 * weight, 0.0), (-2 * weight, math.pi)):
        _, state = tx.update(step, tx.init(weight), weight)
        # What is along the weight cancels to float32's rounding of the step.
        assert aj.report(state).rows[0]["angle"] == pytest.approx(angle, rel=1e-6, abs=1e-9)


def test_a_report_prints_as_a_table_with_its_extremes_marked():
    params = {"a": jnp.full(4, 2.0), "b": jnp.full(4, 1.0), "c": jnp.zeros(2)}
    grads = {"a": jnp.full(4, 1.0), "b": jnp.full(4, -8.0), "c": jnp.full(2, 2.0)}
    tx = aj.observe(optax.sgd(0.25))
    report = aj.report(tx.update(grads, tx.init(params), params)[1])
    lines = str(report).splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["a", "2^", "1v", "0.25v", "0.125v", "0"],
        ["b", "1", "8^", "2^", "2^", "0"],
        ["c", "0v", "2", "0.5", "inf!", "nan!"],
    ]
    assert lines[-1] == "update 1; ^ largest, v smallest of its column, ! not finite; angles in radians"
    assert "2^" in report._repr_html_()
    flat = report.to_dict()
    assert len(flat) == 15
    assert flat["b/ratio"] == 2.0
    assert all(isinstance(value, float) for value in flat.values())


def test_before_the_first_observation_there_is_no_number():
    tx = aj.observe(optax.sgd(0.1), 4)
    report = aj.report(run(tx, [make_grads(0)])[1])
    assert report.observed == 0
    assert all(math.isnan(value) for value in report.to_dict().values())
    assert str(report).endswith("no update observed yet")


def test_a_report_is_found_at_any_depth():
    tx = optax.chain(optax.clip(1.0), aj.skip_spikes(aj.observe(aj.adamw(0.01))))
    tx = lenient(optax.MultiSteps(tx, 2).gradient_transformation())
    state = run(tx, [make_grads(0), make_grads(1)])[1]
    assert len(aj.report(state).rows) == 3


def test_leaves_that_are_no_numbers_are_left_alone():
    params = {"w": jnp.ones(2), "steps": jnp.ones(2, jnp.int32), "empty": jnp.zeros((0, 3)), "c": jnp.array([3 + 4j])}
    grads = {**params, "steps": np.zeros(2, jax.dtypes.float0), "w": jnp.ones(2)}
    tx = aj.observe(optax.identity(), 1)
    rows = {row["path"]: row for row in aj.report(jax.jit(tx.update)(grads, tx.init(params), params)[1]).rows}
    assert rows["c"]["weight_rms"] == pytest.approx(math.sqrt(12.5))  # of the real and the imaginary part
    assert rows["steps"]["gradient_rms"] == rows["empty"]["weight_rms"] == 0.0


def compiled(tx, size=64):
    params = {f"layer_{i}": jnp.ones((size, size)) for i in range(3)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    donating = optimized_jit(step, donate_argnums=(0, 1))
    text = donating.lower(params, tx.init(params), params).compile().as_text()
    return text[text.index("ENTRY") :]


@pytest.mark.parametrize("every", [1, 100])
def test_the_updates_in_between_read_and_write_what_they_do_without(every):
    """A property of the compiled program: outside of the branch no sum over a leaf, no copy and no loop more."""
    plain, observed = compiled(aj.adamw(0.01)), compiled(aj.observe(aj.adamw(0.01), every))

    def large(text, operation):
        return [line for line in text.splitlines() if re.search(rf"= f32\[64,64\]\S* {operation}\(", line)]

    assert large(observed, "copy") == large(plain, "copy") == []
    assert len(large(observed, "fusion")) == len(large(plain, "fusion")) > 0
    assert observed.count("conditional(") == 1
    assert "reduce(" not in observed
    assert "reduce" not in " ".join(re.findall(r"%\w*reduce\w* = ", observed))


def test_the_residual_is_computed_inside_of_the_branch():
    """Products of matrices: outside of it as many as without `observe`."""
    muon = aj.decoupled(aj.scale_by_muon(), 0.01)
    plain, observed = compiled(muon), compiled(aj.observe(muon, 100))
    products = [len(re.findall(r" dot\(|kind=kCustom", text)) for text in (plain, observed)]
    assert products[0] == products[1] >= 15  # five steps of three products
    assert observed.count("conditional(") == 1


# What is skipped.


def spiky_norms(count, seed=0):
    rng = np.random.RandomState(seed)
    norms = np.exp(0.3 * rng.randn(count) - 2)
    norms[25::17] *= 1e3
    norms[31::23] = NAN
    norms[40], norms[60] = INF, 0.0
    norms[70:] *= 200  # for good
    return norms


@pytest.mark.parametrize("window", [2, 10, 30])
@pytest.mark.parametrize("sigma", [3.0, 6.0])
def test_what_is_skipped_and_why_is_the_twins(sigma, window):
    norms = spiky_norms(140)
    tx = aj.skip_spikes(optax.sgd(1.0), sigma=sigma, window=window)
    direction = jnp.array([0.6, -0.8])

    def body(state, norm):
        updates, state = tx.update(norm * direction, state)
        return state, (updates, state.mean, state.variance, state.skipped, state.in_a_row)

    _, (updates, mean, variance, skipped, in_a_row) = jax.jit(
        lambda norms: jax.lax.scan(body, tx.init(direction), norms)
    )(jnp.asarray(norms, jnp.float32))
    taken, statistics = twin.skipping(norms.astype(np.float32).astype(float), sigma, window)
    assert 0 < taken.sum() < len(norms)
    assert taken[-1]
    np.testing.assert_array_equal(np.asarray(skipped), np.cumsum(~taken))
    since = np.maximum.accumulate(np.where(taken, np.arange(len(taken)), -1))
    np.testing.assert_array_equal(np.asarray(in_a_row), np.arange(len(taken)) - since)
    expected = np.where(taken[:, None], -norms[:, None] * np.array([0.6, -0.8]), 0)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)
    np.testing.assert_allclose(np.stack([mean, variance], 1), statistics, rtol=1e-4, atol=1e-6)  # float32 sums


def constant(size):
    return jnp.array([size, 0.0])


def test_a_level_that_changed_for_good_is_accepted():
    tx = aj.skip_spikes(optax.sgd(1.0), window=5)
    state = tx.init(jnp.zeros(2))
    sizes = [1.0, 1.1, 0.9, 1.0, 1.05, 50.0, NAN, 55.0, 45.0, INF, 50.0, 52.0, 51.0, 50.0, 0.5, NAN]
    taken = []
    for size in sizes:
        updates, state = tx.update(constant(size), state)
        taken.append(bool(updates.any()))
    # Five finite ones are skipped, and what is not finite among them; the sixth is taken.
    assert taken == [True] * 5 + [False] * 7 + [True] * 3 + [False]
    assert (int(state.known), int(state.skipped), int(state.in_a_row)) == (3, 8, 1)


def test_what_is_not_finite_is_never_taken():
    tx = aj.skip_spikes(optax.sgd(1.0), window=2)
    state = tx.init(jnp.zeros(2))
    for count in range(1, 20):
        updates, state = tx.update(constant(NAN), state)
        assert not updates.any()
        assert int(state.in_a_row) == int(state.skipped) == count


def test_before_the_window_is_known_only_what_is_not_finite_is_skipped():
    tx = aj.skip_spikes(optax.sgd(1.0), window=5)
    state = tx.init(jnp.zeros(2))
    for size in (1.0, 1000.0, NAN, 1.0, 1e6):
        _, state = tx.update(constant(size), state)
    assert int(state.skipped) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_norm_is_taken_in_float32(dtype):
    tx = aj.skip_spikes(optax.sgd(1.0))
    grads = jnp.full(1000, 300.0, dtype)  # the sum of its squares is 9e7, float16 ends at 65504
    updates, state = tx.update(grads, tx.init(grads), grads)
    assert (int(state.skipped), updates.dtype) == (0, grads.dtype)
    assert float(state.mean) == pytest.approx(math.log(300 * math.sqrt(1000)), rel=1e-5)


@pytest.mark.parametrize("name", STORED)
def test_a_skipped_update_is_zero_and_moves_nothing(name):
    tx, params = aj.skip_spikes(OPTIMIZERS[name](), window=4), make_params()
    state, step = tx.init(params), quick_jit(tx.update)
    for k in range(4):
        _, state = step(make_grads(k), state, params)
    for bad in (NAN, INF, 1e6):
        spike = jax.tree.map(lambda g, bad=bad: g.at[(0,) * g.ndim].set(bad), make_grads(9))
        updates, after = step(spike, state, params)
        assert all(not leaf.any() for leaf in jax.tree.leaves(updates))
        chex.assert_trees_all_equal(after.inner_state, state.inner_state)
        assert (int(after.skipped), int(after.in_a_row)) == (1, 1)


OTHERS = {"optax.adamw": lambda: lenient(optax.adamw(0.01)), "optax.sgd": lambda: optax.sgd(0.01, momentum=0.9)}
UNWRAPPED = [*((name, "jit") for name in STORED), *(("adamw all options", how) for how in ("eager", "scan"))]


@pytest.mark.parametrize(("name", "how"), [*UNWRAPPED, *((name, "eager") for name in OTHERS)])
def test_without_spikes_a_run_is_the_unwrapped_one_bit_for_bit(name, how):
    tx, grads = {**OPTIMIZERS, **OTHERS}[name](), [make_grads(k) for k in range(8)]
    drive = scanned if how == "scan" else functools.partial(run, jit=how == "jit")
    params, state = drive(aj.skip_spikes(tx, window=2), grads)
    wanted, wanted_state = drive(tx, grads)
    chex.assert_trees_all_equal(state.inner_state, wanted_state)
    # Where the addition of the update is in the same loop, XLA may round it together with the multiplication before, in
    # one program and not in the other: half a unit of numbers up to 1, 6e-8, in each of 8 updates.
    bits = {"rtol": 1e-6, "atol": 5e-7} if how == "scan" else {"rtol": 0, "atol": 0}
    chex.assert_trees_all_close(params, wanted, **bits)
    assert int(state.skipped) == 0


@pytest.mark.parametrize("wrap", [aj.skip_spikes, aj.observe, lambda tx: aj.observe(aj.skip_spikes(tx), 2)])
def test_inside_nnx_optimizer(wrap):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, wrap(aj.adamw(0.01)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        optimizer.update(model, nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model))

    for _ in range(2):
        step(model, optimizer, jnp.ones((4, 3)))
    assert int(aj.current(optimizer.opt_state).count) == 2
    if wrap is not aj.skip_spikes:
        assert [row["path"] for row in aj.report(optimizer.opt_state).rows] == ["bias", "kernel"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wrap", [aj.skip_spikes, aj.observe, lambda tx: aj.observe(tx, 2)])
def test_debugged_nans(wrap, dtype):
    tx, grads = wrap(optax.sgd(0.1)), {"w": jnp.ones(4, dtype), "zero": jnp.zeros(2, dtype)}
    with jax.debug_nans(True):
        for step in (tx.update, jax.jit(tx.update)):
            state = tx.init(grads)
            for _ in range(2):
                _, state = step(grads, state, grads)


@pytest.mark.parametrize("outside", [True, False])
def test_accumulated_gradients(outside):
    inner = aj.adamw(0.01, schedule=RESTARTS)
    if outside:
        tx = aj.skip_spikes(lenient(optax.MultiSteps(inner, 2).gradient_transformation()), window=3)
    else:
        tx = lenient(optax.MultiSteps(aj.skip_spikes(inner, window=3), 2).gradient_transformation())
    grads = [make_grads(k) for k in range(6)]
    spike = make_grads(6, 1e4)
    _, before = run(tx, grads)
    _, after = run(tx, [*grads, spike, make_grads(7)])
    # Outside, the spike is no micro-batch at all; inside, the mean that contains it is left out.
    assert int(optax.tree.get(after, "skipped")) == 1
    assert int(aj.current(after).count) == int(aj.current(before).count) == 3
    assert int(optax.tree.get(after, "mini_step")) == (1 if outside else 0)


@pytest.mark.parametrize("wrap", [aj.skip_spikes, aj.observe, lambda tx: aj.observe(aj.skip_spikes(tx), 2)])
def test_the_position_is_found_inside(wrap):
    tx = wrap(aj.adamw(0.01, schedule=aj.cosine_warm_restarts(6)))
    params, state = run(tx, [make_grads(k) for k in range(3)])
    assert (int(aj.current(state).count), int(aj.current(state).t_cur)) == (3, 3)
    for moved, t_cur in ((aj.restart(state), 0), (aj.set_position(state, 4), 4)):
        assert jax.tree.structure(moved) == jax.tree.structure(state)
        assert int(aj.current(moved).t_cur) == t_cur
        _, state_after = jax.jit(tx.update)(make_grads(9), moved, params)
        assert int(aj.current(state_after).t_cur) == t_cur + 1


@pytest.mark.parametrize("wrap", [aj.skip_spikes, lambda tx: aj.observe(tx, 2)])
def test_a_fresh_state_can_be_donated(wrap):
    tx, params = wrap(aj.adamw(0.01, schedule=RESTARTS)), make_params()
    step = jax.jit(lambda state, grads, params: tx.update(grads, state, params), donate_argnums=0)
    _, state = step(tx.init(params), make_grads(0), params)
    step(state, make_grads(1), params)
    assert step._cache_size() == 1


@pytest.mark.parametrize("wrap", [lambda tx: aj.skip_spikes(tx, window=2), lambda tx: aj.observe(tx, 2)])
def test_sharded_is_one_devices(wrap):
    tx = wrap(aj.adamw(0.01, weight_decay=0.1))
    mesh = Mesh(np.array(jax.devices()), ("data",))

    def place(tree):
        def put(leaf):
            return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*["data"][: leaf.shape[:1] == (8,)])))

        return jax.tree.map(put, tree)

    params = make_params()
    whole, parts = (tx.init(params), params), place((tx.init(params), params))
    for k, size in enumerate((1, 1, 1, 1e5, 1)):
        grads = make_grads(k, size)
        for name, (state, params) in {"whole": whole, "parts": parts}.items():
            updates, state = jax.jit(tx.update)(grads if name == "whole" else place(grads), state, params)
            if name == "whole":
                whole = state, optax.apply_updates(params, updates)
            else:
                parts = state, optax.apply_updates(params, updates)
    # The sums over the leaves are taken in another order.
    chex.assert_trees_all_close(whole, jax.device_get(parts), rtol=1e-5, atol=1e-7)
    kernels = [leaf for leaf in jax.tree.leaves(parts) if leaf.shape[:1] == (8,)]
    assert all(leaf.sharding.spec == PartitionSpec("data") for leaf in kernels)


def test_the_numbers_may_be_traced():
    grads = [constant(size) for size in (1.0, 1.2, 0.8, 3.0)]

    def skipped(sigma, window):
        tx = aj.skip_spikes(optax.sgd(1.0), sigma=sigma, window=window)
        state = tx.init(constant(0.0))
        for g in grads:
            _, state = tx.update(g, state)
        return state.skipped

    together = jax.jit(jax.vmap(skipped))(jnp.array([2.0, 50.0, 2.0]), jnp.array([3, 3, 4]))
    assert together.tolist() == [int(skipped(2.0, 3)), int(skipped(50.0, 3)), int(skipped(2.0, 4))] == [1, 0, 0]

    def ratio(every):
        tx = aj.observe(optax.sgd(1.0), every)
        return next(iter(tx.update(constant(1.0), tx.init(constant(2.0)), constant(2.0))[1].step_rms.values()))

    np.testing.assert_allclose(jax.jit(jax.vmap(ratio))(jnp.array([1, 2])), [math.sqrt(0.5), 0.0], rtol=1e-6)


def test_gradients_of_frozen_leaves_are_no_spikes():
    params = {"frozen": jnp.ones(2), "still": jnp.ones(2), "key": jnp.arange(2), "trained": jnp.ones(2)}
    tx = aj.skip_spikes(aj.adamw(0.1, freeze="frozen|key", lr_multipliers={"still": 0.0}))
    bad = params | {"frozen": jnp.full(2, jnp.nan), "still": jnp.full(2, jnp.inf)}
    for step in (tx.update, jax.jit(tx.update)):
        updates, state = step(bad, tx.init(params), params)
        assert int(state.skipped) == 0
        assert np.all(np.asarray(updates["trained"]) < 0)
        assert not np.any(updates["frozen"])
        assert not np.any(updates["still"])
    _, state = tx.update(bad | {"trained": jnp.full(2, jnp.nan)}, tx.init(params), params)
    assert int(state.skipped) == 1


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e38])
def test_norms_whose_squares_are_no_float32_are_known(size):
    tx = aj.skip_spikes(optax.sgd(1.0), window=3)
    state = tx.init(constant(0.0))
    for factor in (1.0, 0.5, 0.25):
        updates, state = tx.update(constant(factor * size), state)
        np.testing.assert_allclose(updates, -constant(factor * size), rtol=1e-6)
    assert int(state.known) == 3
    assert float(state.mean) == pytest.approx(np.log(size / 2), abs=1e-4)  # of numbers up to 88 in float32
    _, state = tx.update(constant(1e4 * size if size < 1e30 else np.inf), state)
    assert int(state.skipped) == 1


@pytest.mark.parametrize("size", [1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_what_is_observed_does_not_depend_on_the_unit(size):
    tx = aj.observe(optax.sgd(0.1))
    params, gradients = {"w": size * jnp.array([3.0, 4.0])}, {"w": size * jnp.array([4.0, -3.0])}
    _, state = tx.update(gradients, tx.init(params), params)
    (row,) = aj.report(state).rows
    assert row["weight_rms"] == pytest.approx(size * math.sqrt(12.5), rel=1e-6)  # float32's rounding
    assert row["ratio"] == pytest.approx(0.1, rel=1e-6)
    assert row["angle"] == pytest.approx(math.atan(0.1), rel=1e-6)
    # A step across sizes: hardly any turn, or all of a right angle.
    _, state = tx.update({"w": jnp.array([4.0, -3.0])}, tx.init(params), params)
    assert aj.report(state).rows[0]["angle"] == pytest.approx(math.atan(0.1 / size), rel=1e-5, abs=1e-30)


def test_trees_without_leaves_and_empty_leaves_are_watched():
    for params in ({}, (), {"empty": jnp.zeros((0, 4))}, {"empty": jnp.zeros((0, 4)), "w": jnp.ones(2)}):
        for make in (aj.adamw, lambda rate: aj.nadamw(rate, moment_dtype="packed8")):
            tx = aj.observe(aj.skip_spikes(make(0.1)))
            state = tx.init(params)
            for _ in range(2):
                updates, state = tx.update(params, state, params)
            assert jax.tree.structure(updates) == jax.tree.structure(params)
            assert [row["path"] for row in aj.report(state).rows] == sorted(params)


BAD = [
    (lambda: aj.observe(optax.sgd(1.0), 0), ValueError, "`every` must be an integer from 1 to 2147483647, got 0"),
    (lambda: aj.observe(optax.sgd(1.0), 1.5), ValueError, "`every` must be an integer from 1 to 2147483647, got 1.5"),
    (
        lambda: aj.observe(optax.sgd(1.0), "2"),
        TypeError,
        "`every` must be a number or a JAX scalar, got '2' of type str",
    ),
    (
        lambda: aj.skip_spikes(optax.sgd(1.0), sigma=0),
        ValueError,
        "`sigma` must be a finite number in (0, inf), got 0",
    ),
    (
        lambda: aj.skip_spikes(optax.sgd(1.0), sigma=-1.0),
        ValueError,
        "`sigma` must be a finite number in (0, inf), got -1",
    ),
    (
        lambda: aj.skip_spikes(optax.sgd(1.0), sigma=INF),
        ValueError,
        "`sigma` must be a finite number in (0, inf), got inf",
    ),
    (
        lambda: aj.skip_spikes(optax.sgd(1.0), window=1),
        ValueError,
        "`window` must be an integer from 2 to 2147483647, got 1",
    ),
    (
        lambda: aj.skip_spikes(optax.sgd(1.0), window=2.5),
        ValueError,
        "`window` must be an integer from 2 to 2147483647, got 2.5",
    ),
    (
        lambda: aj.report(optax.sgd(1.0).init(jnp.ones(1))),
        ValueError,
        "`state` must contain an ObserveState, got tuple without one: use `observe`",
    ),
    (
        lambda: aj.report(aj.observe(aj.observe(optax.sgd(1.0))).init(jnp.ones(1))),
        ValueError,
        "`state` must contain one ObserveState, got 2",
    ),
    (
        lambda: aj.report(jax.vmap(aj.observe(optax.sgd(1.0)).init)(jnp.ones((3, 1)))),
        ValueError,
        "`state` must be that of one run, got 3 of them",
    ),
    (
        lambda: aj.observe(optax.sgd(1.0)).update(jnp.ones(1), aj.observe(optax.sgd(1.0)).init(jnp.ones(1))),
        ValueError,
        "`params` must be given to update(updates, state, params) to observe them, got None",
    ),
    (
        lambda: aj.scale_invariant(lambda p: p * 2, {"w": jnp.ones(2)}["w"]),
        TypeError,
        "`loss` must return a real floating scalar, got float32[2]",
    ),
    (
        lambda: aj.scale_invariant(lambda p: jnp.sqrt(-jnp.abs(p["w"])).sum(), {"w": jnp.ones(2)}),
        ValueError,
        "`loss` must have finite gradients around `params`, got others at 'w'",
    ),
    (
        lambda: jax.jit(lambda p: aj.scale_invariant(jnp.sum, p))(jnp.ones(2)),
        TypeError,
        "`params` must have known numbers as leaves, got traced ones: flags are decided before `jit`",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for *_, text in BAD])
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


# Stacks.


def test_a_stack_is_seen_matrix_by_matrix():
    rng = np.random.default_rng(0)
    params, grads = ({"w": jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32)} for _ in range(2))
    apart, grads_apart = ({f"w{i}": tree["w"][i] for i in range(3)} for tree in (params, grads))
    tx = aj.observe(aj.adamw(0.1, axes="sio"))
    alone = aj.observe(aj.adamw(0.1))
    _, state = jax.jit(tx.update)(grads, tx.init(params), params)
    _, states = jax.jit(alone.update)(grads_apart, alone.init(apart), apart)
    for field in ("weight_rms", "gradient_rms", "step_rms", "angle"):
        found = getattr(state, field)["w"]
        np.testing.assert_allclose(found, [getattr(states, field)[f"w{i}"] for i in range(3)], rtol=1e-6)
    (row,), rows = aj.report(state).rows, aj.report(states).rows
    for name in ("weight_rms", "gradient_rms", "step_rms", "ratio", "angle"):
        assert row[name] == pytest.approx(np.mean([each[name] for each in rows]), rel=1e-6)
    assert row["worst_ratio"] == pytest.approx(max(each["ratio"] for each in rows), rel=1e-6)
    assert row["worst_angle"] == pytest.approx(max(each["angle"] for each in rows), rel=1e-6)
    assert "worst ratio" in str(aj.report(state))
    assert "worst ratio" not in str(aj.report(states))
    assert len(aj.report(state).to_dict()) == 7


MUON = {
    "stack": ((3, 4, 6), {"axes": "sio"}),
    "heads": ((6, 2, 4), {"axes": "ioo"}),
    "tall": ((12, 4), {}),
    "side by side": ((6, 9), {"split": (3, 6)}),
    "optax's axes": ((4, 3, 6), {"weight_dimension_numbers": optax.contrib.MuonDimensionNumbers(0, 2)}),
}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("name", MUON)
def test_the_residual_of_an_orthogonalization_is_numpys(name, jit):
    shape, options = MUON[name]
    rng = np.random.RandomState(0)
    params, grads = ({"w": jnp.asarray(rng.randn(*shape), jnp.float32), "b": jnp.ones(3)} for _ in range(2))
    # The decay and the held norm of another leaf are no part of it.
    tx = aj.decoupled({"w": aj.scale_by_muon(**options), "b": aj.scale_by_adam()}, 0.1, weight_decay={"w": 0.5})
    plain = aj.decoupled({"w": aj.scale_by_muon(**options), "b": aj.scale_by_adam()}, 0.1)
    step, _ = plain.update(grads, plain.init(params), params)
    watched = aj.observe(tx)
    state = (jax.jit(watched.update) if jit else watched.update)(grads, watched.init(params), params)[1]
    u = np.asarray(step["w"], np.float64)
    matrices = {
        "stack": lambda: list(u),
        "heads": lambda: [u.reshape(6, 8)],
        "tall": lambda: [u],
        "side by side": lambda: [u[:, :3], u[:, 3:]],
        "optax's axes": lambda: list(u.transpose(1, 0, 2)),
    }[name]()
    wanted = [twin.sine(matrix) for matrix in matrices]
    wanted = [max(wanted)] if name == "side by side" else wanted
    # Sums in float32 under a difference of unit vectors.
    np.testing.assert_allclose(np.ravel(state.residual["w"]), wanted, rtol=1e-3, atol=1e-5)
    assert set(state.residual) == {"w"}
    rows = {row["path"]: row for row in aj.report(state).rows}
    assert rows["w"]["residual"] == pytest.approx(max(wanted), rel=1e-3)
    assert "residual" not in rows["b"]
    assert aj.report(state).to_dict()["w/residual"] == rows["w"]["residual"]


def test_a_step_of_low_rank_or_of_zeros_has_no_residual():
    rng = np.random.RandomState(0)
    low = jnp.asarray(np.outer(rng.randn(8), rng.randn(6)), jnp.float32)
    tx = aj.observe(aj.decoupled(aj.scale_by_muon(), 0.1))
    for g in (low, jnp.zeros((8, 6))):
        _, state = tx.update({"w": g}, tx.init({"w": low}), {"w": low})
        # What rounding leaves across the rank, 1e-7, grows by 1.5 in twelve steps and five of Muon's.
        assert float(state.residual["w"]) < 0.01


def test_a_state_with_other_axes_is_named():
    params = {"w": jnp.ones((3, 4, 6))}
    tx = aj.observe(aj.adamw(0.1), axes="sio")
    with pytest.raises(ValueError, match=r"float32\[3\] at 'weight_rms/w', got float32\[\]: carry_over"):
        tx.update(params, aj.observe(aj.adamw(0.1)).init(params), params)
