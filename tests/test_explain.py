"""explain: totals, rows, flags and text; current: the position from any state."""

import functools
import json
import math
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj

GOLDEN = pathlib.Path(__file__).parent / "golden/variants/explain.txt"
OPTIONS = {
    "learning_rate": 1e-3,
    "weight_decay": {"norm": 0.0, "embed": (1e-5, 0.0), "kernel": 2e-4},
    "lr_multipliers": {"block_0": 0.5, "norm": 0.0},
    "freeze": "embed",
    "schedule": aj.cosine_warm_restarts(100),
}


def shape(*axes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(axes, dtype)


def small_model():
    return {
        "embed": shape(50, 8),
        "block_0": {"kernel": shape(8, 8), "bias": shape(8)},
        "block_1": {"kernel": shape(8, 8, dtype=jnp.bfloat16), "bias": shape(8)},
        "norm": {"scale": shape(8)},
    }


def test_a_proximal_threshold_has_its_rows():
    table = aj.explain(aj.adamw, small_model(), learning_rate=1e-3, proximal_l1={"kernel": 0.25})
    found = {row["path"]: row["proximal_l1"] for row in table.rows}
    assert found == {path: 0.25 if path.endswith("kernel") else 0.0 for path in found}
    with pytest.raises(ValueError, match="every pattern of `proximal_l1` must match"):
        aj.explain(aj.adamw, small_model(), learning_rate=1e-3, proximal_l1={"kernl": 0.25})


def test_the_text_of_a_table():
    assert str(aj.explain(aj.adamw, small_model(), updates_per_epoch=50, **OPTIONS)) + "\n" == GOLDEN.read_text()


def test_rows_are_the_numbers_of_the_formulas():
    table = aj.explain(aj.adamw(**OPTIONS), small_model(), updates_per_epoch=50)
    rows = {row["path"]: row for row in table.rows}
    kernel = rows["block_0/kernel"]
    assert (kernel["rate_rule"], kernel["decay_rule"]) == ("block_0", "kernel")
    assert (kernel["multiplier"], kernel["rate"], kernel["l2"], kernel["decay"]) == (0.5, 5e-4, 2e-4, 2e-4)
    # 0.5 = (1 - 2e-4)^h
    assert (1 - 2e-4) ** kernel["half_life"] == pytest.approx(0.5, rel=1e-12)
    assert kernel["timescale"] == pytest.approx(100.0, rel=1e-12)
    assert kernel["state_bytes"] == 2 * 4 * 64
    assert rows["block_1/kernel"]["state_bytes"] == 2 * 4 * 64, "moments of bfloat16 parameters are float32"
    assert (rows["embed"]["rate_rule"], rows["embed"]["rate"], rows["embed"]["state_bytes"]) == ("freeze", 0.0, 0)
    assert rows["block_0/bias"]["decay_rule"] is None
    assert rows["block_0/bias"]["half_life"] is None


@pytest.mark.parametrize(
    ("options", "decay"),
    [
        ({"coupling": "learning_rate"}, 0.01 * 0.8 * 0.1),
        ({"coupling": "schedule"}, 0.8 * 0.1),
        ({"coupling": "constant"}, 0.1),
        ({"coupling": "corrected"}, 0.01 * 0.8 * 0.1),
        ({"coupling": aj.Corrected("w", peak=0.016)}, (0.01 * 0.8) ** 2 / 0.016 * 0.1),
        ({"normalize_decay": 100}, 0.8 * 0.1 / 10),
        ({"normalize_decay": "cycle"}, 0.8 * 0.1 / 5),
        ({"lr_multipliers": 0.5}, 0.8 * 0.1),
        ({"lr_multipliers": 0.5, "multiplier_scales_decay": True}, 0.8 * 0.05),
        ({"lr_multipliers": 0.0}, 0.0),
        ({"schedule": 0.3}, 0.3 * 0.1),
        ({"schedule": optax.warmup_cosine_decay_schedule(0.0, 0.7, 10, 100)}, 0.7 * 0.1),
        (
            {"learning_rate": optax.linear_schedule(0.0, 0.2, 50), "coupling": "learning_rate", "schedule": None},
            0.2 * 0.1,
        ),
    ],
    ids=[
        "learning_rate",
        "schedule",
        "constant",
        "corrected",
        "corrected with a peak",
        "normalized",
        "normalized per cycle",
        "multiplier",
        "multiplier of the decay",
        "multiplier 0",
        "constant schedule",
        "warm-up and cosine",
        "learning-rate schedule",
    ],
)
@pytest.mark.usefixtures("lenient")
def test_the_decay_at_the_peak_is_what_the_first_updates_do(options, decay):
    options = {
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "schedule": aj.cosine_warm_restarts(25, eta_max=0.8),
        **options,
    }
    params = {"w": jnp.ones((2, 2))}
    table = aj.explain(aj.adamw, params, **options)
    # float64 on both sides; a schedule's values are float32: 6e-8 relative.
    assert table.rows[0]["decay"] == pytest.approx(decay, rel=2e-7)
    tx = aj.adamw(**options)
    zero = optax.tree.zeros_like(params)

    def step(state, _):
        updates, state = tx.update(zero, state, params)
        return state, updates["w"][0, 0]

    _, updates = jax.lax.scan(step, tx.init(params), length=60)
    np.testing.assert_allclose(-updates.min(), decay, rtol=1e-6)


def total(params):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def nnx_transformer():
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, width, rngs):
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, width, rngs=rngs, decode=False)
            self.dense = nnx.Linear(width, width, rngs=rngs)

    class Transformer(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(32, 8, rngs=rngs)
            self.block = Block(8, rngs)
            self.head = nnx.Linear(8, 32, rngs=rngs)

    return nnx.state(nnx.eval_shape(lambda: Transformer(nnx.Rngs(0))), nnx.Param)


def equinox_mlp():
    import equinox

    model = equinox.nn.MLP(4, 2, 8, 2, key=jax.random.key(0))
    return equinox.filter(model, equinox.is_inexact_array)


def keras_resnet():
    import keras

    inputs = x = keras.Input((8, 8, 4))
    for _ in range(2):
        y = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(x))
        x = keras.layers.Add()([x, keras.layers.ReLU()(y)])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    return {variable.path: variable.value for variable in model.trainable_variables}


