"""An optimizer's plan stays where its functions are kept; an optimizer is no direction, whoever made it."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamw_jax as aj
from adamw_jax._direction.direction import about
from adamw_jax._optimizer.optimizer import plan_of

PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}

REBUILT = {
    "a tree map": lambda tx: jax.tree.map(lambda x: x, tx),
    "flattened and back": lambda tx: jax.tree.unflatten(jax.tree.structure(tx), jax.tree.leaves(tx)),
    "split by Equinox": lambda tx: eqx.combine(*eqx.partition(tx, eqx.is_array)),
    "optax's own class": lambda tx: optax.GradientTransformationExtraArgs(*tx),
    "another init": lambda tx: tx._replace(init=lambda params: tx.init(params)),
    "another update": lambda tx: tx._replace(update=lambda *args, **kwargs: tx.update(*args, **kwargs)),
    "a jitted update": lambda tx: optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update)),
    "with_extra_args_support": optax.with_extra_args_support,
}
USES = {
    "explain": lambda tx: aj.explain(tx, PARAMS),
    "observe": lambda tx: aj.explain(aj.observe(tx), PARAMS),
    "skip_spikes": lambda tx: aj.explain(aj.skip_spikes(tx), PARAMS),
    "both": lambda tx: aj.explain(aj.observe(aj.skip_spikes(tx)), PARAMS),
    "with_host_state": lambda tx: aj.explain(aj.with_host_state(tx, "mu|nu"), PARAMS),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("rebuilt", REBUILT)
def test_the_plan_survives(rebuilt, use):
    if use == "with_host_state" and rebuilt == "a jitted update":
        assert plan_of(REBUILT[rebuilt](aj.adamw(0.1))) is not None  # one jit in the other is host.py's affair
        return
    tx = aj.adamw(0.1, weight_decay=aj.matrices(0.01))
    again = REBUILT[rebuilt](tx)
    assert plan_of(again) is plan_of(tx)
    decays = [row["l2"] for row in USES[use](again).rows]
    assert decays == [0.0, 0.01]


@pytest.mark.parametrize("rebuilt", REBUILT)
def test_an_optimizer_is_no_direction_however_it_was_rebuilt(rebuilt):
    with pytest.raises(ValueError, match=r"`direction` must be .* that points uphill, got an optimizer"):
        aj.decoupled(REBUILT[rebuilt](aj.adamw(0.1)), 0.1)


class Training(eqx.Module):
    params: dict
    tx: optax.GradientTransformationExtraArgs


def test_an_optimizer_is_a_field_of_an_equinox_module_under_filter_jit():
    @eqx.filter_jit
    def step(training, grads):
        assert plan_of(training.tx) is not None
        watched = aj.observe(aj.skip_spikes(training.tx))
        updates, state = watched.update(grads, watched.init(training.params), training.params)
        return optax.apply_updates(training.params, updates), state

    tx = aj.adamw(0.1, weight_decay=0.01)
    params, _ = step(Training(PARAMS, tx), PARAMS)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    for new, expected in zip(
        jax.tree.leaves(params), jax.tree.leaves(optax.apply_updates(PARAMS, updates)), strict=True
    ):
        assert jnp.allclose(new, expected, rtol=1e-6)  # float32, fused otherwise


def test_an_optimizer_without_functions_has_no_plan():
    halves = eqx.partition(aj.adamw(0.1), eqx.is_array)
    assert sorted(plan_of(half) is None for half in halves) == [False, True]
    assert [repr(half)[:20] for half in halves] == ["Optimizer(init=None,", "<adamw_jax optimizer"]
    with pytest.raises(TypeError, match=r"`tx` must come from a preset"):
        aj.explain(halves[0], PARAMS)


OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "sgd's sign alone": lambda: optax.scale(-0.5),
    "adamw": lambda: optax.adamw(0.1),
    "a rate that begins at zero": lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)),
    "a chain that ends downhill": lambda: optax.chain(aj.scale_by_adam(), optax.scale(-1.0)),
    "matrices alone": lambda: optax.chain(aj.scale_by_muon(), optax.scale(-1.0)),
    "every second update": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(0.1),
    "on some leaves": lambda: optax.masked(optax.sgd(0.1), {"bias": True, "kernel": False}),
    "wrapped": lambda: optax.apply_if_finite(optax.lion(0.1), 3),
    "a wrapper of ours": lambda: aj.observe(aj.adamw(0.1)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_points_downhill_is_refused_with_the_remedy(name):
    tx = OPTIMIZERS[name]()
    remedy = r"points downhill and has a rate in it: give what it is made of, as scale_by_adam\(\)"
    with pytest.raises(ValueError, match=rf"`direction` must be .* points uphill, got an optimizer.*{remedy}"):
        aj.decoupled(tx, 0.1)
    with pytest.raises(ValueError, match=rf"`direction\['kernel'\]` must be .*{remedy}"):
        aj.decoupled({"kernel": tx, "": aj.scale_by_adam()}, 0.1)


UNTRIED = {
    "more arguments": lambda: optax.polyak_sgd(),
    "another structure": lambda: optax.masked(optax.scale_by_adam(), {"w": True}),
    "noise": lambda: optax.add_noise(1.0, 0.5, 0),
    "nothing": optax.set_to_zero,
    "matrices alone": lambda: optax.contrib.scale_by_muon(),
}


@pytest.mark.parametrize("name", UNTRIED)
def test_what_cannot_be_tried_passes(name):
    aj.decoupled(UNTRIED[name](), 0.1)


def test_a_direction_is_tried_inside_a_traced_function_too():
    @jax.jit
    def first_step(rate, decay, g):
        with pytest.raises(ValueError, match="points downhill"):
            aj.decoupled(optax.sgd(0.1), rate)
        tx = aj.decoupled(optax.chain(optax.scale_by_lion(), optax.scale(decay)), rate)
        return tx.update(g, tx.init(g), g)[0]

    assert first_step(0.1, 2.0, jnp.array([3.0, -1.0])).tolist() == pytest.approx([-0.2, 0.2])


@pytest.mark.parametrize(
    ("made", "name", "arguments"),
    [
        (aj.scale_by_adam(0.8), "adam", {"b1": 0.8, "b2": 0.999, "moment_dtype": None}),
        (aj.scale_by_nadam(momentum_decay=None), "nadam", {"momentum_decay": None}),
        (aj.scale_by_momentum(nesterov=True), "momentum", {"momentum": 0.9, "nesterov": True}),
        (aj.scale_by_muon(ns_steps=3), "muon", {"ns_steps": 3}),
        (aj.with_narrow_state(optax.scale_by_lion()), "narrow lion", {}),
        (optax.scale_by_yogi(), "yogi", {}),
    ],
)
def test_a_direction_knows_its_name_and_arguments(made, name, arguments):
    again = jax.tree.map(lambda x: x, made)
    assert about(again).name == name
    assert arguments.items() <= (about(again).arguments or {}).items()


def test_rules_are_resolved_once_by_init_and_once_in_a_trace():
    asked = []

    def rule(name, value):
        def of(path, leaf):
            asked.append((name, path))
            return value

        return of

    tx = aj.adamw(
        0.1,
        weight_decay=rule("weight_decay", 0.01),
        lr_multipliers=rule("lr_multipliers", 0.5),
        multiplier_scales_decay=True,
        proximal_l1=rule("proximal_l1", 0.01),
        freeze=rule("freeze", False),
        hold_norm=rule("hold_norm", False),
        coupling=aj.Corrected(rule("layers", True), peak=0.1),
    )
    names = ("weight_decay", "lr_multipliers", "proximal_l1", "freeze", "hold_norm", "layers")
    once = sorted((name, path) for name in names for path in PARAMS)
    state = tx.init(PARAMS)
    assert sorted(asked) == once
    asked.clear()
    update = jax.jit(tx.update)
    for _ in range(2):
        _, state = update(PARAMS, state, PARAMS)
    assert sorted(asked) == once
    asked.clear()
    aj.explain(tx, PARAMS)
    # The table, and the shapes of the state.
    assert sorted(asked) == sorted(2 * once)


def test_a_traced_value_of_a_rule_does_not_outlive_its_trace():
    @jax.jit
    def step(r, params, grads):
        tx = aj.adamw(0.1, lr_multipliers=lambda path, leaf: r, weight_decay=lambda path, leaf: r * leaf.size)
        inner = jax.jit(lambda g, s, p: tx.update(g, s, p)[0])
        state = tx.init(params)
        return inner(grads, state, params), tx.update(grads, state, params)[0]

    for r in (0.0, 1.0):
        inside, outside = step(r, PARAMS, PARAMS)
        expected = -r * (0.1 + r * 4)
        assert float(inside["kernel"][0, 0]) == pytest.approx(expected, rel=1e-6)  # float32
        assert float(outside["kernel"][0, 0]) == pytest.approx(expected, rel=1e-6)


def test_the_plan_has_one_row_per_leaf():
    ramp = aj.linear_warmup(3)
    tx = aj.decoupled(
        {"kernel": aj.scale_by_momentum(0.8), "": optax.scale_by_lion()},
        0.1,
        weight_decay={"kernel": (0.01, 0.02), "blocks": ramp},
        lr_multipliers={"head": 0.5},
        proximal_l1={"head": 0.3},
        freeze="bias",
        hold_norm="blocks",
        axes={"blocks": "sio"},
        coupling=aj.Corrected("kernel", peak=1.0),
    )
    params = {"blocks": jnp.ones((3, 2, 2)), "head": jnp.ones((2, 2)), **PARAMS}
    rows = {row.path: row for row in plan_of(tx).leaves(jax.eval_shape(lambda: params))}
    assert list(rows) == ["bias", "blocks", "head", "kernel"]
    kernel, blocks = rows["kernel"], rows["blocks"]
    assert (kernel.role, kernel.axes, kernel.l1, kernel.l2, kernel.normalized) == ("matrix", "io", 0.01, 0.02, True)
    assert (kernel.direction, kernel.about.arguments["momentum"], rows["head"].direction) == ("momentum", 0.8, "lion")
    assert (blocks.axes, blocks.l2, blocks.held, blocks.normalized) == ("sio", ramp, True, False)
    assert (rows["head"].multiplier, rows["head"].threshold, rows["bias"].multiplier) == (0.5, 0.3, 1.0)
    assert [row.frozen for row in rows.values()] == [True, False, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": 0.1}, r"of 0.1 at 'bias' halves a weight in 6.6 updates, .* is 0.1 \* 0.001 = 0.0001 here"),
        (
            {"weight_decay": aj.matrices(10.0)},
            r"of 10 at 'kernel' halves a weight at once, .* is 10 \* 0.001 = 0.01 here",
        ),
        ({"weight_decay": 0.05, "coupling": "constant"}, r"in 14 updates, for coupling='constant' does not multiply"),
        ({"weight_decay": 0.2, "schedule": 0.5}, "in 6.6 updates"),
        ({"weight_decay": 0.1, "schedule": aj.linear_warmup(5)}, "in 6.6 updates"),
        ({"weight_decay": 1.0, "normalize_decay": 100}, "in 6.6 updates"),
        ({"weight_decay": 0.5, "normalize_decay": "cycle", "schedule": aj.cosine_warm_restarts(25)}, "in 6.6 updates"),
        ({"weight_decay": 0.05, "lr_multipliers": 2.0, "multiplier_scales_decay": True}, "in 6.6 updates"),
    ],
)
def test_a_decay_of_another_library_is_told_at_init(options, message):
    tx = aj.adamw(1e-3, **options)
    with pytest.warns(UserWarning, match=rf"`weight_decay` .*{message}.*convert_decay.*coupling='learning_rate'"):
        state = tx.init(PARAMS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx.update(PARAMS, state, PARAMS)
        jax.jit(tx.update)(PARAMS, state, PARAMS)
        aj.explain(tx, PARAMS)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.049},
        {"weight_decay": 0.1, "coupling": "learning_rate"},
        {"weight_decay": 0.1, "coupling": "corrected"},
        {"weight_decay": 0.1, "schedule": 0.01},
        {"weight_decay": 0.1, "normalize_decay": 100},
        {"weight_decay": {"kernel": lambda count: 0.1}},
    ],
)
def test_a_decay_that_is_small_or_not_known_is_not_told(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aj.adamw(1e-3, **options).init(PARAMS)
        jax.jit(lambda decay: aj.adamw(1e-3, weight_decay=decay).init(PARAMS))(0.5)


def test_the_plan_has_the_factors_of_any_updates():
    schedule = aj.cosine_warm_restarts(3, t_mult=2)
    plan = aj.adamw(0.5, weight_decay=0.01, schedule=schedule, normalize_decay="cycle").plan
    factors = plan.factors([0, 1, 2, 3])
    np.testing.assert_array_equal(factors.alpha, [0.5] * 4)
    np.testing.assert_allclose(factors.eta, [1.0, 0.5, 0.0, 1.0], atol=1e-7)  # a float32 cosine
    np.testing.assert_array_equal(factors.period, [3, 3, 3, 6])
    np.testing.assert_allclose(factors.rate, 0.5 * factors.eta)
    np.testing.assert_allclose(factors.norm, factors.period**-0.5)
    np.testing.assert_allclose(factors.decay(), factors.eta * factors.norm)
    corrected = aj.adamw(0.5, schedule=schedule, coupling="corrected").plan.factors(1)
    # The square of half of the rate, over the rate; and half of the rate.
    np.testing.assert_allclose([*corrected.decay(True), *corrected.decay(False)], [0.125, 0.25], rtol=1e-6)
