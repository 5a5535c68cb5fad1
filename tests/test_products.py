"""Next periods in 32-bit integers against Python's round(period * t_mult)."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj
from adamw_jax._rates.products import as_written, binary_of, rounded_product

LAST = 2**31 - 1
SHORT = [
    1.1,
    1.2,
    1.25,
    1.3,
    1.5,
    1.6,
    1.7,
    1.9,
    1.05,
    1.15,
    2.5,
    0.5,
    0.7,
    0.1,
    0.999,
    1.001,
    7.7,
    99.9,
    999.999,
    3,
    10,
]
LONG = [1 / 3, 2 / 3, np.pi, 2**0.5, 1 + 2**-52, 1 - 2**-53, 0.5 + 2**-53, 1e-9, 1e-300, 5e-324, 1e10, 1e300, LAST / 2]


def twin(period, t_mult):
    product = period * t_mult
    return LAST if product > LAST else max(1, round(product))


def twins(periods, t_mult):
    """The same for many periods: NumPy rounds products as Python does."""
    with np.errstate(over="ignore"):
        return np.clip(np.rint(periods.astype(np.float64) * t_mult), 1, LAST).astype(np.int64)


def periods():
    rng = np.random.default_rng(0)
    uniform = rng.integers(1, LAST, 4000, endpoint=True)
    logarithmic = (2 ** rng.uniform(0, 31, 4000)).astype(np.int64)
    return np.concatenate([np.arange(1, 2**12 + 1), uniform, logarithmic, [LAST, LAST - 1, 2**30, 2**30 - 1]])


def of_all(numbers):
    return jnp.asarray(numbers, jnp.int32)


def random_factors(seed, decimals=None):
    numbers = np.random.default_rng(seed).uniform(0.01, 4, 40)
    return list(numbers if decimals is None else numbers.round(decimals))


def test_many_products_are_pythons_one_by_one():
    for t_mult in (*SHORT, *LONG):
        few = periods()[::37]
        np.testing.assert_array_equal(twins(few, t_mult), [twin(int(p), t_mult) for p in few], str(t_mult))


@pytest.mark.parametrize("factors", [SHORT, LONG, random_factors(1), random_factors(2, 3)], ids=str)
def test_products_of_float64_are_pythons(factors):
    of_factor = jax.jit(jax.vmap(rounded_product, (0, None)))
    for t_mult in factors:
        got = of_factor(of_all(periods()), binary_of(t_mult))
        np.testing.assert_array_equal(got, twins(periods(), t_mult), str(t_mult))


@pytest.mark.parametrize("factors", [SHORT, LONG[:9], random_factors(3), random_factors(4, 3)], ids=str)
def test_products_of_a_traced_float32_are_pythons_with_the_number_that_was_written(factors):
    of_factor = jax.jit(jax.vmap(lambda p, t: rounded_product(p, binary_of(t)), (0, None)))
    for t_mult in factors:
        got = of_factor(of_all(periods()), jnp.float32(t_mult))
        short = t_mult if round(t_mult, 3) == t_mult and t_mult >= 2**-7 else float(np.float32(t_mult))
        np.testing.assert_array_equal(got, twins(periods(), short), str(t_mult))


def test_products_of_a_traced_integer_are_pythons():
    of_factor = jax.jit(jax.vmap(lambda p, t: rounded_product(p, binary_of(t)), (0, None)))
    for t_mult in (1, 2, 3, 2**24 + 1, LAST):
        np.testing.assert_array_equal(of_factor(of_all(periods()), jnp.int32(t_mult)), twins(periods(), t_mult))


def test_a_float32_stands_for_the_number_of_three_decimals_next_to_it():
    written = np.arange(8, 10**6, 7) / 1000
    low, high, fraction = jax.jit(jax.vmap(binary_of))(jnp.asarray(written, jnp.float32))
    for number, *words in zip(written[::11], low[::11], high[::11], fraction[::11], strict=True):
        mantissa = int(words[0]) + (int(words[1]) << 32)
        assert fractions.Fraction(mantissa, 2 ** int(words[2])) == fractions.Fraction(number)
        assert as_written(np.float32(number)) == number
    others = np.random.default_rng(5).uniform(0, 5, 1000).astype(np.float32)
    others = others[np.float32(others.astype(np.float64).round(3)) != others]
    for number in others:
        assert as_written(number) == float(number)


PERIODS = [1, 3, 5, 15, 25, 35, 45, 105, 1000, 10**7]
"""In float32, 15 times 1.1 is no tie."""


def cycles(period, t_mult):
    schedule = aj.cosine_warm_restarts(period, t_mult=t_mult)
    position = schedule.start()
    lengths = []
    for _ in range(6):
        lengths.append(position.period)
        position = schedule.advance(position._replace(t_cur=position.period - 1))
    return jnp.stack(lengths)


def cycles_twin(period, t_mult):
    lengths = [period]
    while len(lengths) < 6:
        lengths.append(twin(lengths[-1], t_mult))
    return lengths


def test_a_schedule_of_traced_numbers_has_the_cycles_of_python():
    of_all_periods = jax.jit(jax.vmap(cycles, (0, None)))
    for t_mult in SHORT:
        expected = [cycles_twin(period, t_mult) for period in PERIODS]
        for number in (t_mult, jnp.float32(t_mult)):
            np.testing.assert_array_equal(of_all_periods(of_all(PERIODS), number), expected, str(t_mult))


@pytest.mark.parametrize("turn", range(3))
def test_a_schedule_of_known_numbers_has_the_cycles_of_python(turn):
    """Every factor with every period, in one of three forms: each form with every factor, and with every period."""
    forms = (lambda t_mult: t_mult, np.float32, jnp.float32)
    for i, period in enumerate(PERIODS[turn::3]):
        for j, t_mult in enumerate(SHORT):
            number = forms[(turn + i + j) % 3](t_mult)
            np.testing.assert_array_equal(cycles(period, number), cycles_twin(period, t_mult), str((period, number)))


@pytest.mark.parametrize("t_mult", [1, 2, 3, 1000.0, 2.0**30, 2.0**31, 1e300])
def test_whole_factors_take_a_short_way_to_the_same_periods(t_mult):
    lengthen = jax.jit(aj.cosine_warm_restarts(1, t_mult=t_mult)._lengthen)
    np.testing.assert_array_equal(lengthen(of_all(periods())), twins(periods(), t_mult))


def test_the_closed_form_counts_with_the_same_cycles_as_the_steps():
    def position(t_mult, count):
        return aj.cosine_warm_restarts(15, t_mult=t_mult).position(count)

    for count in (14, 15, 30, 31, 100, 10**6):
        expected = position(1.1, count)
        for got in (position(np.float32(1.1), count), jax.jit(position)(1.1, count)):
            assert [int(x) for x in got] == [int(x) for x in expected]
    assert int(position(1.1, 15).period) == round(15 * 1.1) == 16


def test_a_traced_float64_is_itself():
    with jax.enable_x64(True):
        cycles = jax.jit(lambda t: aj.cosine_warm_restarts(15, t_mult=t)._lengthen(jnp.int32(15)))
        assert int(cycles(1.1)) == round(15 * 1.1)
        assert int(cycles(1.1 + 1e-9)) == round(15 * (1.1 + 1e-9)) == 17


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


def test_strict_promotion_does_not_mind():
    with jax.numpy_dtype_promotion("strict"):
        assert int(jax.jit(lambda t: rounded_product(jnp.int32(15), binary_of(t)))(1.1)) == 16