def gpt2():
    def init():
        width, layers = 768, 12
        block = {
            "ln_1": {"scale": jnp.ones(width), "bias": jnp.ones(width)},
            "attention": {"qkv": jnp.ones((width, 3 * width)), "qkv_bias": jnp.ones(3 * width)},
            "projection": {"kernel": jnp.ones((width, width)), "bias": jnp.ones(width)},
            "ln_2": {"scale": jnp.ones(width), "bias": jnp.ones(width)},
            "up": {"kernel": jnp.ones((width, 4 * width)), "bias": jnp.ones(4 * width)},
            "down": {"kernel": jnp.ones((4 * width, width)), "bias": jnp.ones(width)},
        }
        ends = {"scale": jnp.ones(width), "bias": jnp.ones(width)}
        embeddings = {"tokens": jnp.ones((50257, width)), "positions": jnp.ones((1024, width))}
        return {"embed": embeddings, "blocks": [block] * layers, "ln_f": ends}

    return jax.eval_shape(init)


@pytest.mark.parametrize(
    ("make", "size", "path"),
    [
        # embed 32 8; norm 2 8; q, k, v, out 4 (8 8 + 8); dense 8 8 + 8; head 8 32 + 32
        (nnx_transformer, 256 + 16 + 288 + 72 + 288, "block/attention/query/kernel"),
        # 4 8 + 8, 8 8 + 8, 8 2 + 2
        (equinox_mlp, 40 + 72 + 18, "layers/0/weight"),
        # two convolutions 3 3 4 4 + 4 with scale and offset, and 4 3 + 3
        (keras_resnet, 2 * (148 + 8) + 15, "conv2d/kernel"),
        # the published size of GPT-2 small
        (gpt2, 124_439_808, "blocks/0/attention/qkv"),
    ],
    ids=["Flax NNX", "Equinox", "Keras", "GPT-2"],
)
def test_totals_of_real_models(make, size, path):
    params = make()
    table = aj.explain(aj.adamw(1e-3, weight_decay=aj.matrices(0.01)), params)
    assert path in [row["path"] for row in table.rows]
    assert table.totals["size"] == size == total(params)
    # Two float32 moments; the count of the rate, the rate, the count of the moments.
    assert table.totals["state_bytes"] == 8 * size + 12
    assert table.totals["scalar_bytes"] == 12
    assert table.totals["parameters"] == len(jax.tree.leaves(params))
    vectors = ("bias", "scale", "gamma", "beta")
    assert table.totals["decayed"] == sum(row["size"] for row in table.rows if not row["path"].endswith(vectors))
    assert not any(row["flags"] for row in table.rows)


