"""Laws that hold for every optimizer and every stage of the catalogue.

Building a program takes far longer than running it: laws about one program share it.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamw_jax
import tests.catalogue
from adamw_jax._tree.state import parameter_of
from benchmarks.collectives import collectives
from tests.catalogue import CATALOGUE, OPTIMIZERS, STORED
from tests.running import lenient, optimized_jit, quick_jit

# Two programs fuse multiplications with additions, and order sums, each in its own way: a few units in the last place
# of numbers near 1, over up to eight steps.
ROUNDING = {"rtol": 1e-5, "atol": 5e-7}


def make_params(dtype=jnp.float32):
    rng = np.random.RandomState(0)
    return {
        "body": {"kernel": jnp.asarray(rng.randn(8, 4), dtype), "bias": None},
        "head": [jnp.asarray(rng.randn(4), dtype), {"kernel": jnp.asarray(rng.randn(), dtype)}],
    }


def make_grads(params, step):
    rng = np.random.RandomState(100 + step)
    return jax.tree.map(lambda p: jnp.asarray(rng.randn(*p.shape), p.dtype), params)


STEPS = 8


class Run(NamedTuple):
    """What an optimizer's own program leaves: copies, for the program donates its arrays."""

    step: Callable
    early: tuple
    """Updates and state of the third step."""
    params: dict
    state: tuple


def step_of(tx):
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return updates, state, optax.apply_updates(params, updates)

    return step


def run(step, tx, steps=STEPS):
    """Return parameters and state after these steps, and what the third one returned."""
    params = make_params()
    grads, state = [make_grads(params, k) for k in range(steps)], tx.init(params)
    for k in range(steps):
        updates, state, params = step(grads[k], state, params)
        if k == 2:
            early = jax.tree.map(np.array, (updates, state))
    return Run(step, early, params, state)


@functools.cache
def alone(name):
    """One program of each entry, as users run it: optimized, and given the state's and the parameters' memory."""
    tx = CATALOGUE[name]()
    return run(optimized_jit(step_of(tx), donate_argnums=(1, 2)), tx)


def buffers(tree):
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]


@pytest.mark.parametrize("name", CATALOGUE)
def test_jit_is_eager_and_compiles_once(name):
    tx = CATALOGUE[name]()
    eager = run(step_of(tx), tx, steps=3)
    # An average of the parameters, stored narrow, is rounded by chance: a last digit may decide about a spacing.
    rounding = {"rtol": 2**-7, "atol": 2**-7} if name == "with_average narrow" else ROUNDING
    chex.assert_trees_all_close(eager.early, alone(name).early, **rounding)
    assert alone(name).step._cache_size() == 1


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_buffer_of_a_fresh_state_is_its_own_and_can_be_given_away(name):
    tx = CATALOGUE[name]()
    for init in (tx.init, jax.jit(tx.init)):
        params = make_params()
        state = init(params)
        everything = buffers(state) + buffers(params)
        assert len(set(everything)) == len(everything)
        alone(name).step(make_grads(params, 0), state, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_an_update_keeps_structure_shapes_and_dtypes(name, dtype):
    """Tracing tells them all, and that the next update is the same program: no type is weak, none has changed."""
    tx, params = CATALOGUE[name](), make_params(dtype)
    state, grads = tx.init(params), make_grads(params, 0)
    updates, new_state = jax.eval_shape(tx.update, grads, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)
    assert all(not leaf.weak_type for leaf in jax.tree.leaves((state, new_state)))


@pytest.mark.parametrize("name", CATALOGUE)
def test_state_holds_scalars_and_trees_like_the_parameters(name):
    params = make_params()
    leaves = dict(jax.tree.leaves_with_path(params))
    for path, leaf in jax.tree.leaves_with_path(CATALOGUE[name]().init(params)):
        owner = parameter_of(path, leaves)
        # Held norms are one per matrix, row or column of a leaf.
        is_like_params = owner is not None and leaf.shape == leaves[owner].shape
        assert leaf.shape == () or is_like_params or ".norms" in jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", CATALOGUE)
def test_scan_is_the_loop(name):
    tx, params = CATALOGUE[name](), make_params()
    grads = [make_grads(params, k) for k in range(STEPS)]

    def body(carry, g):
        p, state = carry
        updates, state = tx.update(g, state, p)
        return (optax.apply_updates(p, updates), state), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    scanned, _ = quick_jit(lambda start, gs: jax.lax.scan(body, start, gs))((params, tx.init(params)), stacked)
    chex.assert_trees_all_close(scanned, (alone(name).params, alone(name).state), **ROUNDING)


@pytest.mark.parametrize("name", CATALOGUE)
def test_vmap_is_the_loop(name):
    tx, params = CATALOGUE[name](), make_params()
    grads = [make_grads(params, k) for k in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)

    def one(g):
        return tx.update(g, tx.init(params), params)

    def once(g):
        return alone(name).step(g, tx.init(params), make_params())[:2]

    together = quick_jit(jax.vmap(one))(batch)
    apart = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[once(g) for g in grads])
    chex.assert_trees_all_close(together, apart, **ROUNDING)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_update_keeps_shardings(name):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    def place(tree):
        return jax.tree.map(lambda p: jax.device_put(p, split if p.shape[:1] == (8,) else replicated), tree)

    tx, params = CATALOGUE[name](), place(make_params())
    state, grads = place(tx.init(params)), place(make_grads(params, 0))
    program = quick_jit(tx.update).lower(grads, state, params).compile()
    updates, new_state = program(grads, state, params)
    for before, after in zip(jax.tree.leaves((params, state)), jax.tree.leaves((updates, new_state)), strict=True):
        assert after.sharding.is_equivalent_to(before.sharding, before.ndim)
    # What is taken element by element asks no other device for anything.
    assert name not in OPTIMIZERS or collectives(program) == []


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("params", [{}, (), None, {"a": None}], ids=str)
def test_empty_trees(name, params):
    tx = CATALOGUE[name]()
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates == params


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1e9), tx),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, jax.tree.map(lambda _: True, make_params())),
    "MultiSteps": lambda tx: lenient(optax.MultiSteps(tx, 1).gradient_transformation()),
}


