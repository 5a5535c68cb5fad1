"""Laws under drawn trees, dtypes and values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import adamw_jax as aj
from adamw_jax._rules.values import resolve_rules
from tests.catalogue import RESTARTS

# The same examples in every run, and nothing written to disk.
FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=25)

SHAPES = [(), (3,), (2, 2), (0,), (1, 0, 2)]
EXTREMES = [0.0, -0.0, 1e-45, -1e-40, 1e-30, 1e-8, 1.0, -3.5, 1e8, -1e18, 3e38]


def leaves(dtypes=("float32", "bfloat16", "float16")):
    return st.tuples(st.sampled_from(SHAPES), st.sampled_from(dtypes))


def trees(leaf):
    empty = st.sampled_from([None, {}, [], ()])
    return st.recursive(
        leaf | empty,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=2).map(tuple)
            | st.dictionaries(st.sampled_from(["kernel", "bias", "head"]), inner, max_size=3)
        ),
        max_leaves=6,
    )


def is_leaf(node):
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], str)


def filled(tree, value):
    def fill(leaf):
        shape, dtype = leaf
        largest = float(jnp.finfo(dtype).max)
        return jnp.full(shape, min(max(value, -largest), largest), dtype)

    return jax.tree.map(fill, tree, is_leaf=is_leaf)


@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
@FIXED
@given(tree=trees(leaves()), g=st.sampled_from(EXTREMES), p=st.sampled_from(EXTREMES))
def test_any_tree_and_any_finite_value_keep_structure_and_dtypes(preset, tree, g, p):
    params, grads = filled(tree, p), filled(tree, g)
    tx = preset(0.1, weight_decay=0.01, schedule=RESTARTS, normalize_decay="cycle")
    state = tx.init(params)
    updates, new = tx.update(grads, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    for u, q in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        assert (u.shape, u.dtype) == (q.shape, q.dtype)
    assert [x.dtype for x in jax.tree.leaves(new)] == [x.dtype for x in jax.tree.leaves(state)]
    assert jax.tree.structure(new) == jax.tree.structure(state)


@FIXED
@given(tree=trees(leaves(("float64", "float32"))), g=st.sampled_from(EXTREMES))
def test_float64_stays_float64(tree, g):
    with jax.enable_x64(True):
        params = filled(tree, 1.0)
        tx = aj.adamw(0.1, weight_decay=0.01)
        updates, _ = tx.update(filled(tree, g), tx.init(params), params)
        assert [u.dtype for u in jax.tree.leaves(updates)] == [p.dtype for p in jax.tree.leaves(params)]


@pytest.mark.parametrize("moment_dtype", [None, "packed", "packed8", "bfloat16"])
@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
@FIXED
@given(p=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_without_gradient_and_decay_nothing_moves(preset, moment_dtype, p):
    params = jnp.asarray(p, jnp.float32)
    tx = preset(0.1, moment_dtype=moment_dtype)
    updates, _ = tx.update(jnp.zeros(4), tx.init(params), params)
    np.testing.assert_array_equal(updates, 0.0)


@FIXED
@given(scale=st.floats(1e-6, 1e6), g=st.lists(st.floats(0.5, 2.0), min_size=4, max_size=4))
def test_adams_direction_does_not_know_the_gradients_unit(scale, g):
    tx = aj.scale_by_adam(eps=1e-30)
    g = jnp.asarray(g, jnp.float32)
    state, scaled = tx.init(g), tx.init(g)
    for sign in (1.0, -0.5):
        u, state = tx.update(sign * g, state)
        v, scaled = tx.update(jnp.float32(scale) * (sign * g), scaled)
    # A dozen roundings of float32 on either side.
    np.testing.assert_allclose(u, v, rtol=2e-6)


@FIXED
@given(order=st.permutations(range(5)))
def test_leaves_do_not_know_each_other(order):
    """A tree in another order, or split in two, is updated as the whole is."""
    values = [jnp.linspace(-1, 1, n + 1) for n in range(5)]
    tx = aj.adamw(0.1, weight_decay=0.1, schedule=RESTARTS)

    def updated(params):
        grads = jax.tree.map(jnp.sin, params)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
        return updates

    whole = updated(values)
    shuffled = updated([values[i] for i in order])
    split = updated(values[:2]) + updated(values[2:])
    for i, u in enumerate(whole):
        np.testing.assert_array_equal(u, shuffled[order.index(i)])
        np.testing.assert_array_equal(u, split[i])


PATTERNS = ["kernel", "bias", "enc", "dec/kernel", "^dec", "norm$", "."]


@FIXED
@given(rules=st.dictionaries(st.sampled_from(PATTERNS), st.floats(0, 1), min_size=1, max_size=5))
def test_the_first_pattern_that_matches_wins(rules):
    params = {"enc": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}, "dec": {"kernel": jnp.ones(1)}, "norm": jnp.ones(1)}

    def matches(pattern, path):
        if pattern == ".":
            return True
        if pattern.startswith("^"):
            return path.startswith(pattern[1:])
        return path.endswith(pattern[:-1]) if pattern.endswith("$") else pattern in path

    paths = aj.leaf_paths(params)
    expected = [next((v for k, v in rules.items() if matches(k, path)), 7.0) for path in paths]
    assert resolve_rules("weight_decay", rules, params, lambda name, value: value, 7.0) == expected


@FIXED
@given(
    period=st.integers(1, 40),
    t_mult=st.sampled_from([1, 1.1, 1.2, 1.5, 2, 3]),
    warmup=st.integers(0, 10),
    endpoint=st.booleans(),
)
def test_the_closed_form_is_the_walk(period, t_mult, warmup, endpoint):
    schedule = aj.cosine_warm_restarts(period, t_mult=t_mult, warmup=warmup, endpoint=endpoint)
    t_cur, length, cycle = -warmup, period, 0
    positions = []
    for _ in range(120):
        positions.append((t_cur, length, cycle))
        t_cur += 1
        if t_cur == length:
            t_cur, length, cycle = 0, max(round(length * t_mult), 1), cycle + 1
    got = schedule.position(jnp.arange(120))
    np.testing.assert_array_equal(np.stack(got, axis=1), positions)