def test_state_bytes_are_those_of_the_state():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones(5, jnp.bfloat16)}
    for tx in (
        aj.sgdw(0.1),
        aj.adamw(0.1, amsgrad=True),
        aj.nadamw(0.1, schedule=aj.cosine_warm_restarts(3)),
        aj.adamw(0.1, weight_decay=0.1, decay="anchored"),
    ):
        table = aj.explain(tx, params)
        assert table.totals["state_bytes"] == sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params)))
    bare = aj.explain(aj.adamw(0.1), jnp.ones(3))
    assert (bare.rows[0]["state_bytes"], bare.totals["scalar_bytes"]) == (24, 12)
    assert aj.explain(aj.adamw(0.1), {}).totals["size"] == 0


def test_flags_show_where_to_look_twice():
    params = {"bias": shape(4), "kernel": shape(4, 4, dtype=jnp.bfloat16), "old": shape(2, 2), "big": shape(2, 2)}
    decay = {"bias": 0.1, "kernel": 1e-3, "big": 1.5}
    rows = aj.explain(aj.adamw, params, learning_rate=0.1, weight_decay=decay, lr_multipliers={"old": 0}).rows
    flags = {row["path"]: row["flags"] for row in rows}
    assert flags == {
        "bias": ("a leaf of 0 or 1 axes is decayed", "decay halves the weight in 6.6 updates"),
        "big": ("decay takes away more than the weight",),
        "kernel": ("decay per update below the resolution of bfloat16",),
        "old": ("frozen but holds state: see freeze=",),
    }


def test_tied_arrays_are_flagged():
    tied = jnp.ones((2, 2))
    rows = aj.explain(aj.adamw(0.1), {"embed": tied, "head": tied, "other": jnp.ones((2, 2))}).rows
    assert [row["flags"] for row in rows] == [("same array as head",), ("same array as embed",), ()]


def test_a_shadowed_pattern_is_named_with_the_one_before_it():
    params = {"dense": {"kernel": shape(2, 2), "bias": shape(2)}}
    message = "`weight_decay`: the pattern 'kernel' decides nothing, for 'dense' comes before it"
    with pytest.warns(UserWarning, match=message):
        table = aj.explain(aj.adamw, params, learning_rate=0.1, weight_decay={"dense": 0.0, "kernel": 0.1})
    assert table.warnings == [message]
    assert f"warning: {message}" in str(table)


def test_paths_that_several_parameters_have_are_named():
    with pytest.warns(UserWarning, match="2 parameters have the path 'a/b'"):
        aj.explain(aj.adamw(0.1), {"a/b": shape(2, 2), "a": {"b": shape(2, 2)}})


def test_html_colours_and_escapes():
    html = aj.explain(aj.adamw, {"<w>": shape(2), "v": shape(2, 2)}, learning_rate=0.1, weight_decay=0.01)._repr_html_()
    assert html.count("<tr style=") == 1
    assert "&lt;w&gt;" in html
    assert "<w>" not in html
    assert html.count("<tr") == html.count("</tr>") == 4


def test_to_dict_is_json():
    table = aj.explain(aj.adamw, small_model(), **OPTIONS)
    read = json.loads(json.dumps(table.to_dict()))
    assert read == table.to_dict()
    assert read["rows"][0]["shape"] == [8]
    assert read["peaks"]["learning_rate"] == 1e-3


def test_nothing_is_allocated():
    huge = {"w": shape(2**20, 2**20)}
    assert aj.explain(aj.adamw(0.1), huge).totals["state_bytes"] == 2**43 + 12
    injected = optax.inject_hyperparams(aj.adamw)(0.1)
    assert aj.explain(optax.chain(optax.clip(1.0), injected), huge).totals["state_bytes"] > 2**43


