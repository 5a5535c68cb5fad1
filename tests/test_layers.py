"""Rates by layer, freezing, warm-up, and the conventions of decays."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

import adamw_jax as aj

PARAMS = {
    "embed": jnp.ones((4, 3)),
    "block_0": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)},
    "block_1": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)},
    "head": jnp.ones((3, 2)),
}


def test_rates_fall_by_depth():
    tree = aj.layerwise_multipliers(PARAMS, 0.75, depth=r"block_(\d+)", first="embed")
    assert tree == {
        "embed": 0.75**3,
        "block_0": {"kernel": 0.75**2, "bias": 0.75**2},
        "block_1": {"kernel": 0.75, "bias": 0.75},
        "head": 1.0,
    }
    without_first = aj.layerwise_multipliers(PARAMS, 0.5, depth=r"block_(\d+)")
    assert without_first["embed"] == 1.0
    tx = aj.sgdw(0.1, momentum=0.0, lr_multipliers=tree)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    # One float32 product of two numbers.
    jax.tree.map(lambda u, r: np.testing.assert_allclose(u, -0.1 * r, rtol=3e-7), updates, tree)


def test_a_rate_by_depth_may_be_traced():
    @jax.jit
    def multipliers(rate):
        return aj.layerwise_multipliers(PARAMS, rate, depth=r"block_(\d+)")["block_0"]["bias"]

    assert float(multipliers(0.5)) == 0.25


def mlp(width, fan_in_axis):
    shapes = {"input": (5, width), "hidden": (width, width), "output": (width, 2)}
    kernels = {name: shape if fan_in_axis == -2 else shape[::-1] for name, shape in shapes.items()}
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32), "bias": jax.ShapeDtypeStruct((1,), jnp.float32)}
        for name, shape in kernels.items()
    }


@pytest.mark.parametrize("fan_in_axis", [-2, 1])
def test_multipliers_by_width_follow_the_fan_in(fan_in_axis):
    tree = aj.width_multipliers(mlp(64, fan_in_axis), mlp(16, fan_in_axis), fan_in_axis=fan_in_axis)
    assert {name: layer["kernel"] for name, layer in tree.items()} == {"input": 1.0, "hidden": 0.25, "output": 0.25}
    assert {layer["bias"] for layer in tree.values()} == {1.0}


def test_a_width_multiplier_keeps_the_size_of_what_a_step_changes():
    changes = []
    for width in (16, 256):
        kernel = {"hidden": jnp.zeros((width, width))}
        tx = aj.adamw(
            0.1, lr_multipliers=aj.width_multipliers(kernel, {"hidden": jnp.zeros((16, 16))}) if width > 16 else None
        )
        updates, _ = tx.update({"hidden": jnp.ones((width, width))}, tx.init(kernel), kernel)
        changes.append(float((jnp.ones(width) @ updates["hidden"])[0]))
    # Sums of up to 256 float32 numbers.
    assert changes[0] == pytest.approx(changes[1], rel=1e-5)


@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
def test_frozen_leaves_have_no_moments_and_do_not_move(preset):
    tx = preset(0.1, weight_decay=0.1, proximal_l1=0.1, freeze=["embed", "block_0"])
    free = preset(0.1, weight_decay=0.1, proximal_l1=0.1)
    state = tx.init(PARAMS)
    (moments, *_) = [node for _, node in optax.tree.get_all_with_path(state, "trace" if preset is aj.sgdw else "mu")]
    hole = optax.MaskedNode()
    assert (moments["embed"], moments["block_0"]) == (hole, {"kernel": hole, "bias": hole})
    assert moments["head"].shape == (3, 2)
    grads = jax.tree.map(jnp.ones_like, PARAMS) | {"embed": jnp.full((4, 3), jnp.nan)}
    updates, state = jax.jit(tx.update)(grads, state, PARAMS)
    expected, _ = jax.jit(free.update)(grads, free.init(PARAMS), PARAMS)
    for leaf in jax.tree.leaves({name: updates[name] for name in ("embed", "block_0")}):
        assert (leaf == 0).all()
    np.testing.assert_array_equal(updates["head"], expected["head"])
    np.testing.assert_array_equal(updates["block_1"]["bias"], expected["block_1"]["bias"])


@pytest.mark.parametrize("preset", [aj.adamw, aj.sgdw])
def test_the_state_has_one_structure_with_and_without_layer_options(preset):
    plain = jax.tree.structure(preset(0.1, weight_decay=0.1).init(PARAMS))
    for options in (
        {"proximal_l1": 0.1},
        {"lr_multipliers": {"embed": 0.5}, "multiplier_scales_decay": preset is aj.sgdw},
        {"decay": "cautious"},
    ):
        assert jax.tree.structure(preset(0.1, weight_decay=0.1, **options).init(PARAMS)) == plain, options


def test_thawing_keeps_what_fits():
    frozen, free = aj.sgdw(0.1, freeze="block_0"), aj.sgdw(0.1, freeze=lambda path, leaf: False)
    _, state = frozen.update(PARAMS, frozen.init(PARAMS), PARAMS)
    thawed = aj.carry_over(state, free.init(PARAMS))
    trace = optax.tree.get(thawed, "trace")
    np.testing.assert_array_equal(trace["block_0"]["kernel"], jnp.zeros((3, 3)))
    np.testing.assert_array_equal(trace["head"], optax.tree.get(state, "trace")["head"])
    assert int(aj.current(thawed).count) == 1
    free.update(PARAMS, thawed, PARAMS)


def test_freezing_saves_the_bytes_that_explain_counts():
    table = aj.explain(aj.adamw(0.1, freeze="embed"), PARAMS)
    rows = {row["path"]: row["state_bytes"] for row in table.rows}
    assert (rows["embed"], rows["head"]) == (0, 48)
    assert table.totals["frozen"] == 12


def test_warm_up_and_stable_and_decay():
    ramp = aj.linear_warmup(4)
    np.testing.assert_allclose(ramp(jnp.arange(6)), [0.2, 0.4, 0.6, 0.8, 1.0, 1.0], rtol=1e-6)
    assert float(aj.linear_warmup(0)(0)) == 1.0
    halves = {"linear": 0.5, "cosine": 0.5, "sqrt": 1 - np.sqrt(0.5)}
    for shape, half in halves.items():
        factors = aj.warmup_stable_decay(20, warmup=3, decay=8, shape=shape, eta_min=0.1)(jnp.arange(25))
        np.testing.assert_allclose(factors[:3], [0.25, 0.5, 0.75], rtol=1e-6)
        np.testing.assert_array_equal(factors[3:12], 1.0)
        np.testing.assert_allclose(factors[15], 0.1 + 0.9 * half, rtol=1e-6)
        np.testing.assert_allclose(factors[19:], 0.1, rtol=1e-6)
        assert (jnp.diff(factors[11:20]) < 0).all()


def test_a_preset_takes_the_schedule_and_a_traced_length():
    def last(decay):
        tx = aj.sgdw(1.0, momentum=0.0, schedule=aj.warmup_stable_decay(8, warmup=1, decay=decay))
        step = functools.partial(tx.update, jnp.ones(()))
        return jax.lax.scan(lambda state, _: step(state)[::-1], tx.init(jnp.ones(())), length=8)[1]

    np.testing.assert_allclose(
        jax.jit(last)(4), -np.array([0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]), rtol=1e-6, atol=1e-7
    )


def train(tx, gradients):
    params = jnp.asarray(START)
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


RNG = np.random.default_rng(1)
START = RNG.normal(size=6).astype(np.float32)
GRADIENTS = RNG.normal(size=(10, 6)).astype(np.float32)
RATE = 0.05
PEER_DECAY = 0.4


TORCH_RESULT = [0.498239696, 0.813610435, 0.294117242, -1.24487329, 0.541141152, 0.226082772]
"""What torch 2.13.0's AdamW([p], lr=RATE, weight_decay=PEER_DECAY) makes of START after these gradients."""


