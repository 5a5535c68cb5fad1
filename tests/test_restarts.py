"""The position in the state: it follows the schedule, and moves by hand wherever it is wrapped."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from tests.running import lenient

PARAMS = {"w": jnp.ones(2)}
GRADS = {"w": jnp.ones(2)}


def steps(tx, state, count):
    """Return the factors that `count` updates of ones were multiplied by, and the state after them."""
    update, factors = jax.jit(tx.update), []
    for _ in range(count):
        updates, state = update(GRADS, state, PARAMS)
        factors.append(float(updates["w"][0]))
    return np.array(factors), state


def position(state):
    return int(state.t_cur), int(state.period), int(state.cycle), float(state.eta)


@pytest.mark.parametrize(
    "schedule",
    [
        aj.cosine_warm_restarts(5),
        aj.cosine_warm_restarts(5, t_mult=1.5, eta_min=0.1, eta_max=2.0, eta_max_decay=0.9, warmup=3),
        aj.cosine_warm_restarts(4, endpoint=False, t_mult=2),
        aj.cosine_warm_restarts(6, autorestart=False),
        optax.linear_schedule(1.0, 0.0, 30),
    ],
    ids=["plain", "all options", "open end", "no restart", "count -> factor"],
)
def test_the_state_follows_the_schedule(schedule):
    tx = aj.with_schedule(schedule, aj.scale_by_rates("eta"))
    factors, state = steps(tx, tx.init(PARAMS), 40)
    np.testing.assert_allclose(factors, jax.vmap(schedule)(jnp.arange(40)), atol=1e-6)  # float32, other fusion
    np.testing.assert_allclose(state.eta, schedule(40), atol=1e-6)
    if hasattr(schedule, "position"):
        assert position(state)[:3] == tuple(map(int, schedule.position(40)))
    else:
        assert position(state)[:3] == (40, 2**31 - 1, 0)


def test_a_number_is_a_constant_factor():
    tx = aj.with_schedule(0.5, aj.scale_by_rates("eta"))
    factors, state = steps(tx, tx.init(PARAMS), 3)
    assert (factors == 0.5).all()
    assert state.eta == 0.5


def test_restart_begins_a_cycle():
    schedule = aj.cosine_warm_restarts(10, t_mult=2, eta_max=0.5)
    tx = aj.with_schedule(schedule, aj.scale_by_rates("eta"))
    _, state = steps(tx, tx.init(PARAMS), 4)
    factors, after = steps(tx, aj.restart(state), 12)
    np.testing.assert_allclose(factors[:10], schedule(jnp.arange(10)), atol=1e-6)
    assert position(after)[:3] == (2, 20, 2)
    factors, after = steps(tx, aj.restart(state, period=3), 5)
    np.testing.assert_allclose(factors, [0.5, 0.25, 0.0, 0.5, factors[4]], atol=1e-6)
    assert position(after)[:3] == (2, 6, 2)


def test_set_position():
    schedule = aj.cosine_warm_restarts(10, warmup=4)
    tx = aj.with_schedule(schedule, aj.scale_by_rates("eta"))
    state = tx.init(PARAMS)
    np.testing.assert_allclose(steps(tx, aj.set_position(state, 7), 2)[0], schedule(jnp.array([11, 12])), atol=1e-6)
    np.testing.assert_allclose(steps(tx, aj.set_position(state, -2), 2)[0], schedule(jnp.array([2, 3])), atol=1e-6)
    moved = aj.set_position(state, 7, period=8, cycle=3, eta=0.125)
    assert position(moved) == (7, 8, 3, 0.125)
    factors, after = steps(tx, moved, 2)
    assert list(factors) == [0.125, 1.0]
    assert position(after)[:3] == (1, 8, 4)


def test_what_is_moved_computes_its_factor_at_the_next_update():
    tx = aj.with_schedule(aj.cosine_warm_restarts(10), aj.scale_by_rates("eta"))
    _, state = steps(tx, tx.init(PARAMS), 4)
    assert aj.current(aj.restart(state)).eta < 0
    updates, after = tx.update(GRADS, aj.restart(state))
    assert updates["w"][0] == 1
    np.testing.assert_allclose(aj.current(after).eta, aj.cosine_warm_restarts(10)(1), atol=1e-6)


def test_a_plain_schedule_restarts_at_its_beginning():
    tx = aj.with_schedule(optax.linear_schedule(1.0, 0.0, 4), aj.scale_by_rates("eta"))
    _, state = steps(tx, tx.init(PARAMS), 3)
    np.testing.assert_allclose(steps(tx, aj.restart(state), 3)[0], [1, 0.75, 0.5])


SCHEDULE = aj.cosine_warm_restarts(10)
WRAPPED = {
    "adamw": lambda: aj.adamw(0.1, schedule=SCHEDULE),
    "sgdw": lambda: aj.sgdw(0.1, schedule=SCHEDULE),
    "chain": lambda: optax.chain(optax.clip(1.0), aj.nadamw(0.1, schedule=SCHEDULE)),
    "masked": lambda: optax.masked(aj.adamw(0.1, schedule=SCHEDULE), {"w": True}),
    "MultiSteps": lambda: lenient(optax.MultiSteps(aj.adamw(0.1, schedule=SCHEDULE), 1).gradient_transformation()),
    "apply_if_finite": lambda: optax.apply_if_finite(aj.adamw(0.1, schedule=SCHEDULE), 2),
    "inject_hyperparams": lambda: optax.inject_hyperparams(aj.adamw, static_args="schedule")(0.1, schedule=SCHEDULE),
    "all of them": lambda: optax.apply_if_finite(
        optax.chain(optax.masked(optax.inject_hyperparams(aj.adamw, "schedule")(0.1, schedule=SCHEDULE), {"w": True})),
        2,
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_restart_reaches_the_position_in_any_state(name):
    tx = WRAPPED[name]()
    _, state = steps(tx, tx.init(PARAMS), 4)
    np.testing.assert_allclose(aj.current(state).eta, SCHEDULE(4), atol=1e-6)
    moved = jax.jit(aj.restart)(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)
    _, after = steps(tx, moved, 2)
    np.testing.assert_allclose(aj.current(after).eta, SCHEDULE(2), atol=1e-6)
    _, after = steps(tx, jax.jit(aj.set_position)(state, 6), 1)
    np.testing.assert_allclose(aj.current(after).eta, SCHEDULE(7), atol=1e-6)


def test_several_positions_restart_together_and_have_no_one_eta():
    tx = optax.chain(
        aj.with_schedule(SCHEDULE, aj.scale_by_rates("eta")),
        aj.with_schedule(SCHEDULE, aj.with_schedule(2.0, aj.scale_by_rates("eta"))),
    )
    _, state = steps(tx, tx.init(PARAMS), 3)
    moved = aj.restart(state)
    assert moved[0].t_cur == moved[1].t_cur == moved[1].inner_state.t_cur == 0
    with pytest.raises(ValueError, match="must contain one ScheduleState, got several"):
        aj.current(state)


def test_a_batch_of_states_moves_as_one():
    tx = aj.with_schedule(SCHEDULE, aj.scale_by_rates("eta"))
    batch = jax.vmap(lambda w: tx.init({"w": w}))(jnp.ones((3, 2)))
    assert aj.restart(batch, period=4).period.tolist() == [4, 4, 4]
    assert aj.set_position(batch, 2).t_cur.tolist() == [2, 2, 2]


def test_decay_normalized_per_cycle_follows_the_period():
    tx = aj.adamw(0.0, weight_decay=0.1, normalize_decay="cycle", schedule=aj.cosine_warm_restarts(4, t_mult=4))
    state = tx.init(PARAMS)
    decays = []
    for _ in range(5):
        updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
        decays.append(-float(updates["w"][0]))
    assert decays[0] == pytest.approx(0.1 / 2, rel=1e-6)
    assert decays[4] == pytest.approx(0.1 / 4, rel=1e-6)


@pytest.mark.parametrize("schedule", [0.5, optax.linear_schedule(1.0, 0.0, 4)], ids=["number", "function"])
def test_a_schedule_without_cycles_takes_no_period_and_no_cycle(schedule):
    state = aj.adamw(0.1, schedule=schedule).init(PARAMS)
    for move in (
        lambda: aj.restart(state, period=5),
        lambda: aj.set_position(state, 1, period=5),
        lambda: aj.set_position(state, 1, cycle=2),
    ):
        with pytest.raises(ValueError, match="must be None: the schedule of this state is a function"):
            move()
    assert int(aj.restart(aj.reschedule(state, SCHEDULE), period=5).inner_state.period) == 5
    batch = jax.vmap(lambda w: aj.adamw(0.1, schedule=schedule).init({"w": w}))(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="must be None: the schedule of this state is a function of the count"):
        aj.restart(batch, period=5)


@pytest.mark.parametrize("move", [aj.restart, lambda state: aj.set_position(state, 3)], ids=["restart", "set_position"])
def test_the_eta_of_a_number_is_the_next_factor_wherever_its_position_is(move):
    tx = aj.with_schedule(0.5, aj.scale_by_rates("eta"))
    for moved in (move(tx.init(PARAMS)), jax.jit(move)(tx.init(PARAMS))):
        assert aj.current(moved).eta == steps(tx, moved, 1)[0][0] == 0.5
    with pytest.raises(ValueError, match="`eta` must be None, for the schedule of this state is a number"):
        aj.set_position(tx.init(PARAMS), 3, eta=0.25)


def test_the_eta_of_an_injected_number_is_the_next_factor():
    tx = optax.inject_hyperparams(aj.sgdw)(1.0, momentum=0.0, schedule=0.5)
    _, state = steps(tx, tx.init(PARAMS), 2)
    state.hyperparams["schedule"] = jnp.asarray(0.25)
    now = aj.current(state)
    assert (float(now.eta), float(now.rate)) == (0.25, 0.25)
    np.testing.assert_allclose(steps(tx, state, 1)[0], [-0.25])


def test_the_eta_of_an_injected_function_is_refused_for_it_is_not_in_the_state():
    tx = optax.inject_hyperparams(aj.sgdw)(1.0, schedule=optax.linear_schedule(1.0, 0.0, 4))
    with pytest.raises(ValueError, match=r"keeps only the latest number .* static_args=\"schedule\""):
        aj.current(tx.init(PARAMS))


CURRENT = {
    "number": (lambda: aj.adamw(0.25), "Current(count=2, learning_rate=0.25, rate=0.25)"),
    "function": (
        lambda: aj.adamw(optax.linear_schedule(1.0, 0.0, 4)),
        "Current(count=2, learning_rate=0.75, rate=0.75)",
    ),
    "schedule": (
        lambda: optax.chain(optax.clip(1.0), aj.adamw(0.25, schedule=aj.cosine_warm_restarts(5))),
        "Current(count=2, learning_rate=0.25, eta=0.5, rate=0.125, t_cur=2, period=5, cycle=0)",
    ),
    "injected": (
        lambda: optax.inject_hyperparams(aj.nadamw, "schedule")(0.25, schedule=aj.cosine_warm_restarts(5)),
        "Current(count=2, learning_rate=0.25, eta=0.5, rate=0.125, t_cur=2, period=5, cycle=0)",
    ),
    "MultiSteps": (
        lambda: optax.MultiSteps(aj.sgdw(0.25, schedule=0.5), 1).gradient_transformation(),
        "Current(count=2, learning_rate=0.25, eta=0.5, rate=0.125, t_cur=2, period=2147483647, cycle=-1)",
    ),
    "schedule alone": (
        lambda: aj.with_schedule(aj.cosine_warm_restarts(5), aj.scale_by_rates("eta")),
        "Current(eta=0.5, rate=0.5, t_cur=2, period=5, cycle=0)",
    ),
}


@pytest.mark.usefixtures("lenient")  # MultiSteps promotes
@pytest.mark.parametrize("name", CURRENT)
def test_current_prints_in_one_line_and_has_the_effective_rate(name):
    make, text = CURRENT[name]
    tx = make()
    _, state = steps(tx, tx.init(PARAMS), 2)
    now = aj.current(state)
    assert repr(now) == str(now) == text
    numbers = now.to_dict()
    assert list(numbers) == [part.split("=")[0] for part in text.removeprefix("Current(").split(", ")]
    assert all(type(value) in (int, float) for value in numbers.values())
    assert numbers == {name: float(value) for name, value in now._asdict().items() if value is not None}
    np.testing.assert_array_equal(jax.jit(lambda state: aj.current(state).rate)(state), now.rate)


def test_current_of_mapped_runs_and_of_a_traced_state():
    tx = aj.adamw(0.25, schedule=aj.cosine_warm_restarts(5))
    now = aj.current(jax.vmap(lambda w: tx.init({"w": w}))(jnp.ones((2, 2))))
    assert repr(now).startswith("Current(count=[0, 0], learning_rate=[0.25, 0.25], eta=[1, 1], rate=[0.25, 0.25]")
    assert now.to_dict()["rate"] == [0.25, 0.25]
    texts = []
    jax.jit(lambda state: texts.append(repr(aj.current(state))))(tx.init(PARAMS))
    assert texts[0].startswith("Current(count=int32[], learning_rate=float32[], eta=float32[]")


def test_optax_finds_the_rate_in_the_state():
    for tx in (aj.adamw(0.25), optax.chain(optax.clip(1.0), aj.sgdw(0.25)), optax.MultiSteps(aj.adamw(0.25), 2)):
        assert float(optax.tree.get(tx.init(PARAMS), "learning_rate")) == 0.25
    _, state = steps(tx := aj.adamw(optax.linear_schedule(1.0, 0.0, 4)), tx.init(PARAMS), 2)
    assert float(optax.tree.get(state, "learning_rate")) == 0.75
    # Injected, the rate is in the state twice, as optax's own injected schedules are.
    state = optax.inject_hyperparams(aj.adamw)(0.25).init(PARAMS)
    found = optax.tree.get_all_with_path(state, "learning_rate")
    assert [float(value) for _, value in found] == [0.25, 0.25]
