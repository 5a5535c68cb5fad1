"""Averages of the weights: against explicit sums, under wrappers that skip, stored narrow, and read."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from tests.running import quick_jit

# Float32 sums of a few dozen terms near 1.
ROUNDING = {"rtol": 2e-6, "atol": 2e-6}
RESTARTS = aj.cosine_warm_restarts(5, t_mult=1.5, warmup=2)


def train(tx, updates, params=None, seed=0):
    """The state, and the weights before the first and after every update."""
    params = {"w": jnp.ones(3), "b": jnp.zeros(2)} if params is None else params
    rng = np.random.RandomState(seed)
    state, step, seen = tx.init(params), quick_jit(tx.update), [params]
    for _ in range(updates):
        gradients = jax.tree.map(lambda p: jnp.asarray(rng.randn(*p.shape), p.dtype), params)
        change, state = step(gradients, state, params)
        params = optax.apply_updates(params, change)
        seen.append(params)
    return state, params, seen


def mean(seen, weights):
    weights = np.asarray(weights, np.float64) / np.sum(weights)
    leaves = [jax.tree.map(lambda x: np.asarray(x, np.float64), each) for each in seen]
    return jax.tree.map(lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)), *leaves)


def assert_close(got, wanted, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **(tolerance or ROUNDING)), got, wanted)


@pytest.mark.parametrize("half_life", [0.5, 4.0, 1e4])
@pytest.mark.parametrize("start", [0, 7])
def test_ema_is_the_weighted_mean_of_the_weights_seen(half_life, start):
    state, params, seen = train(aj.with_average(aj.adamw(0.05), aj.Ema(half_life, start)), 20)
    weights = [2 ** (-(20 - k) / half_life) for k in range(start + 1, 21)]
    assert_close(aj.averaged(state, params), mean(seen[start + 1 :], weights))


def test_ema_with_power_is_the_recursion_of_its_source():
    power = 6.94
    state, params, seen = train(aj.with_average(aj.adamw(0.05), aj.Ema(power=power)), 20)
    wanted = jax.tree.map(np.zeros_like, seen[0])
    for t in range(1, 21):
        beta = (1 - 1 / t) ** (power + 1)
        wanted = jax.tree.map(lambda a, p, beta=beta: beta * a + (1 - beta) * np.asarray(p), wanted, seen[t])
    assert_close(aj.averaged(state, params), wanted)


def test_a_growing_window_stops_at_that_of_the_half_life():
    weights = {}
    for name, average in {"both": aj.Ema(4, power=1.0), "power": aj.Ema(power=1.0), "constant": aj.Ema(4)}.items():
        weights[name] = [float(average.share(jnp.int32(k), jnp.int32(k - 1), None)[0]) for k in range(1, 40)]
    np.testing.assert_allclose(weights["both"], np.maximum(weights["power"], weights["constant"]), rtol=1e-6)


@pytest.mark.parametrize("updates", [3, 7, 8, 9, 14, 15, 20])
def test_a_cycle_mean_is_the_mean_of_the_current_cycle(updates):
    tx = aj.with_average(aj.adamw(0.05, schedule=RESTARTS), aj.CycleMean())
    state, params, seen = train(tx, updates)
    begin = max(start for start in (2, 7, 15) if start < updates)  # cycles of 5, 8 and 12 updates after two of warm-up
    assert_close(aj.averaged(state, params), mean(seen[begin + 1 :], np.ones(updates - begin)))


def test_a_mean_of_the_ends_has_the_weights_after_each_cycle():
    tx = aj.with_average(aj.sgdw(0.05, schedule=RESTARTS), aj.CycleMean(ends=True))
    state, params, seen = train(tx, 20)
    assert_close(aj.averaged(state, params), mean([seen[7], seen[15]], [1, 1]))


@pytest.mark.parametrize("last", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt", lambda x: 1 - x**2])
def test_a_merge_is_the_decayed_sum_of_the_steps(shape, last):
    state, params, seen = train(aj.with_average(aj.sgdw(0.05), aj.DecayMerge(shape, 20, last)), 23)
    m = max(round(last * 20), 1)
    fall = {"linear": lambda x: 1 - x, "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2, "sqrt": lambda x: 1 - x**0.5}
    factor = fall.get(shape, shape) if isinstance(shape, str) else shape
    wanted = jax.tree.map(lambda x: np.asarray(x, np.float64), seen[20 - m])
    for j in range(1, m + 1):
        step = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, seen[20 - m + j], seen[20 - m + j - 1])
        wanted = jax.tree.map(lambda x, s, j=j: x + factor(j / m) * s, wanted, step)
    # The sum of 20 steps in float64 against shares in float32: 1e-6 of weights near 1.
    assert_close(aj.averaged(state, params), wanted, rtol=1e-6, atol=1e-6)


def test_a_merge_is_handed_out_when_it_is_complete():
    tx = aj.with_average(aj.sgdw(0.05), aj.DecayMerge("linear", 10))
    state, params, _ = train(tx, 9)
    with pytest.raises(ValueError, match=r"none after 9 updates.*missing=\"params\""):
        aj.averaged(state, params)
    assert_close(aj.averaged(state, params, missing="params"), params, rtol=0, atol=0)


def spiky(k):
    return {"w": jnp.full(3, 1e6 if k % 4 == 3 else 1.0 + 0.01 * k)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: aj.with_average(aj.skip_spikes(tx, window=2), aj.Ema(3)),
        lambda tx: aj.skip_spikes(aj.with_average(tx, aj.Ema(3)), window=2),
        lambda tx: aj.with_average(aj.observe(aj.skip_spikes(tx, window=2)), aj.Ema(3)),
    ],
)
def test_a_skipped_update_is_not_averaged(wrap):
    tx, plain = wrap(aj.adamw(0.05)), aj.with_average(aj.adamw(0.05), aj.Ema(3))
    params = reference = {"w": jnp.ones(3)}
    state, wanted = tx.init(params), plain.init(params)
    for k in range(12):
        change, state = tx.update(spiky(k), state, params)
        params = optax.apply_updates(params, change)
        if k % 4 != 3:
            change, wanted = plain.update(spiky(k), wanted, reference)
            reference = optax.apply_updates(reference, change)
    assert_close(aj.averaged(state, params), aj.averaged(wanted, reference))


@pytest.mark.parametrize("tx", [aj.adamw(0.05), optax.adam(0.05), optax.sgd(0.05)], ids=["ours", "adam", "sgd"])
@pytest.mark.usefixtures("lenient")  # optax's accumulation mixes dtypes
@pytest.mark.parametrize("inside", [True, False])
def test_accumulated_micro_batches_are_averaged_once(tx, inside):
    accumulated = (
        optax.MultiSteps(aj.with_average(tx, aj.Ema(2)), 3)
        if inside
        else aj.with_average(optax.MultiSteps(tx, 3).gradient_transformation(), aj.Ema(2))
    )
    params = {"w": jnp.ones(3)}
    state, seen = accumulated.init(params), []
    for k in range(9):
        change, state = accumulated.update({"w": jnp.full(3, 1.0 + k)}, state, params)
        params = optax.apply_updates(params, change)
        seen += [params] if k % 3 == 2 else []
    assert_close(aj.averaged(state, params), mean(seen, [2 ** (-(2 - i) / 2) for i in range(3)]))


def test_leaves_left_out_are_the_parameters_and_boxes_and_dtypes_stay():
    params = {"w": jnp.ones(3, jnp.bfloat16), "b": jnp.zeros(2), "ids": jnp.arange(3)}
    tx = aj.with_average(aj.adamw(0.1, freeze="ids"), aj.Ema(2), but=["ids", "b"])
    state = tx.init(params)
    gradients = params | {"ids": np.zeros(3, jax.dtypes.float0)}
    _, state = tx.update(gradients, state, params)
    new = aj.averaged(state, params)
    assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, params)
    assert new["b"] is params["b"]
    assert new["ids"] is params["ids"]
    assert len(jax.tree.leaves(state.average)) == 1


@pytest.mark.parametrize("number", [4, 4.0, np.int64(4), np.float16(4), jnp.int32(4), jnp.bfloat16(4)])
def test_numbers_of_an_average_have_any_dtype(number):
    for average in (aj.Ema(number, number, number), aj.DecayMerge("cosine", number, number / number)):
        share, seen = average.share(jnp.int32(5), jnp.int32(0), None)
        wanted, _ = type(average)(*(4, 4, 4) if isinstance(average, aj.Ema) else ("cosine", 4, 1)).share(
            jnp.int32(5), jnp.int32(0), None
        )
        np.testing.assert_array_equal(share, wanted)
        assert seen.dtype == jnp.int32


def test_numbers_of_an_average_may_be_traced():
    averages = {"ema": lambda a, b, c: aj.Ema(a, b, c), "merge": lambda a, b, c: aj.DecayMerge("sqrt", b + 3, c / 4)}
    for make in averages.values():
        for row in ((2.0, 1, 1.0), (3.5, 0, 2.0)):
            got = jax.jit(lambda *x, make=make: make(*x).share(jnp.int32(4), jnp.int32(-1), None))(*row)
            assert_close(got, make(*row).share(jnp.int32(4), jnp.int32(-1), None))


def carried(old, new, updates, more):
    """The state after `updates` of one average and `more` of another, and the weights before and after those."""
    state, params, _ = train(old, updates)
    state, seen = aj.intervene(state, old, new, params).state, [params]
    for k in range(more):
        change, state = new.update(jax.tree.map(lambda p, k=k: jnp.full_like(p, k - 0.5), params), state, params)
        params = optax.apply_updates(params, change)
        seen.append(params)
    return state, params, seen


def test_an_average_goes_on_with_another_half_life_and_another_store():
    tx = functools.partial(aj.with_average, aj.adamw(0.05))
    state, params, _ = train(tx(aj.Ema(4)), 6)
    for new, spacing in ((tx(aj.Ema(9), store="bfloat16"), 2**-8), (tx(aj.Ema(2)), 0)):
        over = aj.carry_over(state, new.init(params))
        assert int(over.seen) == 6
        assert_close(aj.averaged(over, params), aj.averaged(state, params), rtol=spacing, atol=0)


def test_an_average_of_further_leaves_begins_anew():
    tx = functools.partial(aj.with_average, aj.adamw(0.05), aj.Ema(4))
    state, params, _ = carried(tx(but="b"), tx(), 6, 0)
    with pytest.raises(ValueError, match="none after 6 updates"):
        aj.averaged(state, params)
    state, params, _ = carried(tx(), tx(but="b"), 6, 0)
    assert int(state.seen) == 6


@pytest.mark.parametrize("old", [aj.adamw(0.05), aj.with_average(aj.adamw(0.05), aj.Ema(3))])
def test_a_merge_that_missed_its_beginning_is_not_handed_out(old):
    new = aj.with_average(aj.adamw(0.05), aj.DecayMerge("linear", 10, 0.4))
    state, params, seen = carried(old, new, 5, 7)  # the last four of ten updates follow the sixth
    assert_close(aj.averaged(state, params), mean(seen[1:5], np.ones(4)))
    state, params, _ = carried(old, new, 8, 4)
    with pytest.raises(ValueError, match="none after 12 updates"):
        aj.averaged(state, params)


def test_a_cycle_mean_does_not_go_on_with_another_average():
    old, new = (aj.with_average(aj.adamw(0.05, schedule=RESTARTS), each) for each in (aj.Ema(3), aj.CycleMean()))
    state, params, seen = carried(old, new, 5, 2)
    assert_close(aj.averaged(state, params), mean(seen[1:], [1, 1]))


def test_a_model_may_have_leaves_that_are_not_trained():
    params = {"w": jnp.ones(3), "activation": jnp.tanh}
    trained = {"w": jnp.ones(3), "activation": None}
    tx = aj.with_average(aj.adamw(0.05), aj.Ema(3))
    _, state = tx.update(trained, tx.init(trained), params)
    assert aj.averaged(state, trained)["activation"] is None
    with pytest.raises(ValueError, match="`params` must be the parameters that the average is of, 1 leaves"):
        aj.averaged(state, params)


def test_a_bfloat16_average_is_unbiased_where_rounding_to_nearest_stands_still():
    """Half-life 500: the share is 1.4e-3, below half of bfloat16's resolution of 2^-8, for weights that drift."""
    size = 4096
    params = {"w": jnp.ones(size)}

    def run(store, updates=3000):
        tx = aj.with_average(optax.sgd(1.0), aj.Ema(500), store=store)

        def body(carry, k):
            params, state = carry
            change, state = tx.update({"w": jnp.full(size, -1e-3)}, state, params)
            return (optax.apply_updates(params, change), state), None

        (last, state), _ = quick_jit(lambda c: jax.lax.scan(body, c, jnp.arange(updates)))((params, tx.init(params)))
        return np.asarray(aj.averaged(state, last)["w"], np.float64)

    wide, narrow = run(None), run("bfloat16")
    # A store moves a number by a bfloat16's step of 2^-6 with a chance of 1e-3 / 2^-6, and 721 stores are remembered:
    # noise of 0.07 per element, and of 0.001 in the mean of 4096. Five times that, relative to 3.3.
    np.testing.assert_allclose(narrow.mean(), wide.mean(), rtol=2e-3)
    share = 1 - 2 ** (-1 / 500)
    nearest = jnp.bfloat16(1.0)
    for k in range(3000):
        nearest = jnp.bfloat16(float(nearest) + max(share, 1 / (k + 1)) * (1 + 1e-3 * (k + 1) - float(nearest)))
    assert abs(float(nearest) - wide.mean()) > 0.05


