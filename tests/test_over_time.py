"""Rules whose values are schedules, thawing, and norms that are held."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from tests.reference_norms import hyperball
from tests.running import quick_jit

P = {
    "body": {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4)},
    "head": {"kernel": jnp.linspace(1, 2, 12).reshape(3, 4)},
}


def gradients(steps, seed=0):
    rng = np.random.default_rng(seed)
    return [jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), P) for _ in range(steps)]


def run(tx, grads, params=P):
    """The updates of every step, and the parameters after it."""
    step, state = quick_jit(tx.update), tx.init(params)
    rows = []
    for g in grads:
        updates, state = step(g, state, params)
        params = optax.apply_updates(params, updates)
        rows.append((updates, params))
    assert step._cache_size() == 1
    return rows, state


@pytest.mark.usefixtures("lenient")
def test_a_decay_with_a_schedule_is_optaxs():
    schedule = optax.cosine_decay_schedule(0.4, 20)
    grads = gradients(20)
    peer, _ = run(optax.adamw(0.01, weight_decay=schedule), grads)
    for rules in (
        {"": schedule},
        {"": jax.tree_util.Partial(schedule)},
        lambda path, leaf: schedule,
        jax.tree.map(lambda _: schedule, P),
    ):
        ours, _ = run(aj.adamw(0.01, weight_decay=rules, coupling="learning_rate"), grads)
        for (_, a), (_, b) in zip(peer, ours, strict=True):
            np.testing.assert_allclose(a["head"]["kernel"], b["head"]["kernel"], atol=2e-6)  # float32, another order


def test_a_pair_whose_halves_move_is_its_twin():
    steps, alpha, eta = 15, 0.1, aj.cosine_warm_restarts(6, eta_min=0.2)
    l1, l2 = optax.linear_schedule(0.0, 0.05, 10, 3), optax.exponential_decay(0.2, 5, 0.5)
    r = optax.linear_schedule(0.0, 1.0, 4, 2)
    tx = aj.sgdw(
        alpha,
        momentum=0.0,
        weight_decay={"kernel": (l1, l2)},
        lr_multipliers={"kernel": r},
        multiplier_scales_decay=True,
        schedule=eta,
        normalize_decay=9,
    )
    grads = gradients(steps)
    theta = np.asarray(P["head"]["kernel"], np.float64)
    for k, (_, params) in enumerate(run(tx, grads)[0]):
        now = [float(f(k)) for f in (l1, l2, r, eta)]
        decay = now[3] / 3 * now[2] * (now[0] * np.sign(theta) + now[1] * theta)
        theta = theta - alpha * now[3] * now[2] * np.asarray(grads[k]["head"]["kernel"], np.float64) - decay
        np.testing.assert_allclose(params["head"]["kernel"], theta, rtol=2e-6, atol=1e-6)  # float32 against float64


DIRECTIONS = {
    "adamw": lambda **options: aj.adamw(0.01, **options),
    "nadamw": lambda **options: aj.nadamw(0.01, **options),
    "sgdw": lambda **options: aj.sgdw(0.01, **options),
    "lion": lambda **options: aj.decoupled(optax.scale_by_lion(), 0.01, **options),
    "muon by path": lambda **options: aj.decoupled(
        {"body": aj.scale_by_muon(), "": aj.scale_by_adam()}, 0.01, **options
    ),
}


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_leaf_thaws_warm(name):
    at = 6

    def step_up(count):
        return jnp.where(count >= at, 1.0, 0.0)

    grads = gradients(12)
    warm, _ = run(DIRECTIONS[name](lr_multipliers={"body": step_up}, weight_decay={"body": 0.1}), grads)
    trained, _ = run(DIRECTIONS[name](), grads)
    for k, ((updates, _), (free, _)) in enumerate(zip(warm, trained, strict=True)):
        if k < at:
            np.testing.assert_array_equal(updates["body"]["kernel"], 0.0)
            continue
        decay = 0.1 * np.asarray(P["body"]["kernel"] if k == at else warm[k - 1][1]["body"]["kernel"])
        step = -np.asarray(updates["body"]["kernel"]) - decay
        ratio = np.linalg.norm(step) / np.linalg.norm(free["body"]["kernel"])
        assert ratio == pytest.approx(1.0, abs=1e-3)


def test_a_leaf_without_moments_thaws_as_under_a_fresh_adam():
    directions = {"body": aj.scale_by_adam(), "": aj.scale_by_adam()}
    cold, warm = (aj.decoupled(directions, 0.01, freeze=freeze) for freeze in ("body", None))
    grads = gradients(60)
    _, state = run(cold, grads[:50])
    state = aj.carry_over(state, warm.init(P))
    fresh, fresh_state = aj.adamw(0.01), aj.adamw(0.01).init(P)
    straight, _ = run(warm, grads)
    params = P
    for k in range(50, 60):
        updates, state = warm.update(grads[k], state, params)
        expected, fresh_state = fresh.update(grads[k], fresh_state, params)
        np.testing.assert_allclose(updates["body"]["kernel"], expected["body"]["kernel"], rtol=1e-6)
        np.testing.assert_allclose(updates["head"]["kernel"], straight[k][0]["head"]["kernel"], rtol=1e-6)


@pytest.mark.usefixtures("lenient")
def test_what_moves_is_told_at_a_count_and_at_the_peak():
    thaw = optax.linear_schedule(0.0, 1.0, 100, 50)
    options = {"weight_decay": {"kernel": optax.cosine_decay_schedule(0.4, 1000)}, "lr_multipliers": {"body": thaw}}
    tx = aj.adamw(0.01, **options)
    rows = [{row["path"]: row for row in aj.explain(tx, P, at=at).rows} for at in (0, 100, 999)]
    assert [row["body/kernel"]["multiplier"] for row in rows] == [0.0, 0.5, 1.0]
    assert rows[1]["body/kernel"]["moves"] == ("multiplier", "l2")
    assert rows[1]["head/kernel"]["moves"] == ("l2",)
    assert rows[1]["head/kernel"]["l2"] == pytest.approx(float(options["weight_decay"]["kernel"](100)))
    peak = aj.explain(tx, P, updates=1000)
    assert [row["multiplier"] for row in peak.rows] == [1.0, 1.0]
    assert "at count 100" in str(aj.explain(tx, P, at=100))
    with pytest.raises(ValueError, match="`at` must be below the `updates` of the run, 100, got 100"):
        aj.explain(tx, P, updates=100, at=100)
    with pytest.raises(ValueError, match="`at` must be an integer from 0"):
        aj.explain(tx, P, at=-1)


def test_the_difference_of_two_tables():
    old = aj.explain(aj.adamw(0.01, weight_decay={"head": 0.1}), P)
    new = aj.explain(aj.adamw(0.01, weight_decay={"kernel": 0.1}, freeze="head"), P)
    rows = {(row["path"], row["what"]): (row["old"], row["new"]) for row in new.diff(old).rows}
    assert rows["body/kernel", "l2"] == (0.0, 0.1)
    assert rows["head/kernel", "frozen"] == (False, True)
    assert ("head/kernel", "l2") not in rows
    assert "head/kernel" in str(new.diff(old))
    assert not new.diff(new)
    assert str(new.diff(new)) == "nothing changed"
    with pytest.raises(ValueError, match=r"`old` must be a table of the same parameters.*'body/kernel' \(new\)"):
        new.diff(aj.explain(aj.adamw(0.01), {"head": P["head"]}))


@pytest.mark.parametrize(
    ("schedule", "kind", "text"),
    [
        (lambda count: "x", TypeError, "`weight_decay\\(count\\)` must be a number or a JAX scalar, got 'x'"),
        (lambda count: jnp.ones(2), TypeError, "`weight_decay\\(count\\)` must be a number or a JAX scalar"),
        (lambda count: -1.0, ValueError, "`weight_decay\\(count\\)` must be a finite number in \\[0, inf\\), got -1"),
    ],
)
def test_a_schedule_that_says_no_number_is_named(schedule, kind, text):
    with pytest.raises(kind, match=text):
        aj.adamw(0.1, weight_decay={"kernel": schedule}).init(P)


@pytest.mark.parametrize(
    "stage",
    [
        lambda schedule: aj.scale_by_multipliers({"body": schedule}),
        lambda schedule: aj.add_decoupled_decay({"body": schedule}),
        lambda schedule: aj.soft_threshold({"body": schedule}),
        lambda schedule: aj.freeze_where(lr_multipliers={"body": schedule}),
    ],
)
def test_a_schedule_outside_the_owner_of_the_count_says_where_it_belongs(stage):
    tx = stage(optax.constant_schedule(0.1))
    with pytest.raises(ValueError, match="must not have a schedule as a value outside of with_learning_rate"):
        tx.update(P, tx.init(P), P)


# Norms that are held.


def test_held_norms_are_their_twin_and_stay():
    grads = gradients(10)
    schedule = aj.cosine_warm_restarts(5, eta_min=0.2)
    for name, make in {"adam": aj.adamw, "momentum": functools.partial(aj.sgdw, momentum=0.5)}.items():
        tx = make(0.1, hold_norm="body", lr_multipliers={"body": 0.5}, schedule=schedule)
        expected = hyperball(
            np.asarray(P["body"]["kernel"], np.float64),
            [np.asarray(g["body"]["kernel"], np.float64) for g in grads],
            [0.1 * float(schedule(k)) * 0.5 for k in range(10)],
            direction=name,
        )
        plain, _ = run(make(0.1, schedule=schedule), grads)
        for (_, params), theta, (_, other) in zip(run(tx, grads)[0], expected, plain, strict=True):
            np.testing.assert_allclose(params["body"]["kernel"], theta, atol=2e-6)  # float32 against float64
            np.testing.assert_allclose(
                np.linalg.norm(params["body"]["kernel"]), np.linalg.norm(P["body"]["kernel"]), rtol=1e-6
            )
            np.testing.assert_allclose(params["head"]["kernel"], other["head"]["kernel"], rtol=1e-6)


def test_bad_norms_are_named():
    with pytest.raises(ValueError, match=r"`hold_norm` must not hold a leaf that decays, got .* at 'body/kernel'"):
        aj.adamw(0.1, hold_norm="kernel", weight_decay={"body": 0.1}).init(P)
    with pytest.raises(ValueError, match=r"`hold_norm` must hold .* got zeros at 'w'"):
        aj.adamw(0.1, hold_norm="w").init({"w": jnp.zeros((2, 2))})
    with pytest.warns(UserWarning, match="`hold_norm` holds 'bias', which is no matrix"):
        aj.adamw(0.1, hold_norm="bias").init({"bias": jnp.ones(2)})
