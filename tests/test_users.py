"""Inputs that real users have, as laws of their kinds: aliasing, trees, frameworks, dtypes, schedules, names."""

import collections
import functools
import warnings

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

import adamw_jax as aj
from tests.catalogue import OPTIMIZERS
from tests.test_contract import make_grads, make_params

P = {"w": jnp.ones(4), "b": jnp.ones(2)}
G = {"w": jnp.full(4, 0.5), "b": jnp.full(2, -0.5)}


def buffers(tree):
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]


def step(tx, params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


# Aliasing.


@pytest.mark.parametrize("eager", [False, True], ids=["jit", "eager"])
def test_no_buffer_of_a_state_is_the_callers(eager):
    mine = {
        "rate": jnp.float32(0.01),
        "period": jnp.int32(10),
        "warmup": jnp.int32(0),
        "eta_max": jnp.float32(0.5),
        "decay": jnp.float32(0.1),
        "eta": jnp.float32(0.25),
        "t_cur": jnp.int32(3),
        "anchors": jax.tree.map(jnp.zeros_like, P),
    }
    schedule = aj.cosine_warm_restarts(mine["period"], eta_max=mine["eta_max"], warmup=mine["warmup"])
    tx = aj.adamw(mine["rate"], weight_decay=mine["decay"], schedule=schedule, decay=aj.Anchored(mine["anchors"]))
    state = tx.init(P)
    states = [state]
    for _ in range(2):
        _, state = (tx.update if eager else jax.jit(tx.update))(G, state, P)
        states.append(state)
    moved = aj.set_position(state, mine["t_cur"], period=mine["period"], cycle=mine["t_cur"], eta=mine["eta"])
    states += [moved, aj.restart(state, period=mine["period"]), aj.reschedule(state, schedule, count=mine["t_cur"])]
    given = jax.jit(lambda rate, s: aj.adamw(rate, schedule=schedule).update(G, s, P)[1])
    states.append(given(mine["rate"], aj.adamw(0.1, schedule=schedule).init(P)))
    for each in states:
        assert not set(buffers(each)) & set(buffers(mine) + buffers(P))
    donating = jax.jit(lambda s: tx.update(G, s, P)[1], donate_argnums=0)
    for each in (tx.init(P), moved):
        donating(each)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(mine))


# Trees of values.


class Callable(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __call__(self, x):
        return self.second(self.first(x))


def equinox_model():
    keys = jax.random.split(jax.random.key(0))
    return Callable(eqx.nn.Linear(3, 4, key=keys[0]), eqx.nn.Linear(4, 2, key=keys[1]))


def test_a_tree_that_happens_to_be_callable_is_a_tree_everywhere():
    model = equinox_model()
    values = jax.tree.map(lambda x: 1.0 if x.ndim == 1 else 0.5, model)
    flags = jax.tree.map(lambda x: x.ndim == 1, model)
    options = {
        "lr_multipliers": values,
        "weight_decay": values,
        "proximal_l1": values,
        "freeze": flags,
        "coupling": aj.Corrected(layers=flags),
    }
    tx = aj.adamw(1e-3, **options)
    state = tx.init(model)
    updates, _ = jax.jit(tx.update)(jax.tree.map(jnp.ones_like, model), state, model)
    np.testing.assert_array_equal(updates.first.bias, 0.0)
    assert jnp.all(updates.first.weight != 0)
    rows = {row["path"]: row for row in aj.explain(tx, model).rows}
    assert (rows["first/weight"]["multiplier"], rows["first/bias"]["multiplier"]) == (0.5, 0.0)
    assert rows["second/weight"]["l2"] == 0.5
    with pytest.raises(ValueError, match=r"`lr_multipliers` must be a tree with the structure of the parameters"):
        aj.adamw(1e-3, lr_multipliers=model.first).init(model)


def test_layerwise_multipliers_of_a_callable_module():
    model = {"layers": [equinox_model(), equinox_model()], "head": equinox_model()}
    tree = aj.layerwise_multipliers(model, 0.5, depth=r"layers/(\d+)/")
    tx = aj.sgdw(1.0, momentum=0.0, lr_multipliers=tree)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, model), tx.init(model), model)
    assert float(updates["layers"][0].first.bias[0]) == -0.25
    assert float(updates["head"].first.bias[0]) == -1.0


class Net(nnx.Module):
    def __init__(self, rngs):
        self.query = nnx.Linear(4, 4, rngs=rngs)
        self.value = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.value(jnp.tanh(self.query(x)))