def test_an_average_is_placed_as_its_parameters():
    mesh = jax.make_mesh((8,), ("data",))
    params = {"w": jax.device_put(jnp.ones((16, 4)), jax.NamedSharding(mesh, jax.P("data")))}
    tx = aj.with_average(aj.adamw(0.1), aj.Ema(2), store="bfloat16")
    shardings = aj.state_shardings(tx, params, mesh=mesh)
    assert shardings.average["w"].spec == jax.P("data", None)


def test_averages_read_under_jit_and_in_parallel_runs():
    tx = aj.with_average(aj.adamw(0.05), aj.Ema(2, start=1))
    states, params = [], []
    for seed in range(2):
        state, last, _ = train(tx, seed + 1, seed=seed)
        states.append(state), params.append(last)
    stack = functools.partial(jax.tree.map, lambda *xs: jnp.stack(xs))
    read = quick_jit(functools.partial(aj.averaged, missing="params"))(stack(*states), stack(*params))
    wanted = stack(params[0], aj.averaged(states[1], params[1]))
    assert_close(read, wanted)
    with pytest.raises(ValueError, match="under jax"):
        jax.jit(aj.averaged)(states[1], params[1])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: aj.Ema(0.0), ValueError, "`half_life` must be"),
        (lambda: aj.Ema(), ValueError, "`half_life` must be given"),
        (lambda: aj.Ema(3, start=-1), ValueError, "`start`"),
        (lambda: aj.DecayMerge("linaer", 10), ValueError, "`shape` must be one of 'linear'"),
        (lambda: aj.DecayMerge(lambda x: x, 10), ValueError, "`shape` must fall from 1"),
        (lambda: aj.DecayMerge(lambda x: 0.5, 10), ValueError, "`shape` must fall from 1 .* got 0.5 at 0"),
        (lambda: aj.DecayMerge(lambda x: (1 - x) * jnp.nan, 10), ValueError, "`shape` must fall from 1"),
        (lambda: aj.DecayMerge(lambda x: 1 - math.sqrt(x), 10), TypeError, "`shape` must be a function of arrays"),
        (lambda: aj.DecayMerge("linear", 10, 0.0), ValueError, "`last`"),
        (lambda: aj.with_average(aj.adamw(0.1), "ema"), TypeError, "`average` must be Ema"),
        (lambda: aj.with_average(aj.adamw(0.1), aj.Ema(2), store="packed"), ValueError, "`store` must be"),
        (lambda: aj.with_average(aj.adamw(0.1), aj.Ema(2), but="x").init({"w": jnp.ones(1)}), ValueError, "`but`"),
        (
            lambda: aj.with_average(aj.adamw(0.1), aj.Ema(2), but=["w"]).init({"w": jnp.ones(1)}),
            ValueError,
            r"`but` must leave a leaf to be averaged, got \['w'\], which finds all 1",
        ),
        (
            lambda: aj.with_average(aj.adamw(0.1), aj.Ema(2)).update(
                jnp.ones(1), aj.adamw(0.1).init(jnp.ones(1)), jnp.ones(1)
            ),
            ValueError,
            "EmaState at 'its top', got LearningRateState",
        ),
        (lambda: aj.with_average(aj.adamw(0.1), aj.CycleMean()).init(jnp.ones(1)), ValueError, "CycleMean unless"),
        (
            lambda: aj.with_average(aj.adamw(0.1, schedule=lambda k: 1.0), aj.CycleMean()).init(jnp.ones(1)),
            ValueError,
            "CycleMean unless",
        ),
        (
            lambda: aj.with_average(aj.adamw(0.1, freeze="ids"), aj.Ema(2)).init({"ids": jnp.arange(2), "w": 1.0}),
            TypeError,
            "int32 at 'ids': leave it out, as in but='ids'",
        ),
        (lambda: aj.averaged(aj.adamw(0.1).init(jnp.ones(1)), jnp.ones(1)), ValueError, "one with_average, got 0"),
        (
            lambda: aj.averaged(aj.with_average(aj.adamw(0.1), aj.Ema(2)).init(jnp.ones(1)), jnp.ones(1)),
            ValueError,
            "none after 0 updates",
        ),
    ],
)
def test_bad_input_names_argument_rule_value(make, error, words):
    with pytest.raises(error, match=words):
        make()