BAD = {
    "no preset": (lambda: aj.explain(optax.adam(0.1), {}), TypeError, "`tx` must come from a preset"),
    "arguments twice": (
        lambda: aj.explain(aj.adamw(0.1), {}, b1=0.9),
        TypeError,
        r"`tx` must be a preset, not what it returned, to take arguments, got \['b1'\]",
    ),
    "a leaf that is no array": (
        lambda: aj.explain(aj.adamw(0.1), {"w": {"f": math.sqrt}}),
        TypeError,
        "`params` must have arrays or shapes as leaves, got a builtin_function_or_method at 'w/f': filter a model",
    ),
    "integers": (
        lambda: aj.explain(aj.adamw(0.1), {"w": shape(2, dtype=jnp.int32)}),
        TypeError,
        "`params` must have real floating leaves, got int32 at 'w'",
    ),
    "a pattern that matches nothing": (
        lambda: aj.explain(aj.adamw(0.1, weight_decay={"x": 0.1}), {"w": shape(2)}),
        ValueError,
        "every pattern of `weight_decay` must match a parameter path, got 'x'",
    ),
    "updates": (lambda: aj.explain(aj.adamw(0.1), {}, updates=0), ValueError, "`updates` must be an integer from 1"),
    "updates per epoch": (
        lambda: aj.explain(aj.adamw(0.1), {}, updates_per_epoch=0),
        ValueError,
        r"`updates_per_epoch` must be a finite number in \(0, inf\), got 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


WRAPPERS = {
    "bare": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "masked": lambda tx: optax.masked(tx, {"w": True}),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_current_reads_any_state_under_jit(name):
    tx = WRAPPERS[name](aj.adamw(0.5, schedule=aj.cosine_warm_restarts(3)))
    params = {"w": jnp.ones(2)}
    update = jax.jit(lambda state: tx.update(params, state, params)[1])
    state = tx.init(params)
    for count in range(5):
        now = jax.jit(aj.current)(state)
        assert [int(x) for x in (now.count, now.t_cur, now.period, now.cycle)] == [count, count % 3, 3, count // 3]
        assert float(now.learning_rate) == 0.5
        # 1, 1/2, 0 by a float32 cosine
        assert float(now.eta) == pytest.approx(1 - (count % 3) / 2, abs=1e-7)
        state = update(state)


def test_current_without_a_schedule_or_without_a_rate():
    params = jnp.ones(2)
    now = aj.current(aj.sgdw(lambda count: 0.1 * 0.5**count, coupling="learning_rate").init(params))
    assert now.eta is now.t_cur is now.period is now.cycle is None
    assert float(now.learning_rate) == pytest.approx(0.1)
    assert aj.current(aj.with_schedule(0.5, aj.scale_by_rates("eta")).init(params)).learning_rate is None
    runs = jax.vmap(lambda rate: aj.current(aj.adamw(rate).init(params)).learning_rate)(jnp.array([0.5, 0.25]))
    assert runs.tolist() == [0.5, 0.25]


def test_current_wants_one_owner_of_each_kind():
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="`state` must contain a LearningRateState or a ScheduleState"):
        aj.current(optax.adam(0.1).init(params))
    with pytest.raises(ValueError, match="`state` must contain one LearningRateState, got several"):
        aj.current(optax.chain(aj.adamw(0.1), aj.adamw(0.1)).init(params))


def test_explain_does_not_warn_of_good_rules():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert functools.partial(aj.explain, aj.adamw, small_model(), **OPTIONS)().warnings == []


@pytest.mark.parametrize("wrap", [aj.observe, aj.skip_spikes, lambda tx: aj.observe(aj.skip_spikes(tx))])
def test_explain_sees_through_what_watches(wrap):
    tx = aj.adamw(**OPTIONS)
    plain, seen = aj.explain(tx, small_model()), aj.explain(wrap(tx), small_model())
    assert [row["decay"] for row in seen.rows] == [row["decay"] for row in plain.rows]
    assert seen.totals["state_bytes"] > plain.totals["state_bytes"]


def test_a_decay_far_from_the_length_of_the_run_is_flagged():
    def flags(decay, updates):
        (row,) = aj.explain(aj.adamw(0.1, weight_decay=decay), {"w": shape(2, 2)}, updates=updates).rows
        return row["flags"]

    # Half-lives: log(0.5) / log(1 - 0.01) = 69, and 692.8 for 0.001.
    assert flags(0.01, None) == flags(0.01, 1000) == ()
    assert flags(0.01, 10_000) == ("half-life below 1 % of the run",)
    assert flags(0.001, 600) == ("half-life above the run",)
    assert flags(0.05, 100_000) == ("decay halves the weight in 14 updates",)


@pytest.mark.parametrize("schedule", [lambda count: 3e-4, 0.05, 100.0, aj.cosine_warm_restarts(10, eta_max=1e-3)])
def test_a_schedule_whose_peak_is_far_from_one_is_told(schedule):
    with pytest.warns(UserWarning, match="`schedule`: the largest factor is .* should be near 1"):
        aj.explain(aj.adamw(0.1, schedule=schedule), {"w": shape(2, 2)})


def test_the_decay_rule_is_what_a_leaf_got_and_a_name_says_why():
    params = {"norm": {"kernel": shape(4, 4), "scale": shape(4, 4)}, "dense": {"bias": shape(4), "kernel": shape(4, 4)}}
    table = aj.explain(aj.adamw(1e-3, weight_decay=aj.matrices(0.01)), params)
    assert {row["path"]: row["decay_rule"] for row in table.rows} == {
        "dense/bias": None,
        "dense/kernel": "matrices",
        "norm/kernel": "matrices",
        "norm/scale": None,
    }
    rows = {row["path"]: row for row in table.rows}
    assert rows["norm/scale"]["why"] == "name 'scale' in 'norm'"
    assert "name 'scale'" in str(table)
    # Without a rule that asks for roles, the reason is of no interest.
    assert all(row["why"] is None for row in aj.explain(aj.adamw(1e-3, weight_decay=0.01), params).rows)


def test_held_leaves_have_a_column():
    params = {"a": shape(4, 4), "b": shape(4, 4)}
    table = aj.explain(aj.adamw(1e-3, hold_norm="a"), params)
    assert [row["held"] for row in table.rows] == [True, False]
    assert " held " in str(table)
    assert " held " not in str(aj.explain(aj.adamw(1e-3), params))


GROWS = aj.cosine_warm_restarts(10, eta_max_decay=1.5)
SHRINKS = aj.cosine_warm_restarts(16, t_mult=0.5)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("options", "updates", "rate", "decay"),
    [
        ({"schedule": GROWS}, 10, 0.1, 0.02),
        ({"schedule": GROWS}, 25, 0.1 * 1.5**2, 0.02 * 1.5**2),
        ({"schedule": GROWS, "coupling": "constant"}, 25, 0.1 * 1.5**2, 0.02),
        ({"schedule": GROWS, "coupling": aj.Corrected("w", peak=0.225)}, 25, 0.225, 0.02 * 0.225),
        ({"schedule": SHRINKS, "normalize_decay": "cycle"}, 16, 0.1, 0.02 / 4),
        ({"schedule": SHRINKS, "normalize_decay": "cycle"}, 17, 0.1, 0.02 / np.sqrt(8)),
        ({"schedule": SHRINKS, "normalize_decay": "cycle"}, None, 0.1, 0.02),
        ({"schedule": aj.cosine_warm_restarts(10, warmup=9)}, 5, 0.05, 0.01),
        ({"schedule": aj.cosine_warm_restarts(10, warmup=9)}, 10, 0.1, 0.02),
        ({"schedule": aj.cosine_warm_restarts(10, autorestart=False)}, 50, 0.1, 0.02),
        ({"schedule": optax.linear_schedule(1.0, 3.0, 2), "coupling": "learning_rate"}, 3, 0.3, 0.02 * 0.3),
    ],
)
def test_peaks_are_the_largest_factors_of_the_run(options, updates, rate, decay):
    (row,) = aj.explain(aj.adamw(0.1, weight_decay=0.02, **options), {"w": shape(2, 2)}, updates=updates).rows
    assert row["rate"] == pytest.approx(rate, rel=2e-6)  # float32 factors
    assert row["decay"] == pytest.approx(decay, rel=4e-6)  # and their squares


@pytest.mark.parametrize("autorestart", [True, False])
@pytest.mark.parametrize("at", [0, 3, 9, 14])
def test_a_moment_is_what_the_update_does(autorestart, at):
    schedule = aj.cosine_warm_restarts(10, autorestart=autorestart)
    tx, params = aj.adamw(0.1, weight_decay=0.01, schedule=schedule), {"w": jnp.ones((2, 2))}
    (row,) = aj.explain(tx, params, at=at).rows
    state = aj.reschedule(tx.init(params), schedule, count=at)
    updates, _ = tx.update({"w": jnp.zeros((2, 2))}, state, params)
    assert row["decay"] == pytest.approx(-float(updates["w"][0, 0]), rel=1e-5, abs=1e-9)  # a float32 cosine


BASE = {"learning_rate": 1e-3, "weight_decay": aj.matrices(0.01)}
CHANGES = {
    "direction": (lambda: aj.nadamw(**BASE), "direction"),
    "amsgrad": (lambda: aj.adamw(**BASE, amsgrad=True), "direction"),
    "b2": (lambda: aj.adamw(**BASE, b2=0.99), "direction: b2"),
    "moment_dtype": (lambda: aj.adamw(**BASE, moment_dtype="packed"), "direction: moment_dtype"),
    "form": (lambda: aj.adamw(**BASE, decay="cautious"), "form of the decay"),
    "delta": (lambda: aj.adamw(**BASE, decay=aj.Huber(1.0)), "form of the decay"),
    "coupling": (lambda: aj.adamw(**BASE, coupling="constant"), "coupling"),
    "schedule": (lambda: aj.adamw(**BASE, schedule=aj.cosine_warm_restarts(100)), "schedule"),
    "a function as schedule": (lambda: aj.adamw(**BASE, schedule=aj.linear_warmup(5)), "schedule"),
    "the rate": (lambda: aj.adamw(**(BASE | {"learning_rate": 2e-3})), "learning_rate"),
    "held norms": (lambda: aj.adamw(1e-3, hold_norm="kernel"), "held"),
    "frozen": (lambda: aj.adamw(**BASE, freeze="bias"), "frozen"),
    "round_params": (lambda: aj.adamw(**BASE, round_params=True), "round_params"),
    "normalize_decay": (lambda: aj.adamw(**BASE, normalize_decay=4), "normalize_decay"),
    "multipliers of the decay": (
        lambda: aj.adamw(**BASE, lr_multipliers=1.0, multiplier_scales_decay=True),
        "multiplier_scales_decay",
    ),
    "the accumulation": (
        lambda: aj.decoupled(aj.scale_by_adam(), **BASE, accumulate="steps"),
        "accumulate",
    ),
    "a multiplier over time": (
        lambda: aj.adamw(**BASE, lr_multipliers={"bias": aj.linear_warmup(3)}),
        "multiplier in detail",
    ),
    "a threshold": (lambda: aj.adamw(**BASE, proximal_l1={"kernel": 0.01}), "proximal_l1"),
    "a wrapper": (lambda: aj.skip_spikes(optax.chain(optax.clip(1.0), aj.adamw(**BASE))), "around it"),
    "a wrapper's number": (lambda: optax.chain(aj.skip_spikes(aj.adamw(**BASE), sigma=3.0)), "skip_spikes: sigma"),
    "an average": (lambda: aj.with_average(aj.adamw(**BASE), aj.Ema(5)), "with_average: average"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_in_the_difference(name):
    make, what = CHANGES[name]
    dtype = jnp.bfloat16 if name == "round_params" else jnp.float32
    params = {"kernel": shape(2, 2, dtype=dtype), "bias": shape(2, dtype=dtype)}
    old, new = aj.explain(aj.adamw(**BASE), params), aj.explain(make(), params)
    assert what in [row["what"] for row in new.diff(old).rows]
    assert what in [row["what"] for row in old.diff(new).rows]
    assert what in str(new.diff(old))
    json.dumps(new.diff(old).to_dict())
    again = new.diff(aj.explain(make(), params))
    assert not again
    assert again.not_compared == []


def test_what_cannot_be_compared_is_named():
    def told():
        return aj.explain(aj.decoupled(optax.scale_by_lion(), 0.1), {"w": shape(2)})

    difference = told().diff(told())
    assert not difference
    assert str(difference) == "nothing changed\nnot compared: the arguments of the direction 'lion'"
    other = aj.explain(aj.decoupled(optax.scale_by_yogi(), 0.1), {"w": shape(2)})
    assert ("(all)", "direction", "lion", "yogi") in [tuple(row.values()) for row in other.diff(told()).rows]


HOLDERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 4),
    "MultiSteps as a transformation": lambda tx: optax.MultiSteps(tx, 4).gradient_transformation(),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(aj.adamw, static_args=("weight_decay", "schedule"))(
        **OPTIONS
    ),
    "masked": lambda tx: optax.masked(tx, {"embed": True, "block_0": True, "block_1": False, "norm": True}),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "nested": lambda tx: optax.chain(optax.clip(1.0), optax.apply_if_finite(aj.observe(tx), 3)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_explain_sees_through_what_holds_an_optimizer(name):
    tx = aj.adamw(**OPTIONS)
    # optax's inject_hyperparams asks for one dtype under strict promotion.
    params = jax.tree.map(lambda leaf: shape(*leaf.shape), small_model())
    plain = {row["path"]: row for row in aj.explain(tx, params).rows}
    holder = HOLDERS[name](tx)
    seen = aj.explain(holder, params)
    inside = [path for path in plain if name != "masked" or not path.startswith("block_1")]
    assert [row["path"] for row in seen.rows] == inside
    for row in seen.rows:
        for key in ("rate", "l2", "multiplier", "decay"):
            assert row[key] == pytest.approx(plain[row["path"]][key], rel=1e-6)  # injected numbers are float32
    assert seen.totals["outside"] == [path for path in plain if path not in inside]
    # The wrapper's own arrays like the parameters, such as accumulated gradients, count.
    state = jax.eval_shape(holder.init, params)
    assert seen.totals["state_bytes"] == sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: optax.chain(optax.clip(1.0), optax.adamw(0.1)),
            "got 'chain' with none: put adamw, nadamw, sgdw or decoupled",
        ),
        (
            lambda: optax.partition({"a": aj.sgdw(0.1), "b": aj.adamw(0.1)}, {"a": "a", "b": "b"}),
            "got 'partition' with 2 of them: explain each by itself",
        ),
        (lambda: optax.flatten(aj.adamw(0.1)), "an optimizer inside that trains"),
        (lambda: None, "`tx` must come from a preset, or hold an optimizer from one, got NoneType"),
    ],
)
def test_what_holds_no_optimizer_says_what_it_needs(make, message):
    with pytest.raises(TypeError, match=message):
        aj.explain(make(), {"a": shape(2), "b": shape(2)})


@pytest.mark.parametrize("schedule", [None, 1.0, aj.linear_warmup(3), aj.cosine_warm_restarts(5)])
@pytest.mark.parametrize("before", [None, 1.0, aj.linear_warmup(3), aj.cosine_warm_restarts(5)])
def test_a_state_of_another_schedule_is_told(before, schedule):
    params, tx = {"w": jnp.ones(2)}, aj.adamw(0.1, schedule=schedule)
    state = aj.adamw(0.1, schedule=before).init(params)
    restarts = [isinstance(each, type(aj.cosine_warm_restarts(5))) for each in (before, schedule)]
    if before is None or restarts[0] == restarts[1]:
        aj.explain(tx, params, state=state)
        return
    with pytest.warns(UserWarning, match=r"`state`: its position is that of .*: reschedule\(state, schedule, count"):
        aj.explain(tx, params, state=state)
    if schedule is not None:
        aj.explain(tx, params, state=aj.reschedule(state, schedule, count=2))


def test_explain_reads_a_keras_model_and_optimizer():
    import keras

    from adamw_jax.keras import AdamW, OptaxOptimizer

    def compiled(optimizer, **options):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(2)])
        model.compile(optimizer, loss="mse", **options)
        return model

    made = functools.partial(aj.adamw, weight_decay=aj.matrices(0.01), lr_multipliers={"body": 0.5})
    model = compiled(OptaxOptimizer(made, 0.125))
    for table in (
        aj.explain(model),
        aj.explain(model.optimizer),
        aj.explain(compiled(OptaxOptimizer(made(0.125)))),
        aj.explain(compiled(keras.optimizers.LossScaleOptimizer(OptaxOptimizer(made, 0.125)))),
    ):
        rates = {row["path"]: (row["rate"], row["l2"]) for row in table.rows}
        assert rates["body/kernel"] == (0.0625, 0.01)
        assert rates["body/bias"] == (0.0625, 0.0)
        assert len(rates) == 4
    classic = AdamW(0.125, weight_decays={"body/kernel": (0.0, 0.01)}, total_iterations=4, init_verbose=False)
    (row,) = (row for row in aj.explain(compiled(classic)).rows if row["l2"])
    assert row["path"].endswith("body/kernel")
    assert row["decay"] == pytest.approx(0.005)
    with pytest.raises(ValueError, match="is not built: give the trainable variables"):
        aj.explain(OptaxOptimizer(made, 0.1))
    with pytest.raises(TypeError, match="`tx` must come from a preset, or hold an optimizer from one, got Adam"):
        aj.explain(compiled("adam"))