def nnx_step(optimizer, model):
    grads = nnx.grad(lambda model: jnp.mean((model(jnp.ones((2, 4))) - 1.0) ** 2))(model)
    optimizer.update(model, grads)


def test_rules_made_from_boxed_trees_hold_for_pure_ones_and_the_other_way_round():
    model = Net(nnx.Rngs(0))
    boxed = nnx.state(model, nnx.Param)
    pure = nnx.to_pure_dict(boxed)
    for tree in (boxed, pure, FrozenDict(pure), collections.OrderedDict(reversed(pure.items()))):
        flags = jax.tree.map(lambda x: x.ndim == 1, tree)
        halves = jax.tree.map(lambda x: 0.5, tree)
        tx = aj.adamw(1e-2, lr_multipliers=halves, weight_decay=halves, freeze=flags, coupling=aj.Corrected(flags))
        for params in (boxed, pure, FrozenDict(pure)):
            updates, _ = tx.update(params, tx.init(params), params)
            assert [bool((u == 0).all()) for u in jax.tree.leaves(updates)] == [True, False, True, False]
            assert [row["multiplier"] for row in aj.explain(tx, params).rows] == [0.0, 0.5, 0.0, 0.5]
        trained = Net(nnx.Rngs(0))
        optimizer = nnx.Optimizer(trained, tx, wrt=nnx.Param)
        nnx_step(optimizer, trained)
        assert not jnp.array_equal(trained.query.kernel[...], model.query.kernel[...])
        assert jnp.array_equal(trained.query.bias[...], model.query.bias[...])


@pytest.mark.parametrize("move", ["restart", "set_position", "reschedule"])
@pytest.mark.usefixtures("lenient")
def test_a_position_in_boxes_moves_and_training_goes_on(move):
    schedule = aj.cosine_warm_restarts(6)
    model, plain = Net(nnx.Rngs(0)), Net(nnx.Rngs(0))
    tx = aj.adamw(1e-2, weight_decay={"kernel": 0.1}, schedule=schedule)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params, state = nnx.to_pure_dict(nnx.state(plain, nnx.Param)), None
    state = tx.init(params)
    moves = {
        "restart": aj.restart,
        "set_position": lambda s: aj.set_position(s, 2),
        "reschedule": lambda s: aj.reschedule(s, schedule, count=7),
    }

    def loss(params):
        x = jnp.ones((2, 4))
        h = jnp.tanh(x @ params["query"]["kernel"] + params["query"]["bias"])
        return jnp.mean((h @ params["value"]["kernel"] + params["value"]["bias"] - 1.0) ** 2)

    for k in range(4):
        if k == 2:
            optimizer.opt_state = moves[move](optimizer.opt_state)
            state = moves[move](state)
        nnx_step(optimizer, model)
        params, state = step(tx, params, state, jax.grad(loss)(params))
        assert int(aj.current(optimizer.opt_state).t_cur) == int(aj.current(state).t_cur)
    np.testing.assert_allclose(model.query.kernel[...], params["query"]["kernel"], rtol=1e-5)  # float32, two programs


