"""What a user does with a preset: hyperparameters that move, other frameworks' parameters, narrow dtypes."""

import inspect

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamw_jax as aj
from adamw_jax._optimizer.options import Options
from tests.running import quick_jit

PRESETS = {"adamw": aj.adamw, "nadamw": aj.nadamw, "sgdw": aj.sgdw}
RESTARTS = aj.cosine_warm_restarts(6, eta_min=0.1)
PARAMS = {"body": {"kernel": jnp.linspace(-1, 1, 6).reshape(2, 3)}, "head": jnp.array([0.5, -0.5])}
OPTIONS = {"weight_decay": {"kernel": (0.01, 0.05)}, "lr_multipliers": {"head": 0.5}}


def grads(params, k):
    return jax.tree.map(lambda p: jnp.cos(3.0 * p + k).astype(p.dtype), params)


def trajectory(tx, params=PARAMS, steps=12):
    update, state = quick_jit(tx.update), tx.init(params)
    for k in range(steps):
        updates, state = update(grads(params, k), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", PRESETS)
def test_injected_hyperparameters_give_the_same_trajectory(name):
    preset = PRESETS[name]
    plain = trajectory(preset(0.01, **OPTIONS, schedule=RESTARTS, normalize_decay=12))
    for static in ((), ("schedule",)):
        injected = optax.inject_hyperparams(preset, static_args=static)
        tx = injected(0.01, **OPTIONS, schedule=RESTARTS, normalize_decay=12)
        chex.assert_trees_all_close(trajectory(tx), plain, rtol=1e-6)  # float32, fused otherwise


@pytest.mark.parametrize("name", PRESETS)
def test_the_states_structure_knows_neither_rules_nor_coupling(name):
    frozen = {"lr_multipliers": {"head": 0.0}, "proximal_l1": 0.01, "multiplier_scales_decay": True}
    variants = [{}, OPTIONS, frozen, {"coupling": "learning_rate"}, {"coupling": "constant", "weight_decay": 0.1}]
    for schedule in (None, RESTARTS):
        states = [PRESETS[name](0.01, schedule=schedule, **options).init(PARAMS) for options in variants]
        assert len({jax.tree.structure(state) for state in states}) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_an_injected_learning_rate_can_be_set(name):
    tx = optax.inject_hyperparams(PRESETS[name])(0.01)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = tx.update(grads(PARAMS, 0), state, PARAMS)
    assert not any(u.any() for u in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", PRESETS)
def test_traced_numbers_neither_recompile_nor_change_the_trajectory(name):
    traces = []

    @quick_jit
    def step(rate, decay, g, state, params):
        traces.append(1)
        tx = PRESETS[name](rate, weight_decay=decay, schedule=RESTARTS)
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for rate, decay in [(0.01, 0.1), (0.02, 0.0), (0.5, 0.3)]:
        tx = PRESETS[name](rate, weight_decay=decay, schedule=RESTARTS)
        params, state = PARAMS, tx.init(PARAMS)
        for k in range(12):
            params, state = step(rate, decay, grads(params, k), state, params)
        chex.assert_trees_all_close(params, trajectory(tx), rtol=1e-5, atol=1e-7)  # float32, fused otherwise
    assert len(traces) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_vmap_over_four_hyperparameters_is_the_loop(name):
    fourth = "momentum" if name == "sgdw" else "b1"

    def train(rate, decay, multiplier, momentum):
        tx = PRESETS[name](
            rate, weight_decay=decay, lr_multipliers={"head": multiplier}, schedule=RESTARTS, **{fourth: momentum}
        )
        return trajectory(tx)

    grid = jnp.array([[0.01, 0.1, 1.0, 0.9], [0.02, 0.0, 0.0, 0.5], [0.0, 0.2, 2.0, 0.0]])
    together = jax.vmap(train)(*grid.T)
    for i, row in enumerate(grid.tolist()):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        chex.assert_trees_all_close(alone, train(*row), rtol=1e-5, atol=1e-7)  # float32, fused otherwise


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_multiplier_zero_freezes_even_where_decay_and_nan_would_move(name, traced):
    def update(zero):
        tx = PRESETS[name](0.1, weight_decay=0.05, lr_multipliers={"head": zero})
        bad = {**grads(PARAMS, 0), "head": jnp.array([jnp.nan, 1.0])}
        return tx.update(bad, tx.init(PARAMS), PARAMS)[0]

    updates = jax.jit(update)(0.0) if traced else update(0.0)
    assert (updates["head"] == 0).all()
    assert (updates["body"]["kernel"] != 0).all()


@pytest.mark.parametrize(
    ("coupling", "scales", "factor"),
    [
        ("schedule", False, 0.5),
        ("learning_rate", False, 0.5 * 0.1),
        ("constant", False, 1.0),
        ("schedule", True, 0.5 * 3),
        ("learning_rate", True, 0.5 * 0.1 * 3),
        ("constant", True, 3.0),
    ],
)
@pytest.mark.parametrize("name", PRESETS)
def test_coupling_says_what_multiplies_the_decay(name, coupling, scales, factor):
    tx = PRESETS[name](
        0.1,
        weight_decay=(0.02, 0.3),
        coupling=coupling,
        lr_multipliers=3.0,
        multiplier_scales_decay=scales,
        schedule=0.5,
        normalize_decay=4,
    )
    p = jnp.array([2.0, -1.0, 0.0])
    updates, _ = tx.update(jnp.zeros(3), tx.init(p), p)
    expected = -factor / 2 * (0.02 * np.sign(p) + 0.3 * p)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)  # float32 products


def test_a_learning_rate_schedule_drives_the_coupled_decay():
    rate = optax.linear_schedule(0.1, 0.0, 2)
    for preset in PRESETS.values():
        tx = preset(rate, weight_decay=0.5, coupling="learning_rate")
        p = jnp.array([1.0])
        state = tx.init(p)
        for expected in (0.05, 0.025, 0.0):
            updates, state = tx.update(jnp.zeros(1), state, p)
            np.testing.assert_allclose(updates, -expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", PRESETS)
def test_narrow_parameters_are_updated_as_wide_ones_rounded_once(name, dtype):
    narrow = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), narrow)
    tx = PRESETS[name](0.01, **OPTIONS, schedule=RESTARTS)
    narrow_state, wide_state = tx.init(narrow), tx.init(wide)
    chex.assert_trees_all_equal_shapes_and_dtypes(narrow_state, wide_state)
    for k in range(3):
        g = jax.tree.map(lambda x: x.astype(dtype), grads(wide, k))
        narrow_updates, narrow_state = tx.update(g, narrow_state, narrow)
        wide_g = jax.tree.map(lambda x: x.astype(jnp.float32), g)
        wide_updates, wide_state = tx.update(wide_g, wide_state, wide)
        rounded = jax.tree.map(lambda u: u.astype(dtype), wide_updates)
        chex.assert_trees_all_equal(narrow_updates, rounded)
    chex.assert_trees_all_equal(narrow_state, wide_state)


