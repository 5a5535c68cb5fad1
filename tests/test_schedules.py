"""The pure schedule: values at hand-made points, every restart in the range of int32, and the position's steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax._tree.checks import MAX_COUNT

SHAPES = [(1, 1), (1, 2), (10, 1.1), (100, 1.1), (100, 1.2), (7, 1.5), (10, 0.5), (50, 1), (10**6, 1.0001)]
SHAPES += [(MAX_COUNT, 1), (2**30, 2), (3, 1.3)]


def cycles(period, t_mult, until):
    """Return starts and lengths of the first cycles, counted one by one; at most 2000 of them."""
    starts, periods = [0], [period]
    while starts[-1] + periods[-1] <= until and len(starts) < 2000:
        starts.append(starts[-1] + periods[-1])
        periods.append(min(max(1, round(periods[-1] * t_mult)), MAX_COUNT))
    return starts, periods


def test_values():
    # float32 cosine: half a unit in the last place of a number near 1.
    close = {"atol": 1e-7}
    np.testing.assert_allclose(aj.cosine_warm_restarts(3)(jnp.arange(7)), [1, 0.5, 0, 1, 0.5, 0, 1], **close)
    np.testing.assert_allclose(
        aj.cosine_warm_restarts(4, endpoint=False)(jnp.arange(5)), [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 1], **close
    )
    np.testing.assert_allclose(aj.cosine_warm_restarts(3, t_mult=2)(jnp.array([3, 8, 9])), [1, 0, 1], **close)
    np.testing.assert_allclose(
        aj.cosine_warm_restarts(3, eta_min=0.2, eta_max=0.8, eta_max_decay=0.5)(jnp.arange(9)),
        [0.8, 0.5, 0.2, 0.4, 0.3, 0.2, 0.2, 0.2, 0.2],
        **close,
    )
    np.testing.assert_allclose(
        aj.cosine_warm_restarts(3, warmup=3, eta_min=0.2)(jnp.arange(8)),
        [0.4, 0.6, 0.8, 1, 0.6, 0.2, 1, 0.6],
        **close,
    )
    np.testing.assert_allclose(
        aj.cosine_warm_restarts(3, autorestart=False)(jnp.arange(6)), [1, 0.5, 0, 0.5, 1, 0.5], **close
    )


def test_the_ends_of_a_cycle_are_exact():
    schedule = aj.cosine_warm_restarts(24, eta_min=0.1, eta_max=0.7)
    assert schedule(0) == schedule(24) == np.float32(0.7)
    assert schedule(23) == schedule(47) == np.float32(0.1)


@pytest.mark.parametrize(("period", "t_mult"), SHAPES)
def test_positions_at_every_restart(period, t_mult):
    starts, periods = cycles(period, t_mult, MAX_COUNT)
    cases = []
    for index, (start, length) in enumerate(zip(starts, periods, strict=True)):
        cases += [(start + t, t, length, index) for t in {0, 1, length // 2, length - 1} if 0 <= t < length]
    count, t_cur, length, cycle = np.array([case for case in cases if case[0] <= MAX_COUNT]).T
    got = jax.jit(jax.vmap(aj.cosine_warm_restarts(period, t_mult=t_mult).position))(count.astype(np.int32))
    np.testing.assert_array_equal(got.t_cur, t_cur)
    np.testing.assert_array_equal(got.period, length)
    np.testing.assert_array_equal(got.cycle, cycle)


@pytest.mark.parametrize(("period", "t_mult"), SHAPES)
def test_the_last_count(period, t_mult):
    position = aj.cosine_warm_restarts(period, t_mult=t_mult).position(MAX_COUNT)
    assert 0 <= position.t_cur < position.period


@pytest.mark.parametrize(("period", "t_mult"), SHAPES)
def test_steps_follow_the_closed_form(period, t_mult):
    schedule = aj.cosine_warm_restarts(period, t_mult=t_mult, warmup=3)
    _, walked = jax.lax.scan(lambda p, _: (schedule.advance(p), p), schedule.start(), length=2000)
    jumped = schedule.position(jnp.arange(2000))
    for one, other in zip(walked, jumped, strict=True):
        np.testing.assert_array_equal(one, jnp.broadcast_to(other, one.shape))


def test_numbers_may_be_traced():
    def eta(count, period, t_mult, eta_min, eta_max, decay, warmup):
        return aj.cosine_warm_restarts(
            period, t_mult=t_mult, eta_min=eta_min, eta_max=eta_max, eta_max_decay=decay, warmup=warmup
        )(count)

    counts, of_traced = jnp.arange(0, 400, 3), jax.jit(jax.vmap(eta, in_axes=(0, *[None] * 6)))
    for period, t_mult in [(10, 1.0), (10, 1.5), (7, 2.0), (16, 0.5)]:  # exact in float32
        arguments = (period, t_mult, 0.1, 0.9, 0.75, 5)
        # Traced, the bounds are float32 before their difference is taken.
        np.testing.assert_allclose(of_traced(counts, *arguments), eta(counts, *arguments), atol=2e-7)


RUNS = {
    "growing peaks": {"period": 4, "eta_max_decay": 1.5},
    "falling peaks": {"period": 4, "eta_max_decay": 0.5, "t_mult": 2},
    "shorter cycles": {"period": 16, "t_mult": 0.5, "warmup": 3},
    "longer cycles with growing peaks": {"period": 3, "t_mult": 1.5, "eta_max_decay": 1.1, "warmup": 5},
    "no restart": {"period": 4, "autorestart": False, "eta_max": 0.7},
    "one update": {"period": 1, "eta_max_decay": 1.01},
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("updates", [1, 2, 17, 40])
def test_the_peaks_of_a_run_have_its_largest_factor_and_all_lengths_of_its_cycles(name, updates):
    schedule = aj.cosine_warm_restarts(**RUNS[name])
    everywhere, peaks = (
        schedule.position(jnp.asarray(x, jnp.int32)) for x in (range(updates), schedule.peaks(updates))
    )
    assert float(schedule.eta(peaks).max()) == float(schedule.eta(everywhere).max())
    assert set(peaks.period.tolist()) == set(everywhere.period.tolist())
    assert len(schedule.peaks(10**9)) < 100


@pytest.mark.parametrize("schedule", [0.5, optax.constant_schedule(0.5)])
def test_the_position_of_a_number_says_so(schedule):
    tx = aj.with_schedule(schedule, aj.scale_by_rates("eta"))
    assert int(tx.init(jnp.ones(1)).cycle) == (0 if callable(schedule) else -1)


def test_without_restarts_a_position_of_many_counts_has_their_shape():
    position = aj.cosine_warm_restarts(4, autorestart=False).position(jnp.arange(6))
    assert [field.shape for field in position] == [(6,)] * 3
    assert (position.t_cur.tolist(), position.period.tolist()) == (list(range(6)), [4] * 6)


@pytest.mark.parametrize("make", [aj.cosine, aj.linear])
def test_the_schedules_of_one_run(make):
    schedule = make(20, warmup=4, end=0.25)
    values = schedule(jnp.arange(30))
    assert values[:5].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (values[20:] == 0.25).all()
    assert (np.diff(values[4:21]) < 0).all()
    assert make(20)(0) == make(20, warmup=1)(1) == 1
    assert make(20)(20) == make(20)(2**31 - 1) == 0
    assert float(make(2**31 - 1)(2**31 - 2)) < 1e-6

    def eta(count, updates, warmup, end):
        return make(updates, warmup=warmup, end=end)(count)

    # Traced, one minus the end is taken in float32.
    np.testing.assert_allclose(jax.jit(eta)(jnp.arange(30), 20, 4, 0.25), values, atol=1e-7)
    np.testing.assert_allclose(eta(jnp.arange(30), jnp.int32(20), np.int16(4), jnp.bfloat16(0.25)), values, atol=1e-7)
    narrow = jax.jit(eta)(jnp.arange(30), jnp.float32(20), jnp.uint8(4), jnp.bfloat16(0.25))
    np.testing.assert_allclose(narrow, values, atol=1e-7)