def nested(tx):
    return functools.reduce(lambda inner, wrap: wrap(inner), WRAPPERS.values(), tx)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [*((name, nested) for name in STORED), *(("adamw all options", wrap) for wrap in WRAPPERS.values())],
    ids=[*STORED, *WRAPPERS],
)
def test_optimizers_run_inside_optax_wrappers(name, wrap):
    """In all of them at once, and one optimizer in each."""
    tx = wrap(OPTIMIZERS[name]())
    wrapped = run(quick_jit(step_of(tx)), tx, steps=3)
    chex.assert_trees_all_close(wrapped.early[0], alone(name).early[0], **ROUNDING)


@pytest.mark.parametrize("name", STORED)
def test_apply_if_finite_freezes_moments_position_and_decay_together(name):
    params = make_params()
    tx = optax.apply_if_finite(OPTIMIZERS[name](), 5)
    step = quick_jit(tx.update)
    state, grads = tx.init(params), make_grads(params, 0)
    for k in range(3):
        _, state = step(make_grads(params, k), state, params)
    for bad in (np.nan, np.inf, -np.inf):
        # One element of one leaf is enough.
        spoilt = {**grads, "body": {**grads["body"], "kernel": grads["body"]["kernel"].at[1, 2].set(bad)}}
        updates, after = step(spoilt, state, params)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
        chex.assert_trees_all_equal(after.inner_state, state.inner_state)
        assert int(after.total_notfinite) == 1
        # And it goes on as if the spoilt gradient had never been.
        chex.assert_trees_all_equal(step(grads, after, params)[0], step(grads, state, params)[0])


@pytest.mark.parametrize("name", STORED)
def test_accumulated_gradients_move_state_once(name):
    params = make_params()
    tx = lenient(optax.MultiSteps(OPTIMIZERS[name](), 4).gradient_transformation())
    state = tx.init(params)
    step = quick_jit(tx.update)
    for k in range(4):
        updates, state = step(make_grads(params, 0), state, params)
        assert any(leaf.any() for leaf in jax.tree.leaves(updates)) == (k == 3)
    once = OPTIMIZERS[name]()
    expected, expected_state = once.update(make_grads(params, 0), once.init(params), params)
    # The running mean of four equal gradients rounds three times, and Adam's first step divides by its size.
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(state.inner_opt_state, expected_state, rtol=1e-5, atol=1e-7)


def test_every_public_transformation_is_in_the_catalogue():
    def makes_a_transformation(value):
        annotation = str(getattr(value, "__annotations__", {}).get("return", ""))
        return "GradientTransformation" in annotation or "Optimizer" in annotation

    public = {name for name in dir(adamw_jax) if makes_a_transformation(getattr(adamw_jax, name))}
    assert {"adamw", "sgdw", "scale_by_adam", "scale_by_rates"} <= public
    source = inspect.getsource(tests.catalogue)
    # What moves a state into the host's memory is no law's matter: its arrays are elsewhere, tests/test_host.py has it.
    assert {name for name in public if f"aj.{name}" not in source} == {"with_host_state"}
