"""The angle per update that `explain` predicts: against a random walk, against a network, and where it says nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from examples import maps
from tests import reference_turn as twin

KERNEL = {"kernel": jax.ShapeDtypeStruct((4, 4), jnp.float32)}


def turn(tx, params=KERNEL, flags="kernel", **options):
    """Return the prediction for a tree of one leaf."""
    (row,) = aj.explain(tx, params, scale_invariant=flags, **options).rows
    return row["turn"]


WALKS = {
    "adam": (lambda **o: aj.adamw(0.01, **o), "adam", 0.9),
    "adam, b1 = 0": (lambda **o: aj.adamw(0.01, b1=0.0, **o), "adam", 0.0),
    "adam, b1 = 0.5": (lambda **o: aj.adamw(0.01, b1=0.5, **o), "adam", 0.5),
    "amsgrad": (lambda **o: aj.adamw(0.01, amsgrad=True, **o), "amsgrad", 0.9),
    "nadam": (lambda **o: aj.nadamw(0.01, momentum_decay=None, **o), "nadam", 0.9),
    "sgdw": (lambda **o: aj.sgdw(0.3, **o), "momentum", 0.9),
    "sgdw, Nesterov": (lambda **o: aj.sgdw(0.3, nesterov=True, **o), "nesterov", 0.9),
    "sgd": (lambda **o: aj.sgdw(0.3, momentum=0.0, **o), "momentum", 0.0),
}


@pytest.mark.parametrize("decay", [0.01, 0.003])
@pytest.mark.parametrize("name", WALKS)
def test_a_random_walk_turns_as_predicted(name, decay):
    make, direction, b1 = WALKS[name]
    tx = make(weight_decay=decay)
    # The squared length forgets its start within 1 / (2 decay), once it is near the balance.
    updates = 400 + int(6 / decay)
    angle, _ = twin.turning(twin.step_of(direction, b1), float(tx.plan.learning_rate), decay, updates=updates, last=300)
    # Second moments that still know a longer weight's gradients, and terms of order s N, cost a percent each.
    assert turn(tx) == pytest.approx(angle, rel=0.025)


def test_the_rate_is_in_the_length_and_not_in_the_angle():
    runs = [twin.turning(twin.step_of("adam", 0.9), rate, 0.01, updates=900, last=300) for rate in (0.003, 0.03)]
    (slow, short), (fast, long) = runs
    assert fast == pytest.approx(slow, rel=0.02)
    # The start is still felt by e^-9 of the squared length, a hundredfold too large for the smaller rate.
    assert long == pytest.approx(10 * short, rel=0.05)
    assert turn(aj.adamw(0.003, weight_decay=0.01)) == turn(aj.adamw(0.03, weight_decay=0.01))


@pytest.mark.parametrize("rate", [0.003, 0.03, 0.1])
@pytest.mark.parametrize(("direction", "b1"), [("adam", 0.9), ("adam", 0.0), ("nadam", 0.9)])
def test_a_held_norm_turns_by_the_rate_less_what_the_momentum_lengthens(direction, b1, rate):
    make = aj.nadamw if direction == "nadam" else aj.adamw
    options = {"momentum_decay": None} if direction == "nadam" else {}
    angle, _ = twin.turning(twin.step_of(direction, b1), rate, 0.0, updates=400, last=200, held=True)
    # The balance of lengths is an exponential average's, and the angle its sine: 1 and 3 % at 0.1, little below.
    assert turn(make(rate, b1=b1, hold_norm="kernel", **options)) == pytest.approx(angle, rel=0.04)
    if rate * 9 < 0.1 or b1 == 0:
        assert angle == pytest.approx(rate, rel=0.01)


NETWORKS = {
    "adamw": lambda: aj.adamw(0.01, b2=0.99, weight_decay=0.01),
    "sgdw": lambda: aj.sgdw(0.3, weight_decay=0.01),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_turns_as_its_table_says(name):
    tx = aj.observe(NETWORKS[name]())
    (x, y), _ = maps.teacher(examples=2000, noise=0.2)
    params = maps.init_params(jax.random.key(0))

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (maps.BATCH,), 0, len(y))
        updates, state = tx.update(jax.grad(maps.loss_of)(params, x[rows], y[rows]), state, params)
        return (optax.apply_updates(params, updates), state), state.angle

    keys = jax.random.split(jax.random.key(1), 800)
    _, angles = jax.jit(lambda start: jax.lax.scan(step, start, keys))((params, tx.init(params)))
    told = {row["path"]: row["turn"] for row in aj.explain(tx, params, scale_invariant="dense").rows}
    ratios = [float(angles[path][-300:].mean()) / turn for path, turn in told.items()]
    # Gradients of two updates are a little alike, and the columns of a kernel have gradients of their own size: single
    # kernels are 20 % off, all three together few percent.
    assert np.mean(ratios) == pytest.approx(1, rel=0.1)
    assert np.array(ratios) == pytest.approx(1, rel=0.3)


def test_nadams_momentum_schedule_counts_at_the_count_explained():
    tx = aj.nadamw(0.01, weight_decay=0.01)
    count = 3000
    mu = 0.9 * (1 - 0.96 ** (0.004 * (count + 1)) / 2)
    angle, _ = twin.turning(twin.step_of("nadam", 0.9, look_ahead=mu), 0.01, 0.01, updates=900, last=300)
    assert turn(tx, at=count) == pytest.approx(angle, rel=0.025)
    # At the peaks it is where the schedule ends: at b1, or where it never moves at b1 / 2.
    assert turn(tx) == turn(aj.nadamw(0.01, momentum_decay=None, weight_decay=0.01))
    standing = aj.nadamw(0.01, momentum_decay=0.0, weight_decay=0.01)
    assert turn(standing) == turn(standing, at=5000) > turn(tx)


def test_the_formula_of_the_paper():
    expected = (2 * 0.002 * 0.1 / 1.9) ** 0.5
    for tx in (
        aj.adamw(0.1, weight_decay=0.002),
        aj.adamw(0.1, weight_decay=0.004, schedule=0.5),
        aj.adamw(0.1, weight_decay=0.02, coupling="learning_rate"),
        aj.adamw(0.1, weight_decay=0.002, lr_multipliers=0.1),
        aj.adamw(0.1, weight_decay=0.02, normalize_decay=100),
        aj.sgdw(0.1, weight_decay=0.002),
        aj.adamw(0.1, b1=jnp.float32(0.9), b2=0.5, weight_decay=0.002, moment_dtype="packed"),
        aj.decoupled(aj.with_narrow_state(aj.scale_by_adam()), 0.1, weight_decay=0.002),
        aj.decoupled({"kernel": aj.scale_by_adam()}, 0.1, weight_decay=0.002),
    ):
        # b1 may be float32: 0.1 in it is 2e-7 off.
        assert turn(tx) == pytest.approx(expected, rel=1e-6)


def test_a_scheduled_decay_counts_at_the_count_explained():
    tx = aj.adamw(0.1, weight_decay={"kernel": optax.linear_schedule(0.002, 0.0, 100)})
    at_peak, half, end = turn(tx), turn(tx, at=50), turn(tx, at=100)
    assert half == pytest.approx(at_peak / 2**0.5, rel=1e-6)
    assert end is None
    peak, later = (aj.explain(tx, KERNEL, scale_invariant="kernel", at=at) for at in (None, 50))
    assert {"path": "kernel", "what": "turn", "old": at_peak, "new": half} in later.diff(peak).rows


SILENT = {
    "optax's direction": lambda: aj.decoupled(optax.scale_by_adam(), 0.1, weight_decay=0.01),
    "braked": lambda: aj.adamw(0.1, weight_decay=0.01, hold_norm=aj.Brake("kernel")),
    "a chain": lambda: aj.decoupled(optax.chain(optax.clip(1.0), aj.scale_by_adam()), 0.1, weight_decay=0.01),
    "Lion": lambda: aj.decoupled(aj.with_narrow_state(optax.scale_by_lion()), 0.1, weight_decay=0.01),
    "Muon": lambda: aj.decoupled(aj.scale_by_muon(), 0.1, weight_decay=0.01),
    "Muon, held": lambda: aj.decoupled(aj.scale_by_muon(), 0.1, hold_norm="kernel"),
    "no decay": lambda: aj.adamw(0.1),
    "all is taken away": lambda: aj.adamw(0.1, weight_decay=1.0),
    "l1": lambda: aj.adamw(0.1, weight_decay=(1e-4, 0.01)),
    "a threshold": lambda: aj.adamw(0.1, weight_decay=0.01, proximal_l1=1e-4),
    "cautious": lambda: aj.adamw(0.1, weight_decay=0.01, decay="cautious"),
    "anchored": lambda: aj.adamw(0.1, weight_decay=0.01, decay="anchored"),
    "no rate": lambda: aj.adamw(0.0, weight_decay=0.01),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_is_not_known_is_left_empty(name):
    assert turn(SILENT[name]()) is None


def test_leaves_that_turn_by_another_law():
    tx = aj.adamw(0.1, weight_decay=0.01)
    assert turn(tx, flags={"kernel": False}) is None
    assert turn(tx, {"kernel": jax.ShapeDtypeStruct((4, 4), jnp.bfloat16)}) is None
    assert turn(aj.adamw(0.1, weight_decay=0.01, freeze="kernel")) == 0.0
    (row,) = aj.explain(tx, KERNEL).rows
    assert row["turn"] is None


def test_the_column_is_there_where_flags_are():
    params = {"kernel": jnp.ones((4, 4)), "head": jnp.ones((4, 2))}
    tx = aj.adamw(0.1, weight_decay=0.0019)
    plain, told = aj.explain(tx, params), aj.explain(tx, params, scale_invariant="kernel")
    for text in (str(plain), plain._repr_html_()):
        assert "turn" not in text
    for text in (str(told), told._repr_html_()):
        assert text.count("turn/update") == 2
        assert "0.0141" in text
        assert "turn/update: radians, in equilibrium" in text
    assert told.to_dict()["rows"][1]["turn"] == pytest.approx(0.0019**0.5 * (0.2 / 1.9) ** 0.5)
    assert not told.diff(plain)