def test_a_rate_schedule_that_inject_hyperparams_hides_from_a_decay_is_refused():
    params, schedule = {"w": shape(2, 2)}, optax.linear_schedule(1.0, 0.0, 4)
    make = optax.inject_hyperparams(aj.adamw)
    with pytest.raises(ValueError, match=r"`learning_rate` must be a number .* got a schedule, injected by optax"):
        aj.explain(make(schedule, weight_decay=0.1), params)
    aj.explain(make(schedule), params)
    aj.explain(make(0.1, weight_decay=0.1), params)
    aj.explain(
        optax.inject_hyperparams(aj.adamw, ("coupling",))(schedule, weight_decay=0.1, coupling="constant"), params
    )


def test_jax_scalars_are_known_numbers():
    number = jnp.float32
    options = {"weight_decay": {"w": number(1e-3)}, "lr_multipliers": {"w": number(0.5)}}
    tx = aj.adamw(number(0.1), **options, multiplier_scales_decay=True, normalize_decay=jnp.int32(100))
    (row,) = aj.explain(tx, {"w": jnp.ones((3, 2))}).rows
    assert row["decay"] == pytest.approx(1e-3 * 0.5 / 10)


def test_values_along_a_stack_count_as_their_largest():
    params = {"blocks": {"kernel": jnp.ones((3, 4, 4)), "bias": jnp.ones((3, 4))}, "head": jnp.ones((4, 2))}
    rates, decays = np.array([0.25, 0.5, 2.0]), np.array([0.01, 0.02, 0.03])

    def tx(rates, decays):
        options = {"lr_multipliers": {"blocks": rates}, "weight_decay": {"blocks/kernel": decays}}
        return aj.adamw(0.1, axes={"blocks": "sio"}, multiplier_scales_decay=True, **options)

    table = aj.explain(tx(rates, decays), params)
    rows = {row["path"]: row for row in table.rows}
    found = (rows["blocks/kernel"]["rate"], rows["blocks/kernel"]["l2"])
    assert found == pytest.approx((0.2, 0.03), rel=1e-7)  # arrays become float32
    assert rows["blocks/kernel"]["by_layer"] == ("multiplier", "l2")
    assert "multiplier; l2" in str(table)
    json.dumps(table.to_dict())
    # The largest are equal, the others are not.
    other = aj.explain(tx(np.array([0.5, 0.5, 2.0]), decays), params)
    assert ("blocks/kernel", "multiplier in detail") in [(row["path"], row["what"]) for row in other.diff(table).rows]
    with pytest.warns(UserWarning, match="`weight_decay` of 0.03 at 'blocks/kernel' halves a weight in 11 updates"):
        tx(rates, decays).init(params)