def test_a_path_does_not_depend_on_siblings_and_known_boxes_leave_no_trace():
    model = Net(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    alone = {"block": {"value": nnx.to_pure_dict(state)["value"]["kernel"]}}
    assert aj.leaf_paths(alone) == ("block/value",)
    assert aj.leaf_paths(state) == ("query/bias", "query/kernel", "value/bias", "value/kernel")

    class Block(eqx.Module):
        query: jax.Array | None
        value: jax.Array | None

    assert aj.leaf_paths({"block": Block(jnp.ones(2), jnp.ones(2))}) == ("block/query", "block/value")
    assert aj.leaf_paths({"block": Block(None, jnp.ones(2))}) == ("block/value",)
    aj.adamw(0.1, weight_decay={"value": 0.1}).init({"block": Block(None, jnp.ones(2))})
    boxed = {"dense": {"kernel": nn.Partitioned(jnp.ones((2, 2)), names=("a", "b")), "value": jnp.ones(2)}}
    assert aj.leaf_paths(boxed) == ("dense/kernel", "dense/value")


@pytest.mark.parametrize(
    "stage",
    [
        lambda: aj.scale_by_multipliers({"w": 10.0}),
        lambda: aj.freeze_where("w"),
        lambda: aj.freeze_where(lr_multipliers={"w": 0.0}),
        lambda: aj.without_moments("w", optax.trace(0.9)),
        lambda: aj.add_decoupled_decay({"w": 0.1}),
        lambda: aj.soft_threshold({"w": 0.1}, factor=aj.DecayFactor("constant")),
        lambda: aj.adamw(0.1),
        lambda: aj.adamw(0.1, freeze="w", lr_multipliers={"b": 2.0}),
    ],
)
def test_updates_in_another_order_than_the_parameters_are_refused_by_all_stages(stage):
    tx, ordered = stage(), collections.OrderedDict(w=jnp.ones(4), b=jnp.ones(2))
    with pytest.raises(ValueError, match=r"`params` must have the structure of the updates.*first 'w' against 'b'"):
        tx.update(G, tx.init(ordered), ordered)


@pytest.mark.parametrize(
    "tx",
    [
        aj.scale_by_multipliers(1.0),
        aj.observe(aj.adamw(0.1)),
        aj.skip_spikes(aj.adamw(0.1)),
        aj.with_average(aj.adamw(0.1), aj.Ema(3)),
    ],
)
def test_a_model_that_is_not_filtered_is_taken_as_parameters(tx):
    model = eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_array)
    updates, _ = tx.update(arrays, tx.init(arrays), model)
    assert jax.tree.structure(updates) == jax.tree.structure(arrays)