def train_keras():
    variable = keras.Variable(START)
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=PEER_DECAY, epsilon=1e-8)
    optimizer.build([variable])
    for g in GRADIENTS:
        optimizer.apply([jnp.asarray(g)])
    return np.asarray(variable.value)


PEERS = {
    "torch": lambda: np.array(TORCH_RESULT),
    "keras": train_keras,
    "optax": lambda: train(optax.adamw(RATE, weight_decay=PEER_DECAY), GRADIENTS),
}
OURS = {
    "torch": lambda decay: aj.adamw(RATE, weight_decay=decay, coupling="learning_rate"),
    "paper": lambda decay: aj.adamw(RATE, weight_decay=decay),
    "normalized": lambda decay: aj.adamw(RATE, weight_decay=decay, normalize_decay=len(GRADIENTS)),
    "timescale": lambda decay: aj.adamw(RATE, weight_decay=1 / (decay * 5), coupling="constant"),
}


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("to", OURS)
@pytest.mark.parametrize("peer", PEERS)
def test_both_sides_of_a_conversion_train_alike(peer, to):
    decay = aj.convert_decay(PEER_DECAY, peer, to, learning_rate=RATE, updates=len(GRADIENTS), updates_per_epoch=5)
    # Ten float32 updates; Keras adds epsilon to the root of the raw moment, which moves the first updates by 1e-7.
    np.testing.assert_allclose(train(OURS[to](decay), GRADIENTS), PEERS[peer](), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("from_", ["torch", "optax", "keras", "paper", "normalized", "timescale"])
@pytest.mark.parametrize("to", ["torch", "optax", "keras", "paper", "normalized", "timescale"])
def test_a_conversion_and_back_is_nothing(from_, to):
    options = {"learning_rate": 0.01, "updates": 1000, "updates_per_epoch": 50}
    there = aj.convert_decay(0.3, from_, to, **options)
    # A handful of float64 operations.
    assert aj.convert_decay(there, to, from_, **options) == pytest.approx(0.3, rel=1e-14)


def test_conversions_in_numbers():
    assert aj.convert_decay(0.1, "torch", "paper", learning_rate=1e-3) == pytest.approx(1e-4, rel=1e-15)
    assert aj.convert_decay(0.05, "normalized", "paper", updates=100) == pytest.approx(0.005, rel=1e-15)
    assert aj.convert_decay(0.0, "paper", "timescale") == float("inf")
    assert float(jax.jit(lambda d: aj.convert_decay(d, "paper", "timescale"))(0.25)) == 4.0


def forgotten(value, convention, learning_rate, updates, updates_per_epoch):
    """Return the sum of the shares that a run's updates take away."""
    return updates * aj.convert_decay(
        value,
        convention,
        "paper",
        learning_rate=learning_rate,
        updates=updates,
        updates_per_epoch=updates_per_epoch,
    )


@pytest.mark.parametrize("to", ["torch", "paper", "normalized", "timescale"])
@pytest.mark.parametrize("from_", ["torch", "paper", "normalized", "timescale"])
def test_with_another_batch_and_rate_a_weight_is_forgotten_after_as_many_examples(from_, to):
    before = {"learning_rate": 0.01, "updates": 1000, "updates_per_epoch": 50}
    after = {"learning_rate": 0.02, "updates": 250, "updates_per_epoch": 12.5}
    both = {name: (before[name], after[name]) for name in before}
    number = aj.convert_decay(0.3, from_, to, **both, batch=(32, 128))
    # A handful of float64 operations.
    assert forgotten(number, to, **after) == pytest.approx(forgotten(0.3, from_, **before), rel=1e-14)
    told = before | {"learning_rate": both["learning_rate"]}
    assert aj.convert_decay(0.3, from_, to, **told, batch=(1, 4)) == pytest.approx(number, rel=1e-14)


def test_conversions_for_another_run_in_numbers():
    assert aj.convert_decay(0.1, "torch", "torch", learning_rate=(1e-3, 2.5e-4)) == pytest.approx(0.4, rel=1e-15)
    assert aj.convert_decay(0.01, "paper", "paper", batch=(32, 64)) == pytest.approx(0.02, rel=1e-15)
    kept = aj.convert_decay(7.0, "timescale", "timescale", batch=(32, 64), updates_per_epoch=10)
    assert kept == pytest.approx(7.0, rel=1e-14)
    assert aj.convert_decay(0.3, "normalized", "normalized", updates=100, batch=(1, 4)) == pytest.approx(0.6, rel=1e-14)
    assert aj.convert_decay(0.3, "paper", "paper") == 0.3


ALIASES = [("torch", "pytorch"), ("torch", "optax"), ("torch", "keras"), ("normalized", "keras-adamw")]


@pytest.mark.parametrize(("name", "other"), ALIASES)
def test_conventions_with_two_names_are_one(name, other):
    options = {"learning_rate": 0.01, "updates": 100}
    for to in ("torch", "paper", "normalized", "timescale"):
        assert aj.convert_decay(0.3, name, to, **options) == aj.convert_decay(0.3, other, to, **options)
        assert aj.convert_decay(0.3, to, name, **options) == aj.convert_decay(0.3, to, other, **options)
    assert aj.convert_decay(0.3, name, other) == 0.3


def test_a_timescale_in_updates_is_one_of_its_own_run():
    assert aj.convert_decay(0.01, "paper", "timescale", batch=(32, 128)) == pytest.approx(25.0, rel=1e-14)
    assert aj.convert_decay(100.0, "timescale", "paper", batch=(32, 128)) == pytest.approx(0.04, rel=1e-14)
    assert aj.convert_decay(100.0, "timescale", "timescale", batch=(32, 128)) == pytest.approx(25.0, rel=1e-14)
    # In epochs it stays, whatever the batch.
    assert aj.convert_decay(0.01, "paper", "timescale", batch=(32, 128), updates_per_epoch=50) == pytest.approx(2.0)


def test_the_infinity_that_a_conversion_gives_is_read():
    options = {"learning_rate": 0.01, "updates": 100}
    for name in ("torch", "paper", "normalized"):
        assert aj.convert_decay(aj.convert_decay(0.0, name, "timescale", **options), "timescale", name, **options) == 0
    assert aj.convert_decay(float("inf"), "timescale", "timescale") == float("inf")
    assert float(jax.jit(lambda scale: aj.convert_decay(scale, "timescale", "paper"))(jnp.inf)) == 0
    assert float(jax.jit(lambda decay: aj.convert_decay(decay, "paper", "timescale"))(0)) == float("inf")


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bfloat16", "float16"])
def test_the_numbers_of_a_conversion_may_have_any_dtype(dtype):
    def convert(value, learning_rate, updates, before, after):
        return aj.convert_decay(
            value, "torch", "normalized", learning_rate=learning_rate, updates=updates, batch=(before, after)
        )

    numbers = (2, 3, 16, 4, 8)
    expected = convert(*numbers)
    assert type(expected) is float
    typed = [jnp.asarray(number, dtype) for number in numbers]
    assert convert(*typed) == expected
    with jax.numpy_dtype_promotion("strict"):
        traced = jax.jit(convert)(*typed)
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, expected, rtol=1e-6)  # float32


