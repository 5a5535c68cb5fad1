"""What a report finds amiss: planted growth, a rate that is off, skipped updates; and nothing in a clean run."""

import jax
import jax.numpy as jnp
import optax
import pytest

import adamw_jax as aj
from tests.running import quick_jit

UPDATES = 400


def make(kind, seed):
    """A small network with a gate and a router: (parameters, function)."""
    keys = jax.random.split(jax.random.key(seed), 4)

    def kernel(key, *shape):
        return {"kernel": jax.random.normal(key, shape) / shape[-2] ** 0.5}

    if kind == "mixture":
        params = {"embed": jax.random.normal(keys[0], (16, 16)) / 4, "router": kernel(keys[1], 16, 4)}
        params |= {"experts": kernel(keys[2], 4, 16, 16), "gate": jnp.ones(16), "head": kernel(keys[3], 16, 4)}

        def mixture(p, x):
            hidden = jnp.tanh(x @ p["embed"])
            weights = jax.nn.softmax(hidden @ p["router"]["kernel"])
            out = jnp.einsum("bi,eio,be->bo", hidden, p["experts"]["kernel"], weights)
            return (hidden + p["gate"][None] * jnp.tanh(out)) @ p["head"]["kernel"]

        return params, mixture
    params = {f"dense_{i}": kernel(keys[i], 16, 16) | {"bias": jnp.zeros(16)} for i in range(2)}
    params |= {"gate": jnp.ones(16), "head": kernel(keys[3], 16, 4)}

    def network(p, x):
        for i in range(2):
            x = x @ p[f"dense_{i}"]["kernel"]
            x = jax.nn.relu((jax.nn.standardize(x) if kind == "normalized" else x) + p[f"dense_{i}"]["bias"][None])
        return (x * p["gate"][None]) @ p["head"]["kernel"]

    return params, network


def reports(kind, seed=0, planted=0.0, **options):
    """The reports at a quarter, half, three quarters and the end of the run."""
    params, network = make(kind, seed)
    options = {"weight_decay": aj.matrices(1e-3), "direction": aj.scale_by_adam()} | options
    if kind != "mixture":
        options.pop("axes", None)
    tx = aj.observe(aj.decoupled(learning_rate=3e-3, **options), every=10)
    teacher = jax.random.normal(jax.random.key(99), (16, 4))

    def loss(p, x):
        classes = jnp.argmax(jnp.tanh(x) @ teacher, -1)
        wanted = optax.softmax_cross_entropy_with_integer_labels(network(p, x), classes).mean()
        return wanted - planted * jnp.sum(p["gate"])

    def step(carry, key):
        params, state = carry
        gradients = jax.grad(loss)(params, jax.random.normal(key, (32, 16)))
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    def run(carry, keys):
        def quarter(carry, keys):
            carry, _ = jax.lax.scan(step, carry, keys)
            return carry, carry[1]

        return jax.lax.scan(quarter, carry, keys)[1]

    keys = jax.random.split(jax.random.key(seed), UPDATES).reshape(4, -1)
    states = quick_jit(run)((params, tx.init(params)), keys)
    return [aj.report(jax.tree.map(lambda x, i=i: x[i], states), updates=UPDATES) for i in range(4)]


@pytest.mark.parametrize("kind", ["plain", "normalized", "mixture"])
def test_growth_that_was_planted_is_named_before_the_end(kind):
    named = [line for told in reports(kind, planted=1.0, lr_multipliers={"gate": 8.0})[:3] for line in told.warnings]
    assert any(line.startswith("gate: the norm doubles in the") for line in named), named


@pytest.mark.parametrize("kind", ["plain", "normalized", "mixture"])
def test_clean_runs_raise_nothing(kind):
    for seed in range(3):
        assert [told.warnings for told in reports(kind, seed)] == [()] * 4


@pytest.mark.parametrize("kind", ["plain", "normalized", "mixture"])
def test_an_orthogonalization_that_is_cut_short_is_named(kind):
    name = "experts" if kind == "mixture" else "dense_1"

    def last(direction):
        return reports(kind, direction={f"{name}/kernel": direction, "": aj.scale_by_adam()}, axes={"experts": "sio"})

    for short in (aj.scale_by_muon(steps=1), aj.scale_by_muon(coefficients=(1.5, -0.5, 0.0))):
        lines = [line for told in last(short) for line in told.warnings]
        assert [line.partition(" is ")[0] for line in lines] == [
            f"{name}/kernel: the residual of the orthogonalization"
        ] * 4
    for good in (aj.scale_by_muon(), aj.scale_by_muon(coefficients="polar_express", steps=8)):
        assert [told.warnings for told in last(good)] == [()] * 4


def test_a_rate_that_is_off_is_named():
    *_, last = reports("plain", lr_multipliers={"dense|head": 0.005}, weight_decay=0.0)
    assert any(line.startswith("gate: the ratio") and "lr_multipliers" in line for line in last.warnings)


def test_skipped_updates_are_told_at_any_depth():
    params = {"w": jnp.ones(3)}
    for tx in (
        aj.observe(aj.skip_spikes(aj.adamw(0.1), window=2)),
        aj.skip_spikes(aj.observe(aj.adamw(0.1)), window=2),
        aj.observe(optax.chain(optax.identity(), optax.apply_if_finite(aj.adamw(0.1), 5))),
    ):
        state = tx.init(params)
        for size in (1.0, 1.0, 1.0, jnp.nan, 1.0):
            _, state = tx.update({"w": jnp.full(3, size)}, state, params)
        told = aj.report(state)
        assert told.skipped == 1
        assert told.warnings[-1].endswith("updates skipped")
        assert told.warnings[-1] in str(told)


def test_an_angle_far_from_the_predicted_one_is_told():
    params = {"w": jax.random.normal(jax.random.key(0), (4, 4))}
    tx = aj.observe(aj.adamw(0.1, weight_decay={"w": 0.01}))
    explained = aj.explain(tx, params, scale_invariant={"w": True})
    state = tx.init(params)
    for _ in range(210):
        updates, state = tx.update({"w": jnp.zeros((4, 4))}, state, params)  # decays, and does not turn
        params = optax.apply_updates(params, updates)
    assert aj.report(state).warnings == ()
    (line,) = aj.report(state, explained=explained).warnings
    assert line.startswith("w: an update turns it by ")


def test_a_run_cannot_be_shorter_than_what_was_made():
    tx = aj.observe(aj.adamw(0.1))
    state = tx.init({"w": jnp.ones(2)})
    for _ in range(3):
        _, state = tx.update({"w": jnp.ones(2)}, state, {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="`updates` must be the length of the run, at least the 3 made, got 2"):
        aj.report(state, updates=2)
