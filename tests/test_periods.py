"""Next periods in 32-bit integers against Python's round(period * t_mult)."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj
from adamw_jax._rates.periods import fraction_of, next_period

LAST = 2**31 - 1
SHORT = [1, 1.1, 1.15, 1.2, 1.25, 1.3, 1.5, 1.6, 1.7, 1.9, 1.05, 2, 2.5, 3, 10, 0.5, 0.7, 0.1, 0.999, 1.001, 7.7]
SHORT += [99.9, 655.36, 999.999, *np.random.default_rng(0).uniform(0.01, 4, 20).round(3)]
"""At most three decimals: exact in whatever width they arrive."""

SIX = [1.0001, 1.00001, 1.123456, 0.333333, *np.random.default_rng(1).uniform(0.01, 4, 10).round(6)]
OTHERS = [1 / 3, 4 / 3, np.pi, 2**0.5, 1 + 2**-52, 1e-9, 5e-324, 1e10, 1e300, LAST / 2]


def twins(periods, t_mult):
    """Python's round(period * t_mult) from 1 to 2^31 - 1 for many periods: NumPy rounds products as Python does."""
    with np.errstate(over="ignore"):
        return np.clip(np.rint(np.minimum(periods.astype(np.float64) * float(t_mult), LAST)), 1, LAST).astype(np.int64)


def periods():
    """All small ones, multiples of 500 and of 5 (ties), and some of every size."""
    rng = np.random.default_rng(2)
    ties = [rng.integers(1, LAST // unit, 4000) * unit for unit in (5, 500)]
    sizes = (2 ** rng.uniform(0, 31, 4000)).astype(np.int64)
    return np.concatenate([np.arange(1, 2**12 + 1), *ties, sizes, [LAST, LAST - 1, 2**30, 2**30 - 1]])


@pytest.fixture(scope="module")
def of_traced():
    return jax.jit(jax.vmap(next_period, (0, None)))


def of_concrete(t_mult):
    return jax.jit(jax.vmap(lambda period: next_period(period, t_mult)))(jnp.asarray(periods(), jnp.int32))


def test_many_products_are_pythons_one_by_one():
    few = periods()[::37]
    for t_mult in (*SHORT, *SIX):
        expected = [min(max(1, round(int(period) * float(t_mult))), LAST) for period in few]
        np.testing.assert_array_equal(twins(few, t_mult), expected, str(t_mult))


@pytest.mark.parametrize("t_mults", [SHORT[::4], SIX[::3]], ids=["three decimals", "six decimals"])
def test_a_concrete_t_mult_gives_pythons_periods(t_mults):
    for t_mult in t_mults:
        np.testing.assert_array_equal(of_concrete(t_mult), twins(periods(), t_mult), str(t_mult))


def test_another_concrete_t_mult_is_its_nearest_fraction():
    assert [fraction_of(t) for t in (1.1, np.float32(1.1), 1 / 3, np.float32(1 / 3))] == [
        *[fractions.Fraction(11, 10)] * 2,
        *[fractions.Fraction(1, 3)] * 2,
    ]
    for t_mult in OTHERS:
        assert abs(fraction_of(t_mult) - fractions.Fraction(t_mult)) <= fractions.Fraction(1, 10**6)
    for t_mult in (1 / 3, np.pi, 1e300):
        np.testing.assert_array_equal(of_concrete(t_mult), twins(periods(), float(fraction_of(t_mult))), str(t_mult))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_traced_t_mult_of_three_decimals_gives_pythons_periods(of_traced, dtype):
    whole = [1, 2, 3, 10, 2**24 + 1, LAST]
    for t_mult in SHORT if dtype == "float32" else whole:
        got = of_traced(jnp.asarray(periods(), jnp.int32), jnp.asarray(t_mult, dtype))
        np.testing.assert_array_equal(got, twins(periods(), t_mult), str(t_mult))


def test_a_traced_t_mult_with_more_digits_is_a_multiple_of_2_to_the_minus_23(of_traced):
    for t_mult in (1 / 3, 4 / 3, np.pi, 2**0.5, 1.00001, 3.999999):
        got = of_traced(jnp.asarray(periods(), jnp.int32), jnp.float32(t_mult))
        stored = np.round(float(np.float32(t_mult)) * 2**23) / 2**23
        np.testing.assert_array_equal(got, twins(periods(), stored), str(t_mult))


def test_every_thousandth_is_found_in_a_float32(of_traced):
    """At the period 10^6, whose product tells three decimals from their neighbours, and at ties."""
    thousandths = np.arange(1, 4000, 7)
    for period in (10**6, 55, 12345):
        got = jax.jit(jax.vmap(next_period, (None, 0)))(jnp.int32(period), jnp.asarray(thousandths / 1000, jnp.float32))
        expected = [max(1, round(period * (k / 1000))) for k in thousandths.tolist()]
        np.testing.assert_array_equal(got, expected)


def cycles(period, t_mult):
    schedule = aj.cosine_warm_restarts(period, t_mult=t_mult)
    position = schedule.start()
    lengths = []
    for _ in range(6):
        lengths.append(position.period)
        position = schedule.advance(position._replace(t_cur=position.period - 1))
    return jnp.stack(lengths)


def test_a_schedule_of_traced_numbers_has_the_cycles_of_python():
    starts = [1, 3, 5, 15, 25, 35, 45, 50, 55, 105, 1000, 10**7]
    of_all_periods = jax.jit(jax.vmap(cycles, (0, None)))
    for t_mult in (1.1, 1.15, 1.5, 0.7, 2.0):
        expected = [starts]
        for _ in range(5):
            expected.append([int(twins(np.asarray([period]), t_mult)[0]) for period in expected[-1]])
        got = of_all_periods(jnp.asarray(starts, jnp.int32), jnp.float32(t_mult))
        np.testing.assert_array_equal(got, np.transpose(expected), str(t_mult))


def test_the_closed_form_counts_with_the_same_cycles_as_the_steps():
    def position(t_mult, count):
        return aj.cosine_warm_restarts(15, t_mult=t_mult).position(count)

    traced = jax.jit(position)
    for count in (14, 15, 30, 31, 100, 10**6):
        expected = position(1.1, count)
        for got in (position(np.float32(1.1), count), traced(1.1, count)):
            assert [int(x) for x in got] == [int(x) for x in expected]
    assert int(position(1.1, 15).period) == round(15 * 1.1) == 16


def test_a_traced_float64_is_no_less_exact():
    with jax.enable_x64(True):
        of_t_mult = jax.jit(next_period)
        assert int(of_t_mult(jnp.int32(15), 1.1)) == round(15 * 1.1) == 16
        assert int(of_t_mult(jnp.int32(55), 1.1)) == round(55 * 1.1) == 61


@pytest.mark.parametrize("t_mult", [1.1, 2, "traced"])
def test_no_program_has_float64_that_did_not_ask_for_it(t_mult):
    def step(state, t_mult):
        schedule = aj.cosine_warm_restarts(15, t_mult=t_mult)
        tx = aj.adamw(1e-3, schedule=schedule)
        return tx.update(jnp.ones(8), state, jnp.ones(8))

    state = aj.adamw(1e-3, schedule=aj.cosine_warm_restarts(15)).init(jnp.ones(8))
    if t_mult == "traced":
        text = jax.jit(step).lower(state, 1.1).compile().as_text()
    else:
        text = jax.jit(lambda state: step(state, t_mult)).lower(state).compile().as_text()
    assert "f64" not in text