def test_functions_of_other_things_than_the_count_are_not_compared_but_named():
    def told(eps):
        return aj.explain(aj.adamw(0.1, eps=eps), {"w": shape(2)})

    difference = told(lambda path, leaf: 1e-8).diff(told(lambda path, leaf: 1e-6))
    assert not difference
    assert difference.not_compared == ["functions in direction: eps"]
    assert [row["what"] for row in told({"w": 1e-8}).diff(told({"w": 1e-6})).rows] == ["direction: eps"]


def test_a_multiplier_of_zero_has_a_column():
    params = {"a": shape(2), "b": shape(2)}
    assert "  r  " in str(aj.explain(aj.adamw(0.1, lr_multipliers={"a": 0}), params)).splitlines()[0]
    assert "  r  " in str(aj.explain(aj.adamw(0.1, freeze="a"), params)).splitlines()[0]
    assert "  r  " not in str(aj.explain(aj.adamw(0.1), params)).splitlines()[0]


def test_numbers_of_jax_are_explained_as_pythons():
    """As Keras's adapter gives decays: a rate and a factor that are Variables."""
    options = {"weight_decay": {"kernel": 1e-4}, "normalize_decay": 4, "lr_multipliers": {"kernel": 2.0}}
    arrays = jax.tree.map(jnp.float32, options)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tables = [aj.explain(aj.adamw(0.1, multiplier_scales_decay=True, **each), params) for each in (options, arrays)]
    for row, other in zip(tables[0].rows, tables[1].rows, strict=True):
        # Numbers are float64 in the one and float32 in the other.
        np.testing.assert_allclose(row["decay"], other["decay"], rtol=1e-6)