def test_moment_dtype():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
    assert {m.dtype.name for m in jax.tree.leaves(optax.tree.get(aj.adamw(0.1).init(params), "mu"))} == {"float32"}
    with jax.enable_x64(True):
        params["c"] = jnp.ones(2, jnp.float64)
        for dtype, expected in [(None, ["float32", "float32", "float64"]), ("float64", ["float64"] * 3)]:
            for preset, field in [(aj.adamw, "nu"), (aj.nadamw, "mu"), (aj.sgdw, "trace")]:
                state = preset(0.1, moment_dtype=dtype).init(params)
                assert [m.dtype.name for m in jax.tree.leaves(optax.tree.get(state, field))] == expected


@pytest.mark.parametrize("params", [jnp.ones(3), jnp.asarray(1.0), (jnp.ones(2), [jnp.ones(1)]), 1.5], ids=str)
@pytest.mark.parametrize("name", PRESETS)
def test_any_tree_of_parameters(name, params):
    tx = PRESETS[name](0.1, weight_decay=0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    new = optax.apply_updates(params, updates)
    assert jax.tree.structure(new) == jax.tree.structure(params)
    assert all(
        (a < b).all() for a, b in zip(jax.tree.leaves(new), map(jnp.asarray, jax.tree.leaves(params)), strict=True)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_flax_nnx_trains(name):
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    tx = PRESETS[name](0.05, weight_decay={"kernel": 1e-4}, lr_multipliers={"bias": 2.0}, schedule=RESTARTS)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jnp.asarray(np.random.RandomState(0).randn(32, 3), jnp.float32)
    y = x @ jnp.array([[1.0], [-2.0], [0.5]]) + 0.3

    @nnx.jit
    def step(model, optimizer):
        loss, g = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, g)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(100)]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("name", PRESETS)