BAD = {
    "nearest": (lambda: aj.convert_decay(0.1, "pytroch", "paper"), "got 'pytroch': did you mean 'pytorch'?"),
    "nearest to": (lambda: aj.convert_decay(0.1, "paper", "keras_adamw"), "'keras_adamw': did you mean 'keras-adamw'?"),
    "unused updates": (
        lambda: aj.convert_decay(0.1, "paper", "paper", updates=(1000, 2000)),
        "`updates` must be one number to convert 'paper' to 'paper', for neither depends on it, got .* 'normalized'",
    ),
    "unused updates with a batch": (
        lambda: aj.convert_decay(0.1, "paper", "optax", learning_rate=0.1, updates=(1000, 2000), batch=(32, 64)),
        "`updates` must be one number to convert 'paper' to 'optax', for neither depends on it, got .* 'normalized'",
    ),
    "unused rate": (
        lambda: aj.convert_decay(0.1, "paper", "timescale", learning_rate=(0.1, 0.2)),
        "`learning_rate` must be one number to convert 'paper' to 'timescale', for neither depends on it",
    ),
    "from": (lambda: aj.convert_decay(0.1, "tf", "torch"), r"`from_` must be one of 'torch', .*, got 'tf'"),
    "to": (lambda: aj.convert_decay(0.1, "torch", "tf"), r"`to` must be one of 'torch', .*, got 'tf'"),
    "value": (lambda: aj.convert_decay(-1, "torch", "paper"), r"`value` must be a finite number in \[0, inf\), got -1"),
    "timescale": (lambda: aj.convert_decay(0, "timescale", "paper"), r"`value` must be .* in \(0, inf\), got 0"),
    "rate": (
        lambda: aj.convert_decay(0.1, "torch", "paper"),
        "`learning_rate` must be given to convert a decay of convention 'torch', got None",
    ),
    "updates": (lambda: aj.convert_decay(0.1, "paper", "normalized"), "`updates` must be given .* 'normalized'"),
    "rate of one run": (
        lambda: aj.convert_decay(0.1, "paper", "torch", learning_rate=(0.1, None)),
        "`learning_rate` must be given to convert a decay of convention 'torch', got None",
    ),
    "three rates": (
        lambda: aj.convert_decay(0.1, "torch", "paper", learning_rate=(0.1, 0.2, 0.3)),
        r"`learning_rate` must be a number or a pair \(before, after\), got \(0.1, 0.2, 0.3\)",
    ),
    "one batch": (
        lambda: aj.convert_decay(0.1, "paper", "paper", batch=128),
        r"`batch` must be a pair \(before, after\), got 128",
    ),
    "empty batch": (
        lambda: aj.convert_decay(0.1, "paper", "paper", batch=(32, 0)),
        r"`batch` must be a finite number in \(0, inf\), got 0",
    ),
    "depth without a group": (
        lambda: aj.layerwise_multipliers(PARAMS, depth=r"block_\d"),
        r"`depth` must have a group that reads the number, .*, got 'block_\\\\d'",
    ),
    "depth": (lambda: aj.layerwise_multipliers(PARAMS, depth=r"layer_(\d)"), "every pattern of `depth` must match"),
    "first": (
        lambda: aj.layerwise_multipliers(PARAMS, depth=r"block_(\d)", first="stem"),
        "every pattern of `first` must match a parameter path, got 'stem'",
    ),
    "rate by depth": (lambda: aj.layerwise_multipliers(PARAMS, 0.0), r"`rate` must be .* in \(0, 1\], got 0"),
    "base": (
        lambda: aj.width_multipliers(PARAMS, {"embed": jnp.ones((4, 3))}),
        "`base_params` must have the structure of `params`",
    ),
    "base axes": (
        lambda: aj.width_multipliers({"w": jnp.ones((2, 2))}, {"w": jnp.ones(2)}),
        "`base_params` must have leaves with as many axes as `params`, 2 at 'w', got 1",
    ),
    "empty leaves": (
        lambda: aj.width_multipliers({"w": jnp.ones((0, 2))}, {"w": jnp.ones((2, 2))}),
        r"`params` must not have empty leaves, got \(0, 2\) and \(2, 2\) at 'w'",
    ),
    "axis": (lambda: aj.width_multipliers(PARAMS, PARAMS, fan_in_axis=3), "`fan_in_axis` must be one of .*, got '3'"),
    "warm-up": (lambda: aj.linear_warmup(-1), "`warmup` must be an integer from 0 to 2147483647, got -1"),
    "ends": (
        lambda: aj.warmup_stable_decay(10, warmup=5, decay=5),
        "`updates` must be more than `warmup` and `decay` together, got 10, 5, 5",
    ),
    "shape": (lambda: aj.warmup_stable_decay(10, decay=5, shape="square"), "`shape` must be one of 'linear', .*"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_rates_fall_along_a_stack_as_they_do_by_depth():
    blocks = [{"kernel": jnp.full((4, 4), float(i + 1)), "bias": jnp.ones(4)} for i in range(3)]
    apart = {"embed": jnp.ones((5, 4)), "blocks": blocks, "head": jnp.ones((4, 2))}
    stacked = apart | {"blocks": jax.tree.map(lambda *layers: jnp.stack(layers), *blocks)}
    axes = {"blocks/": "sio"}
    by_depth = aj.layerwise_multipliers(apart, 0.5, depth=r"blocks/(\d+)", first="embed")
    along = aj.layerwise_multipliers(stacked, 0.5, first="embed", axes=axes)
    assert along["embed"] == by_depth["embed"] == 0.0625
    assert along["head"] == by_depth["head"] == 1.0
    assert along["blocks"]["kernel"].tolist() == [each["kernel"] for each in by_depth["blocks"]] == [0.125, 0.25, 0.5]
    loop, stack = aj.adamw(0.1, lr_multipliers=by_depth), aj.adamw(0.1, lr_multipliers=along, axes=axes)
    one, _ = loop.update(apart, loop.init(apart), apart)
    other, _ = jax.jit(stack.update)(stacked, stack.init(stacked), stacked)
    # One rounding: constants in the one, an array in the other.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7),
        jax.tree.map(lambda *layers: jnp.stack(layers), *one["blocks"]),
        other["blocks"],
    )


@pytest.mark.parametrize("name", ["adamw", "sgdw"])
def test_one_number_per_layer_of_a_stack_is_a_loop_over_the_layers(name):
    rng = np.random.default_rng(3)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 4, 2)), jnp.float32), "bias": jnp.ones((3, 2))}
    grads = jax.tree.map(lambda p: jnp.sin(3 * p), params)
    rates, decays, thresholds = np.array([0.5, 0.0, 2.0]), jnp.array([1, 2, 3]), np.array([0.01, 0.0, 0.02], np.float32)

    def train(params, grads, i=None):
        take = (lambda x: x) if i is None else (lambda x: float(x[i]))
        tx = getattr(aj, name)(
            0.1,
            weight_decay={"": (take(thresholds), take(decays / 100))},
            proximal_l1={"": take(thresholds)},
            lr_multipliers={"": take(rates)},
            multiplier_scales_decay=True,
            axes={"kernel": "sio"} if i is None else None,
        )
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    layers = [train(*jax.tree.map(lambda x, i=i: x[i], (params, grads)), i) for i in range(3)]
    # Products of three numbers in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        train(params, grads),
        jax.tree.map(lambda *each: jnp.stack(each), *layers),
    )
