"""Norms that are held, braked or moved by a least share: per matrix, row, column or leaf."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
import tests.reference_norms as twin
from tests.running import quick_jit

RULES = {"held": aj.Held("w"), "brake": aj.Brake("w", 0.25), "floor": aj.Floor("w", 0.02)}
NUMBERS = np.random.default_rng(0)


def normal(*shape, dtype=jnp.float32):
    return jnp.asarray(NUMBERS.normal(size=shape), dtype)


def train(tx, params, grads):
    """The parameters after each update, in one program."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return quick_jit(lambda params, grads: jax.lax.scan(step, (params, tx.init(params)), grads))(params, grads)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", RULES)
def test_a_stack_is_the_loop_over_its_matrices(name, dtype):
    whole = {"w": normal(3, 4, 6, dtype=dtype)}
    grads = {"w": normal(1000, 3, 4, 6, dtype=dtype)}
    apart = {f"w{i}": whole["w"][i] for i in range(3)}
    grads_apart = {f"w{i}": grads["w"][:, i] for i in range(3)}
    tx = aj.adamw(0.01, hold_norm=RULES[name], axes="sio")
    (_, state), together = train(tx, whole, grads)
    (_, states), alone = train(aj.adamw(0.01, hold_norm=RULES[name]), apart, grads_apart)
    for i in range(3):
        # Sums are in another order; what is rounded to bfloat16 has the same bits.
        np.testing.assert_allclose(
            together["w"][:, i].astype(jnp.float32), alone[f"w{i}"].astype(jnp.float32), rtol=0, atol=1e-6
        )
    if name == "held":
        norms, single = optax.tree.get(state, "norms"), optax.tree.get(states, "norms")
        np.testing.assert_allclose(norms["w"], [single[f"w{i}"] for i in range(3)], rtol=1e-6)


def test_held_norms_stay_for_a_thousand_updates():
    params, grads = {"w": normal(3, 4, 6)}, {"w": normal(1000, 3, 4, 6)}
    start = jnp.linalg.norm(params["w"], axis=(1, 2))
    _, along = train(aj.adamw(0.01, hold_norm="w", axes="sio"), params, grads)
    # A difference of parameters is rounded at each update, around a norm of 5.
    np.testing.assert_allclose(jnp.linalg.norm(along["w"], axis=(2, 3)), np.tile(start, (1000, 1)), rtol=2e-6)


@pytest.mark.parametrize(("per", "over"), [("matrix", (1, 2)), ("row", 2), ("column", 1), ("leaf", (0, 1, 2))])
def test_what_has_a_norm_of_its_own(per, over):
    params, grads = {"w": normal(3, 4, 6)}, {"w": normal(20, 3, 4, 6)}

    def norm(x):
        return jnp.sqrt(jnp.sum(x * x, axis=over))

    (_, state), along = train(aj.adamw(0.1, hold_norm=aj.Held("w", per), axes="sio"), params, grads)
    np.testing.assert_allclose(norm(along["w"][-1]), norm(params["w"]), rtol=2e-6)
    assert optax.tree.get(state, "norms")["w"].shape == norm(params["w"]).shape


@pytest.mark.parametrize("name", ["brake", "floor"])
def test_one_matrix_is_the_twin_s(name):
    params, grads = {"w": normal(4, 6)}, {"w": normal(50, 4, 6)}
    tx = aj.sgdw(0.01, momentum=0.0, hold_norm=RULES[name], weight_decay=0.01)
    _, along = train(tx, params, grads)
    theta = np.asarray(params["w"], np.float64)
    law = (
        functools.partial(twin.braked, outward=0.25) if name == "brake" else functools.partial(twin.floored, ratio=0.02)
    )
    for g, found in zip(grads["w"], along["w"], strict=True):
        theta = law(theta, 0.01 * np.asarray(g, np.float64) + 0.01 * theta)
        np.testing.assert_allclose(found, theta, rtol=0, atol=2e-6)


def test_a_brake_of_zero_lets_no_norm_grow_and_one_of_shrinking_is_none():
    params = {"w": normal(4, 6)}
    outward = {"w": -params["w"]}
    tx = aj.sgdw(0.5, momentum=0.0, hold_norm=aj.Brake("w", 0.0))
    updates, _ = tx.update(outward, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], 0.0, atol=1e-6)
    inward, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(inward["w"], -0.5 * params["w"], rtol=1e-6)