def test_equinox_trains(name):
    model = eqx.nn.MLP(3, "scalar", 8, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    tx = PRESETS[name](0.05, weight_decay={r"layers/\d/weight": 1e-4}, schedule=RESTARTS)
    x = jnp.asarray(np.random.RandomState(0).randn(32, 3), jnp.float32)
    y = jnp.sin(x[:, 0])

    @jax.jit
    def step(params, state):
        def loss(p):
            return jnp.mean((jax.vmap(eqx.combine(p, static))(x) - y) ** 2)

        value, g = jax.value_and_grad(loss)(params)
        updates, state = tx.update(g, state, params)
        return eqx.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for _ in range(100):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.2 * losses[0]


def test_the_state_is_read_by_name():
    state = aj.adamw(0.1, schedule=RESTARTS).init(PARAMS)
    for name in ("mu", "nu"):
        chex.assert_trees_all_equal_shapes_and_dtypes(optax.tree.get(state, name), PARAMS)
    assert optax.tree.get(state, "learning_rate") == np.float32(0.1)
    assert optax.tree.get(state, "eta") == 1
    assert optax.tree.get(state, "t_cur") == 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_may_be_a_concrete_jax_scalar(name):
    def number(x):
        return jnp.asarray(x)

    def make(wrap):
        momenta = {"momentum": wrap(0.8)} if name == "sgdw" else {"b1": wrap(0.8), "b2": wrap(0.95), "eps": wrap(1e-6)}
        return PRESETS[name](
            wrap(0.01),
            weight_decay={"kernel": (wrap(0.01), wrap(0.1)), "head": wrap(0.0)},
            lr_multipliers={"head": wrap(0.0), "body": wrap(1.0)},
            normalize_decay=wrap(12.0),
            schedule=aj.cosine_warm_restarts(
                wrap(4), t_mult=wrap(1.5), eta_min=wrap(0.1), eta_max=wrap(0.5), eta_max_decay=wrap(0.9), warmup=wrap(2)
            ),
            **momenta,
        )

    chex.assert_trees_all_close(trajectory(make(number)), trajectory(make(lambda x: x)), rtol=1e-6)  # float32 bounds


@pytest.mark.parametrize("name", PRESETS)
def test_every_option_of_decoupled_is_in_a_presets_signature(name):
    documented = dict(inspect.signature(aj.decoupled).parameters)
    del documented["direction"], documented["learning_rate"], documented["accumulate"]
    parameters = inspect.signature(PRESETS[name]).parameters
    assert {key: parameters.get(key) for key in documented} == documented
    assert set(documented) == set(Options.__annotations__)
    assert not any(each.kind is each.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda **o: aj.adamw(0.1, **o), r"adamw\(\) has no argument `{}`: "),
        (lambda **o: aj.nadamw(0.1, **o), r"nadamw\(\) has no argument `{}`: "),
        (lambda **o: aj.sgdw(0.1, **o), r"sgdw\(\) has no argument `{}`: "),
        (lambda **o: aj.decoupled(aj.scale_by_adam(), 0.1, **o), r"decoupled\(\) has no argument `{}`: "),
    ],
)
@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("weight_decays", "did you mean 'weight_decay'"),
        ("frezze", "did you mean 'freeze'"),
        (
            "mask",
            r"`weight_decay` takes a rule, as in weight_decay=matrices\(0.1\).*{{\"bias\|scale\": 0.0, \"\": 0.1}}",
        ),
        ("lr", "use `learning_rate`"),
        ("zzz", "it has .*weight_decay"),
    ],
)
def test_a_misspelt_option_names_the_optimizer_and_the_remedy(make, message, wrong, remedy):
    with pytest.raises(TypeError, match=(message + remedy).format(wrong)):
        make(**{wrong: 0.1})


@pytest.mark.parametrize("name", PRESETS)
def test_a_multiplier_cannot_scale_the_decay_where_there_is_none(name):
    with pytest.raises(ValueError, match=r"`multiplier_scales_decay` must be False without `lr_multipliers`, got True"):
        PRESETS[name](0.1, multiplier_scales_decay=True)
