"""Another optimizer in the middle of a run: every pair of a catalogue goes on, or the error says why not."""

import itertools
import warnings

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import adamw_jax as aj

PARAMS = {
    "embed": jnp.ones((5, 4)),
    "dense": {"kernel": jnp.arange(1.0, 17.0).reshape(4, 4), "bias": jnp.ones(4)},
}
RESTARTS = aj.cosine_warm_restarts(10)
OPTIMIZERS = {
    "adamw": aj.adamw(0.1),
    "restarts": aj.adamw(0.1, schedule=RESTARTS),
    "packed": aj.adamw(0.1, moment_dtype="packed"),
    "amsgrad": aj.adamw(0.1, amsgrad=True),
    "nadamw": aj.nadamw(0.1),
    "sgdw": aj.sgdw(0.1),
    "sgdw bfloat16": aj.sgdw(0.1, moment_dtype="bfloat16"),
    "frozen": aj.adamw(0.1, freeze="embed"),
    "held": aj.adamw(0.1, hold_norm="dense/kernel"),
    "anchored": aj.adamw(0.1, weight_decay=0.01, decay="anchored"),
    "skip_spikes": aj.skip_spikes(aj.adamw(0.1)),
    "observe": aj.observe(aj.adamw(0.1)),
    "averaged": aj.with_average(aj.adamw(0.1), aj.Ema(3)),
    "averaged, narrow": aj.with_average(aj.adamw(0.1), aj.Ema(3), but="bias", store="bfloat16"),
}


def trained(name, updates=3):
    state = OPTIMIZERS[name].init(PARAMS)
    for _ in range(updates):
        _, state = OPTIMIZERS[name].update(PARAMS, state, PARAMS)
    return state


@pytest.fixture(scope="module")
def states():
    return {name: trained(name) for name in OPTIMIZERS}


@pytest.mark.parametrize("old", OPTIMIZERS)
def test_every_optimizer_goes_on_after_every_other(old, states):
    for new in OPTIMIZERS:
        done = aj.intervene(states[old], OPTIMIZERS[old], OPTIMIZERS[new], PARAMS)
        update = OPTIMIZERS[new].update
        updates, after = jax.eval_shape(update, PARAMS, done.state, PARAMS)
        chex.assert_trees_all_equal_shapes_and_dtypes((updates, after), (PARAMS, done.state))
        assert int(aj.current(done.state).count) == 3, new
        if old == new:
            updates, after = update(PARAMS, done.state, PARAMS)
            chex.assert_tree_all_finite(updates)
            assert int(aj.current(after).count) == 4
            assert not done.changes
            assert done.notes == ()
            chex.assert_trees_all_equal(done.state, states[old])
            assert "nothing changed" in str(done)


def test_moments_are_converted_and_kept(states):
    done = aj.intervene(states["adamw"], OPTIMIZERS["adamw"], OPTIMIZERS["packed"], PARAMS)
    assert done.notes == ("moments at 'inner_state/0': stored as the new optimizer does",)
    for got, wanted in zip(aj.read_moments(done.state), aj.read_moments(states["adamw"]), strict=True):
        chex.assert_trees_all_close(got, wanted, rtol=2**-8)  # one rounding to bfloat16


def test_a_new_schedule_stands_at_the_updates_made(states):
    done = aj.intervene(states["adamw"], OPTIMIZERS["adamw"], OPTIMIZERS["restarts"], PARAMS)
    assert int(aj.current(done.state).t_cur) == 3
    assert done.notes[-1] == "the schedule stands where it is after 3 updates"


def test_a_decay_of_gates_in_the_middle_of_a_run_changes_them_alone():
    params = {"gate": jnp.ones(2), "w": jnp.ones((2, 2))}
    old = aj.adamw(0.1, weight_decay={"w": 1e-3})
    new = aj.adamw(0.1, weight_decay={"w": 1e-3, "gate": lambda count: jnp.where(count < 5, 0.0, 1e-3)})
    _, state = old.update(params, old.init(params), params)
    done = aj.intervene(state, old, new, params)
    assert {row["path"] for row in done.changes.rows} == {"gate"}
    assert done.notes == ()
    chex.assert_trees_all_equal(done.state, state)


def test_kinds_of_states_that_begin_anew_are_told(states):
    done = aj.intervene(states["adamw"], OPTIMIZERS["adamw"], OPTIMIZERS["observe"], PARAMS)
    assert done.notes == ("ObserveState begins anew, at 'count'",)
    assert str(done).splitlines()[-1] == done.notes[0]


def test_averages_are_taken_over_and_what_is_not_is_told(states):
    one, other = OPTIMIZERS["averaged"], OPTIMIZERS["averaged, narrow"]
    done = aj.intervene(states["averaged"], one, other, PARAMS)
    assert done.notes == ("EmaState at 'average/dense/kernel': stored as the new optimizer does",)
    done = aj.intervene(states["averaged, narrow"], other, one, PARAMS)
    assert done.notes[1:] == ("EmaState begins anew, at 'seen'",)
    done = aj.intervene(states["adamw"], OPTIMIZERS["adamw"], one, PARAMS)
    assert int(done.state.count) == 3


def test_a_chain_goes_on_after_itself_as_often_as_asked():
    tx = optax.chain(optax.clip_by_global_norm(1.0), aj.adamw(0.1, weight_decay=1e-3))
    state = tx.init(PARAMS)
    for _ in range(2):
        assert not aj.intervene(state, tx, tx, PARAMS).changes


def test_a_foreign_state_is_refused(states):
    for old, new in itertools.pairwise(("adamw", "sgdw", "packed")):
        with pytest.raises(ValueError, match="`state` must be what `init` makes"):
            aj.intervene(states[old], OPTIMIZERS[new], OPTIMIZERS[new], PARAMS)
    with pytest.raises(TypeError, match="must come from a preset"), warnings.catch_warnings():
        aj.intervene(states["adamw"], OPTIMIZERS["adamw"], optax.adam(0.1), PARAMS)


def test_what_one_average_holds_is_none_of_another_kinds(states):
    new = aj.with_average(aj.adamw(0.1), aj.DecayMerge("linear", updates=100))
    done = aj.intervene(states["averaged"], OPTIMIZERS["averaged"], new, PARAMS)
    assert done.notes == ("DecayMergeState begins anew, at 'count'",)
    assert (int(done.state.count), int(done.state.seen)) == (3, 0)
    with pytest.raises(ValueError, match="DecayMergeState at 'its top', got EmaState: carry_over"):
        new.update(PARAMS, states["averaged"], PARAMS)


def test_other_anchors_are_told():
    old, new = (
        aj.adamw(0.1, weight_decay=1e-3, decay=aj.Anchored(jax.tree.map(lambda p, n=n: n * p, PARAMS))) for n in (1, 2)
    )
    done = aj.intervene(old.init(PARAMS), old, new, PARAMS)
    assert [tuple(row.values()) for row in done.changes.rows] == [
        ("(all)", "form of the decay", "Anchored(3 arrays)", "Anchored(3 arrays)")
    ]
    assert done.notes == ("the anchors are those of the state: optax.tree.set(state, anchors=others) replaces them",)