def test_frozen_dicts_take_flags_as_plain_dicts():
    params = FrozenDict({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
    tx = aj.adamw(0.1, freeze={"dense": {"kernel": True, "bias": False}})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["dense"]["kernel"], 0.0)
    assert jnp.all(updates["dense"]["bias"] != 0)


# Schedules and positions.


def test_a_rescheduled_state_goes_on_as_one_that_had_the_schedule_all_along():
    old, new = aj.linear_warmup(2), aj.cosine_warm_restarts(4, t_mult=2)
    tx = aj.adamw(0.1, schedule=new)
    state, straight = aj.adamw(0.1, schedule=old).init(P), tx.init(P)
    for _ in range(6):
        _, state = jax.jit(aj.adamw(0.1, schedule=old).update)(G, state, P)
        _, straight = jax.jit(tx.update)(G, straight, P)
    state = aj.reschedule(state, new, count=6)
    for _ in range(8):
        a, state = jax.jit(tx.update)(G, state, P)
        b, straight = jax.jit(tx.update)(G, straight, P)
        np.testing.assert_array_equal(a["w"], b["w"])
    assert tuple(map(float, aj.current(state))) == tuple(map(float, aj.current(straight)))
    longer = aj.reschedule(aj.adamw(0.1, schedule=aj.cosine_warm_restarts(4)).init(P), aj.cosine_warm_restarts(8))
    assert int(aj.current(longer).period) == 8
    plain = aj.reschedule(state, optax.linear_schedule(1.0, 0.0, 10), count=5)
    assert (float(aj.current(plain).eta), int(aj.current(plain).t_cur)) == (0.5, 5)
    with pytest.raises(ValueError, match="`state` must contain a ScheduleState"):
        aj.reschedule(aj.adamw(0.1).init(P), new)
    with pytest.raises(ValueError, match="`count` must be an integer from 0"):
        aj.reschedule(state, new, count=-1)
    with pytest.raises(TypeError, match="`schedule` must be a number"):
        aj.reschedule(state, "cosine")


def test_a_position_beyond_the_cycle_is_refused():
    state = aj.adamw(0.1, schedule=aj.cosine_warm_restarts(4)).init(P)
    with pytest.raises(ValueError, match=r"`t_cur` must be below the period of the cycle, 4, got 10: .* reschedule"):
        aj.set_position(state, 10)
    with pytest.raises(ValueError, match=r"`t_cur` must be below the period of the cycle, 5, got 5"):
        aj.set_position(state, 5, period=5)
    assert int(aj.current(aj.set_position(state, 10, period=11)).t_cur) == 10


@pytest.mark.parametrize("move", [aj.restart, lambda s: aj.set_position(s, 1), lambda s: aj.reschedule(s, 0.5)])
def test_an_injected_schedule_cannot_be_moved_and_says_so(move):
    tx = optax.inject_hyperparams(aj.adamw)(1e-3, schedule=aj.cosine_warm_restarts(10))
    with pytest.raises(ValueError, match='static_args="schedule"'):
        move(tx.init(P))
    static = optax.inject_hyperparams(aj.adamw, static_args="schedule")(1e-3, schedule=aj.cosine_warm_restarts(10))
    move(static.init(P))


def test_counts_are_exact_up_to_the_last():
    end = aj.warmup_stable_decay(200_000_000, decay=100)
    counts = jnp.arange(200_000_000 - 101, 200_000_000, dtype=jnp.int32)
    np.testing.assert_allclose(end(counts), np.linspace(1.0, 0.0, 101), atol=1e-7)  # float32
    assert float(end(199_999_999)) == 0.0
    rise = aj.linear_warmup(2**31 - 2)
    assert float(rise(2**31 - 3)) <= 1.0
    assert float(aj.linear_warmup(100_000_001)(100_000_001)) == 1.0
    late = aj.warmup_stable_decay(2**31 - 1, warmup=10, decay=7, shape="cosine", eta_min=0.25)
    assert float(late(2**31 - 2)) == 0.25
    assert float(late(2**31 - 9)) == 1.0


# Dtypes.


def test_a_small_decay_reaches_wide_parameters_through_narrow_gradients():
    for preset in (aj.adamw, aj.nadamw):

        def end(tx):
            def body(carry, _):
                return step(tx, *carry, jnp.ones(1, jnp.bfloat16)), None

            theta = jnp.full(1, 2.0)
            return float(jax.jit(lambda: jax.lax.scan(body, (theta, tx.init(theta)), length=400)[0][0])()[0])

        decayed, plain = end(preset(1e-3, weight_decay=1e-3, coupling="learning_rate")), end(preset(1e-3))
        # 400 decays of 1e-6 of a weight between 2 and 1.6, in float32 steps of 1.2e-7.
        assert 6e-4 < plain - decayed < 8.5e-4


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("lenient")
def test_updates_are_as_wide_as_the_wider_of_gradient_and_parameter(name):
    tx = OPTIMIZERS[name]()
    for of_g, of_p in (
        ("bfloat16", "float32"),
        ("float32", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
    ):
        params = make_params(of_p)
        grads = optax.tree.cast(make_grads(params, 0), of_g)
        state = tx.init(params)
        updates, new = jax.eval_shape(tx.update, grads, state, params)
        widest = max(of_g, of_p, key=lambda name: jnp.dtype(name).itemsize)
        assert {u.dtype.name for u in jax.tree.leaves(updates)} == {widest}
        assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
        around = {
            "MultiSteps": optax.MultiSteps(tx, 2),
            "masked": optax.masked(tx, True),
            "finite": optax.apply_if_finite(tx, 3),
        }
        if of_g != widest:  # optax's apply_if_finite wants updates of the gradients' dtype, of its own optimizers, too
            del around["finite"]
        for wrapped in around.values():
            jax.eval_shape(wrapped.update, grads, wrapped.init(params), params)

        def body(carry, _, tx=tx, grads=grads):
            params, state = carry
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        jax.eval_shape(lambda p, s: jax.lax.scan(body, (p, s), length=2), params, state)


def test_frozen_leaves_may_have_any_dtype():
    params = {
        "base": {
            "quantized": jnp.ones(3, jnp.int8),
            "flag": jnp.array(True),
            "count": jnp.int32(3),
            "key": jax.random.key(0),
        },
        "head": jnp.ones(2),
    }
    zero = functools.partial(np.zeros, dtype=jax.dtypes.float0)
    grads = {
        "base": {"quantized": zero(3), "flag": zero(()), "count": zero(()), "key": zero(())},
        "head": jnp.ones(2),
    }
    for preset, options in ((aj.adamw, {"decay": "anchored"}), (aj.nadamw, {"proximal_l1": 0.1}), (aj.sgdw, {})):
        tx = preset(0.1, weight_decay=0.1, freeze="base", lr_multipliers={"head": 0.5}, **options)
        state = tx.init(params)
        for update in (tx.update, jax.jit(tx.update)):
            updates, new = update(grads, state, params)
            assert jnp.all(updates["head"] != 0)
            assert jax.tree.structure(new) == jax.tree.structure(state)
        trained = optax.apply_updates(
            {**params, "base": {k: v for k, v in params["base"].items() if k != "key"}},
            {**updates, "base": {k: v for k, v in updates["base"].items() if k != "key"}},
        )
        assert trained["base"]["quantized"].dtype == jnp.int8
        np.testing.assert_array_equal(trained["base"]["quantized"], 1)
        rows = {row["path"]: row for row in aj.explain(tx, params).rows}
        assert rows["base/quantized"]["frozen"]
    with pytest.raises(TypeError, match="`params` must have real floating leaves, got"):
        aj.adamw(0.1).init(params)


@pytest.mark.parametrize("dtype", ["bfloat16", "packed", "packed8"])
def test_a_derivative_through_narrow_moments_is_refused_and_through_wide_ones_is_right(dtype):
    def last(scale, moment_dtype):
        tx = aj.adamw(0.1, moment_dtype=moment_dtype)
        params, state = jnp.ones(2), tx.init(jnp.ones(2))
        for _ in range(2):
            params, state = step(tx, params, state, scale * params**2)
        return params.sum()

    with pytest.raises(ValueError, match="`moment_dtype` must be None, float32 or float64 to take derivatives"):
        jax.grad(last)(1.0, dtype)
    h = 1e-2
    numeric = (last(1.0 + h, None) - last(1.0 - h, None)) / (2 * h)
    # Adam hardly depends on the scale: both are near zero, and differences are in float32.
    np.testing.assert_allclose(jax.grad(last)(1.0, None), numeric, atol=1e-4)


def test_a_derivative_through_a_narrow_state_names_what_made_it_narrow():
    def last(scale):
        tx = aj.decoupled(aj.with_narrow_state(optax.scale_by_lion()), 0.1)
        params, state = jnp.ones(2), tx.init(jnp.ones(2))
        return step(tx, params, state, scale * params**2)[0].sum()

    with pytest.raises(ValueError, match="`direction` must keep its state wide, without `with_narrow_state`, to take"):
        jax.grad(last)(1.0)


# Names and shapes.


def linen_attention(heads, head_dim, width):
    module = nn.MultiHeadDotProductAttention(heads, qkv_features=heads * head_dim, out_features=width)
    return jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 3, width)))["params"]