def test_a_step_of_zero_has_no_floor():
    params = {"w": normal(4, 6)}
    tx = aj.sgdw(0.5, hold_norm=RULES["floor"])
    updates, _ = tx.update({"w": jnp.zeros((4, 6))}, tx.init(params), params)
    assert not updates["w"].any()


def test_rules_in_a_sequence_are_decided_by_the_first():
    params = {"w": normal(4, 6), "v": normal(4, 6), "u": normal(4, 6), "bias": normal(6)}
    tx = aj.adamw(0.1, hold_norm=[aj.Brake("w", 0.5), aj.Held("w|v"), aj.Floor("u", 1e-3, per="row")])
    table = aj.explain(tx, params)
    assert {row["path"]: row["norm"] for row in table.rows} == {
        "bias": None,
        "u": "floor 0.001 per row",
        "v": "held per matrix",
        "w": "brake 0.5 per matrix",
    }
    assert "brake 0.5 per matrix" in str(table)
    assert sorted(optax.tree.get(tx.init(params), "norms")) == ["v"]
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_numbers_may_be_traced():
    params = {"w": normal(4, 6), "v": normal(4, 6)}

    def update(outward, ratio):
        tx = aj.adamw(0.1, hold_norm=[aj.Brake("w", outward), aj.Floor("v", ratio)])
        return tx.update(params, tx.init(params), params)[0]

    traced, plain = quick_jit(update)(0.5, 0.3), update(0.5, 0.3)
    for path in params:
        np.testing.assert_allclose(traced[path], plain[path], rtol=0, atol=1e-6)


def test_a_state_with_one_norm_for_a_stack_moves_over():
    """So version 0.2 held stacks: the norms of their matrices are taken as they are when the state moves."""
    params, moved = {"w": normal(3, 4, 6), "v": normal(4, 6)}, {"w": normal(3, 4, 6), "v": normal(4, 6)}
    former = aj.adamw(0.1, hold_norm=aj.Held("w|v", per="leaf"), axes={"w": "sio"})
    now = aj.adamw(0.1, hold_norm="w|v", axes={"w": "sio"})
    _, old = former.update(params, former.init(params), params)
    state = aj.carry_over(old, now.init(moved))
    norms = optax.tree.get(state, "norms")
    np.testing.assert_allclose(norms["w"], jnp.linalg.norm(moved["w"], axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(norms["v"], jnp.linalg.norm(params["v"]), rtol=1e-6)
    assert int(optax.tree.get(state, "mu")["w"].shape[0]) == 3
    now.update(params, state, moved)


BAD = [
    (lambda: aj.Held("w", per="head"), "`per` must be one of 'matrix', 'row', 'column', 'leaf', got 'head'"),
    (lambda: aj.Brake("w", 1.0), r"`outward` must be a finite number in \[0, 1\), got 1"),
    (lambda: aj.Floor("w", 0.0), r"`ratio` must be a finite number in \(0, inf\), got 0"),
    (lambda: init(aj.Held("w"), weight_decay=0.1), "`hold_norm` must not hold a leaf that decays, got a decay of"),
    (lambda: init(aj.Held("w"), proximal_l1=0.1), "`hold_norm` must not hold a leaf that decays, got a decay of"),
    (
        lambda: init(aj.Held("bias", per="row")),
        r"`per='row'` of `hold_norm` is for matrices, got the bias 'bias' of sh",
    ),
    (lambda: init(aj.Floor("bias", 0.1, per="column")), "`per='column'` of `hold_norm` is for matrices"),
    (lambda: init(aj.Held(lambda path, leaf: False)), "`hold_norm` must find a leaf, got Held"),
    (lambda: init([aj.Brake({"w": False, "bias": False, "stack": False})]), "`hold_norm` must find a leaf, got Brake"),
    (
        lambda: init("stack"),
        r"`hold_norm` must know which axes of 'stack' are inputs and outputs, got shape \(3, 2, 2\)",
    ),
    (lambda: init("zeros"), "every pattern of `hold_norm` must match a parameter path, got 'zeros'"),
    (
        lambda: init("stack", axes={"stack": "sio"}, last=0.0),
        "`hold_norm` must hold leaves that are not zero",
    ),
]


def init(norms, last=1.0, **options):
    stack = jnp.ones((3, 2, 2)).at[2].set(last)
    return aj.adamw(0.1, hold_norm=norms, **options).init({"w": jnp.ones((2, 2)), "bias": jnp.ones(2), "stack": stack})


@pytest.mark.parametrize(("mistake", "text"), BAD)
def test_bad_input_is_named(mistake, text):
    with pytest.raises(ValueError, match=text):
        mistake()