def nnx_attention(heads, head_dim, width):
    def make():
        return nnx.MultiHeadAttention(heads, width, heads * head_dim, rngs=nnx.Rngs(0), decode=False)

    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(make), nnx.Param))


def keras_attention(heads, head_dim, width):
    import keras

    layer = keras.layers.MultiHeadAttention(heads, head_dim)
    layer.build((None, 3, width), (None, 3, width))
    return {v.path.split("/", 1)[1]: jax.ShapeDtypeStruct(tuple(v.shape), "float32") for v in layer.trainable_variables}


def stacked(make):
    return lambda *sizes: jax.tree.map(lambda x: jax.ShapeDtypeStruct((12, *x.shape), x.dtype), make(*sizes))


ATTENTIONS = {
    "linen": linen_attention,
    "nnx": nnx_attention,
    "Keras": keras_attention,
    "linen, stacked": stacked(linen_attention),
}


@pytest.mark.parametrize("wide", [(4, 64, 256), (16, 16, 256)], ids=["longer heads", "more heads"])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_kernel_of_attention_has_its_fan_in_and_every_bias_none(kind, wide):
    base, params = ATTENTIONS[kind](4, 16, 64), ATTENTIONS[kind](*wide)
    found = dict(zip(aj.leaf_paths(params), jax.tree.leaves(aj.width_multipliers(params, base)), strict=True))
    assert len(found) == 8
    assert found == {path: 1.0 if path.endswith("bias") else 0.25 for path in found}
    flags = dict(zip(aj.leaf_paths(params), aj.Corrected().flags(params), strict=True))
    assert flags == {path: path.endswith("kernel") for path in flags}


def test_equinox_attention_and_the_usual_layers_have_their_fan_in():
    def attention(width):
        return eqx.filter(eqx.nn.MultiheadAttention(4, width, use_key_bias=True, key=jax.random.key(0)), eqx.is_array)

    found = aj.width_multipliers(attention(256), attention(64), fan_in_axis=1)
    assert set(jax.tree.leaves(found)) == {0.25, 1.0}
    assert (float(found.query_proj.weight), float(found.key_proj.bias)) == (0.25, 1.0)

    def leaf(*shape):
        return jnp.ones(shape)

    wide = {"embed": leaf(50, 64), "conv": leaf(3, 3, 64, 64), "stem": leaf(3, 3, 3, 64), "last": leaf(3, 3, 64, 10),
            "head": leaf(64, 10), "norms": {"scale": leaf(12, 64)}}  # fmt: skip
    base = {"embed": leaf(50, 16), "conv": leaf(3, 3, 16, 16), "stem": leaf(3, 3, 3, 16), "last": leaf(3, 3, 16, 10),
            "head": leaf(16, 10), "norms": {"scale": leaf(12, 16)}}  # fmt: skip
    assert aj.width_multipliers(wide, base) == {
        "embed": 1.0, "conv": 0.25, "stem": 1.0, "last": 0.25, "head": 0.25, "norms": {"scale": 1.0},
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"`width_multipliers` must know which axes of 'w' .* got shape \(8, 64, 8\)"):
        aj.width_multipliers({"w": leaf(8, 64, 8)}, {"w": leaf(8, 16, 8)})


def test_matrices_are_what_has_two_axes_and_no_name_of_a_vector():
    shapes = {
        "embed": jnp.ones((8, 4)),
        "block": {
            "query": {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((2, 2))},
            "LayerNorm_0": {"scale": jnp.ones((12, 8)), "bias": jnp.ones((12, 8))},
            "dense": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
        },
        "norm": {"weight": jnp.ones((3, 4))},
    }
    rule = aj.matrices((0.1, 0.2), but="embed")
    rows = {row["path"]: row for row in aj.explain(aj.adamw, shapes, learning_rate=1e-3, weight_decay=rule).rows}
    decayed = {path for path, row in rows.items() if row["l2"]}
    assert decayed == {"block/query/kernel", "block/dense/kernel"}
    assert rows["block/dense/kernel"]["l1"] == 0.1
    assert not any("is decayed" in flag for row in rows.values() for flag in row["flags"])
    everything = aj.explain(aj.adamw, shapes, learning_rate=1e-3, weight_decay=0.1).rows
    flagged = {row["path"] for row in everything if any("is decayed" in flag for flag in row["flags"])}
    assert flagged == {row["path"] for row in everything} - {"embed", "block/query/kernel", "block/dense/kernel"}
    with pytest.raises(ValueError, match=r"every pattern of `weight_decay: matrices\(but=\)` must match"):
        aj.adamw(0.1, weight_decay=aj.matrices(0.1, but="embd")).init(shapes)
    with pytest.raises(TypeError, match="`value` must be a number, a schedule or a pair"):
        aj.matrices("0.1")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("layer_1", "layer_10/kernel"),
        ("layers.1.", "layers/10/kernel"),
        ("layer_1.*kernel", "layer_10/kernel"),
        ("block1", "block12"),
        ("1/kernel", "layer_11/kernel"),
    ],
)
def test_a_number_in_a_pattern_is_a_whole_number(pattern, path):
    params = {name: jnp.ones((2, 2)) for name in {path, "layer_1/kernel", "layers/1/kernel", "block1"}}
    for option in ("weight_decay", "lr_multipliers", "freeze"):
        value = [pattern] if option == "freeze" else {pattern: 0.5}
        table = aj.explain(aj.adamw, params, learning_rate=0.1, **{option: value})
        rows = {row["path"]: (row["multiplier"], row["l2"]) for row in table.rows}
        assert rows[path] == (1.0, 0.0)
        assert len(set(rows.values())) == 2


@pytest.mark.parametrize("pattern", ["layer_1/", r"layer_\d", "layer_[12]", "kernel", "layer_(1|10)/", "conv2d_1/"])
def test_a_pattern_that_matches_what_it_reads_is_not_told(pattern):
    params = {f"{name}/kernel": jnp.ones((2, 2)) for name in ("layer_1", "layer_10", "layer_2", "conv2d_1")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aj.explain(aj.adamw, params, learning_rate=0.1, weight_decay={pattern: 0.5})


def test_layers_of_two_kinds_with_one_number_are_told():
    names = ("Conv_0", "Conv_1", "Conv_2", "Dense_0", "Dense_1")
    params = {name: {"kernel": jnp.ones((2, 2))} for name in names}
    with pytest.warns(UserWarning, match="reads the number 0 for layers of different names.*Conv_, Dense_"):
        aj.layerwise_multipliers({**params, "head": jnp.ones(2)})
    with pytest.warns(UserWarning, match="no leaf is at the top"):
        aj.layerwise_multipliers({"params": {"block_0": jnp.ones(2), "block_1": jnp.ones(2)}}, depth=r"block_(\d+)")


# Small ones.


def test_empty_masks_freeze_nothing_and_an_empty_pattern_is_an_error():
    for empty in ([], (), {}, None):
        tx = aj.adamw(0.1, freeze=empty)
        updates, _ = tx.update(G, tx.init(P), P)
        assert all(bool((u != 0).all()) for u in jax.tree.leaves(updates))
    for bad in ("", ["w", ""]):
        with pytest.raises(ValueError, match="`freeze` must not have an empty pattern"):
            aj.adamw(0.1, freeze=bad).init(P)


def test_numbers_are_checked_in_the_precision_they_are_used_in_and_where_they_are_written():
    with pytest.raises(ValueError, match=r"`b2` must be .* in \[0, 1\), got 0.99999999, which is 1 in float32"):
        aj.adamw(0.1, b2=1 - 1e-8)
    with pytest.raises(ValueError, match=r"`eps` must be .* in \(0, inf\), got 1e-50, which is 0 in float32"):
        aj.adamw(0.1, eps=1e-50)
    with pytest.raises(ValueError, match=r"`learning_rate` must be .*, got 1e\+39, which is inf in float32"):
        aj.adamw(1e39)
    for bad in (-0.1, (0.1, -0.1), {"w": -0.1}, {"w": (0.0, -0.1)}):
        with pytest.raises(ValueError, match=r"weight_decay.* must be a finite number in .*, got -0.1"):
            aj.adamw(0.1, weight_decay=bad)
    for option in ("lr_multipliers", "proximal_l1"):
        with pytest.raises(ValueError, match=f"`{option}` must be a finite number"):
            aj.adamw(0.1, **{option: -1.0})
    with jax.enable_x64(True):
        aj.adamw(0.1, b2=1 - 1e-8)


def test_a_replaced_optimizer_keeps_its_plan_and_a_users_eta_stays_the_users():
    tx = aj.adamw(0.1, weight_decay={"w": 0.1})
    assert str(aj.explain(tx._replace(update=tx.update), P)) == str(aj.explain(tx, P))
    plain, _ = tx.update(G, tx.init(P), P)
    for extra in ({"eta": 100.0}, {"alpha": 7.0}, {"period": 3}, {"count": 9}):
        given, _ = tx.update(G, tx.init(P), P, **extra)
        np.testing.assert_array_equal(plain["w"], given["w"])


def test_a_python_float_is_a_parameter_for_shardings():
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    placed = aj.state_shardings(optax.adam(0.1), {"w": jnp.ones((64, 64)), "scale": 1.0}, mesh=mesh, mode="zero1")
    assert placed[0].mu["scale"].spec == jax.sharding.PartitionSpec()
    assert aj.fsdp_shardings({"scale": 1.0}, mesh=mesh)["scale"].spec == jax.sharding.PartitionSpec()


def test_integers_that_int32_does_not_hold_are_refused_by_sweep():
    for bad in (2**40 + 7, 3_000_000_000, -(2**31) - 1):
        with pytest.raises(ValueError, match=rf"`grid` must have integers that int32 holds.*seed={bad}"):
            aj.sweep(lambda seed: seed, {"seed": [7, bad]})
    assert aj.sweep(lambda seed: seed, {"seed": [7, 2**31 - 1]}).values.tolist() == [7, 2**31 - 1]


class Compilations:
    """Counts what XLA compiles."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._note)
        return self

    def _note(self, event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            self.names.append(kwargs.get("fun_name"))

    def __exit__(self, *exception):
        jax.monitoring.clear_event_listeners()


@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
def test_eager_updates_compile_nothing_for_numbers_that_only_change_their_value(preset):
    params = make_params()

    def update(k, state):
        x = 0.01 + 0.003 * k
        tx = preset(
            x,
            weight_decay={"kernel": (x, 2 * x)},
            lr_multipliers={"head": x},
            proximal_l1=x / 10,
            normalize_decay=10 + k,
            schedule=aj.cosine_warm_restarts(20 + k, eta_min=x, eta_max=0.9 + x),
            **({"momentum": 0.5 + x} if preset is aj.sgdw else {"b1": 0.5 + x, "eps": x * 1e-6}),
        )
        return tx.update(make_grads(params, 0), state, params)[1]

    state = preset(0.1, schedule=aj.cosine_warm_restarts(20)).init(params)
    for k in range(2):
        state = update(k, state)
    with Compilations() as seen:
        for k in range(2, 6):
            state = update(k, state)
    assert seen.names == []
