"""Placement of the state: one rule on shapes, whole mesh, no gather of a moment, results of one device."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P

from adamw_jax.sharding import bytes_per_device, fsdp_shardings, init_sharded, placement_report, state_shardings
from benchmarks.collectives import bytes_by_kind, collectives

MODES = ("like_params", "zero1", "replicated")
AXIS_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}

CATALOGUE = {
    "adamw": optax.adamw(1e-2),
    "amsgrad": optax.amsgrad(1e-2),
    "nadamw": optax.nadamw(1e-2),
    "momentum": optax.sgd(1e-2, momentum=0.9),
}
WRAPPED = {
    "schedule": optax.adamw(optax.cosine_decay_schedule(1e-2, 100)),
    "clip": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
    "inject": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2),
    "finite": optax.apply_if_finite(optax.adamw(1e-2), 3),
    "masked": optax.masked(optax.adamw(1e-2), {"embed": True, "dense": {"kernel": True, "bias": False}, "odd": False}),
    "partition": optax.partition(
        {"a": optax.adamw(1e-2), "b": optax.sgd(1e-2, momentum=0.9)},
        {"embed": "a", "dense": {"kernel": "b", "bias": "a"}, "odd": "b"},
    ),
    "multisteps": optax.MultiSteps(optax.adamw(1e-2), 2).gradient_transformation(),
    "factored": optax.adafactor(1e-2, min_dim_size_to_factor=8),
}


def params(dtype=jnp.float32):
    shapes = {"embed": (96, 40), "dense": {"kernel": (40, 64), "bias": (64,)}, "odd": (5, 7)}
    leaves, treedef = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return treedef.unflatten([jax.random.normal(k, s, dtype) for k, s in zip(keys, leaves, strict=True)])


def gradients(step, dtype=jnp.float32):
    return jax.tree.map(lambda p: jnp.sin(p.astype(jnp.float32) * (step + 2)).astype(dtype), params())


def make_mesh(kind="auto", shape=(8,), names=("data",)):
    return jax.make_mesh(shape, names, axis_types=(AXIS_TYPES[kind],) * len(names))


def place(tree, mesh, spec=P()):
    return jax.device_put(tree, NamedSharding(mesh, spec))


def compiled_step(tx, shardings=None):
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, out_shardings=shardings)


def specs(shardings):
    return jax.tree.map(lambda s: s.spec, shardings)


# The rule on shapes.

ZERO1 = [
    ((96, 40), P(), "data", P("data")),
    ((5, 40), P(), "data", P(None, "data")),
    ((5, 7), P(), "data", P()),
    ((4, 4), P(), "data", P()),  # below min_size = 32 elements
    ((96, 40), P("model"), "data", P("model", "data")),
    ((96, 40), P(None, "model"), "data", P("data", "model")),
    ((96, 40), P("data"), "data", P("data")),
    ((96, 40), P(), ("data", "model"), P(("data", "model"))),
    ((96, 40), P("model"), ("data", "model"), P("model", "data")),
    ((5, 40), P(None, ("data", "model")), ("data", "model"), P(None, ("data", "model"))),
    ((2, 6, 4, 4), P(), "data", P(None, None, "data")),
    ((), P(), "data", P()),
]


@pytest.mark.parametrize(("shape", "spec", "axis", "expected"), ZERO1, ids=str)
def test_zero1_splits_the_first_whole_divisible_dimension(shape, spec, axis, expected):
    mesh = AbstractMesh((4, 2), ("data", "model"))
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    kwargs = {"mesh": mesh, "axis": axis, "min_size": 32}
    assert state_shardings(optax.trace(0.9), leaf, mode="zero1", **kwargs).trace.spec == expected
    assert fsdp_shardings({"w": leaf}, **kwargs)["w"].spec == expected


@pytest.mark.parametrize("name", [*CATALOGUE, *WRAPPED])
def test_like_params_places_every_leaf_of_a_parameters_shape_as_the_parameter(name):
    tx = (CATALOGUE | WRAPPED)[name]
    mesh = make_mesh(shape=(4, 2), names=("data", "model"))
    placement = {"embed": P("data"), "dense": {"kernel": P("data", "model"), "bias": P("model")}, "odd": P()}
    placed = jax.tree.map(lambda p, spec: place(p, mesh, spec), params(), placement)
    by_shape = dict(zip((p.shape for p in jax.tree.leaves(placed)), jax.tree.leaves(placement), strict=True))
    state = jax.eval_shape(tx.init, params())
    expected = jax.tree.map(lambda leaf: by_shape.get(leaf.shape, P()), state)
    assert specs(state_shardings(tx, placed, mesh=mesh)) == expected
    replicated = state_shardings(tx, placed, mesh=mesh, mode="replicated")
    assert specs(replicated) == jax.tree.map(lambda _: P(), state)


def test_parameters_of_one_shape_keep_their_own_placements():
    mesh = make_mesh(shape=(4, 2), names=("data", "model"))
    same = jnp.ones((8, 8))
    tree = {"a": place(same, mesh, P("data")), "b": {"a": place(same, mesh, P("model")), "c": [place(same, mesh)]}}
    mu = state_shardings(optax.adamw(1.0), tree, mesh=mesh)[0].mu
    assert specs(mu) == {"a": P("data"), "b": {"a": P("model"), "c": [P()]}}


def test_arguments_are_checked():
    mesh, other = make_mesh(), make_mesh(shape=(4, 2), names=("data", "model"))
    tx, tree = optax.adamw(1.0), {"a": {"w": jnp.ones(8)}}
    with pytest.raises(ValueError, match=r"mode must be one of .*'zero1'.*, got 'zero2'"):
        state_shardings(tx, tree, mesh=mesh, mode="zero2")
    with pytest.raises(ValueError, match=r"axis must name axes of the mesh, \('data',\), got 'fsdp'"):
        state_shardings(tx, tree, mesh=mesh, axis=("data", "fsdp"))
    with pytest.raises(ValueError, match=r"mesh .* got \{'data': 8\}, but a/w is on \{'data': 4, 'model': 2\}"):
        state_shardings(tx, place(tree, other), mesh=mesh)


# Created in place.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*CATALOGUE, *WRAPPED])
def test_init_sharded_is_init_placed(name, mode):
    tx, mesh = (CATALOGUE | WRAPPED)[name], make_mesh()
    placed = place(params(), mesh)
    shardings = state_shardings(tx, placed, mesh=mesh, mode=mode, min_size=32)
    state = init_sharded(tx, placed, mesh=mesh, mode=mode, min_size=32)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    chex.assert_trees_all_equal(state, tx.init(params()))
    compiled = jax.jit(tx.init, out_shardings=shardings).lower(placed).compile()
    assert collectives(compiled) == []


def test_bytes_per_device_are_the_bytes_that_the_compiler_allots():
    tx, mesh = optax.adamw(1e-2), make_mesh()
    shapes = jax.eval_shape(tx.init, params())
    shardings = state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=32)
    compiled = jax.jit(tx.init, out_shardings=shardings).lower(params()).compile()
    leaves = len(jax.tree.leaves(shapes))
    # The allotment counts the output tuple's table of pointers too, 8 bytes a leaf.
    assert bytes_per_device(shapes, shardings) == compiled.memory_analysis().output_size_in_bytes - 8 * leaves
    state = init_sharded(tx, params(), mesh=mesh, mode="zero1", min_size=32)
    assert bytes_per_device(state) == bytes_per_device(shapes, shardings)
    held = sum(shard.data.nbytes for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards[:1])
    assert bytes_per_device(state) == held


def test_placement_report_counts_leaves_and_bytes():
    state = init_sharded(optax.trace(0.9), params(), mesh=make_mesh(), mode="zero1", min_size=32)
    lines = [line.split() for line in placement_report(state).splitlines()]
    split, whole = (96 * 40 + 40 * 64 + 64) * 4, 5 * 7 * 4
    assert lines[1:] == [
        ["P('data',)", "3", str(split), str(split // 8)],
        ["P()", "1", str(whole), str(whole)],
        ["total", "4", str(split + whole), str(split // 8 + whole)],
    ]


# Stable under updates.


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
@pytest.mark.parametrize("mode", ["fsdp", "zero1"])
@pytest.mark.parametrize("name", [*CATALOGUE, *WRAPPED])
def test_an_update_keeps_type_and_placement_and_compiles_once(name, mode, axis_type):
    tx, mesh = (CATALOGUE | WRAPPED)[name], make_mesh(axis_type)
    placement = fsdp_shardings(params(), mesh=mesh, min_size=32) if mode == "fsdp" else NamedSharding(mesh, P())
    parameters = jax.device_put(params(), placement)
    state_mode = "zero1" if mode == "zero1" else "like_params"
    shardings = state_shardings(tx, parameters, mesh=mesh, mode=state_mode, min_size=32)
    state = init_sharded(tx, parameters, mesh=mesh, mode=state_mode, min_size=32)
    types = jax.tree.map(jax.typeof, state)
    step = compiled_step(tx, (placement, shardings))
    for count in range(3):
        gradient = jax.device_put(gradients(count), placement)
        parameters, state = step(parameters, state, gradient)
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
        assert jax.tree.map(jax.typeof, state) == types
    assert step._cache_size() == 1


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
@pytest.mark.parametrize("name", CATALOGUE)
def test_fsdp_needs_no_out_shardings_to_compile_once(name, axis_type):
    tx, mesh = CATALOGUE[name], make_mesh(axis_type)
    parameters = jax.device_put(params(), fsdp_shardings(params(), mesh=mesh, min_size=32))
    state = init_sharded(tx, parameters, mesh=mesh)
    gradient = parameters
    step = compiled_step(tx)
    for _ in range(3):
        parameters, state = step(parameters, state, gradient)
    assert step._cache_size() == 1
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == state_shardings(tx, parameters, mesh=mesh)


# ZeRO-1 costs the parameters' gather, and nothing else.


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
@pytest.mark.parametrize("name", CATALOGUE)
def test_zero1_gathers_the_new_parameters_and_no_moment(name, axis_type):
    tx, mesh = CATALOGUE[name], make_mesh(axis_type)
    parameters = place(params(), mesh)
    shardings = state_shardings(tx, parameters, mesh=mesh, mode="zero1", min_size=32)
    state = init_sharded(tx, parameters, mesh=mesh, mode="zero1", min_size=32)
    step = compiled_step(tx, (NamedSharding(mesh, P()), shardings))
    found = collectives(step.lower(parameters, state, parameters).compile())
    # Three parameters are split: each one's new value is gathered once. Mu and nu have the same shapes; were one
    # gathered, there would be more than three.
    assert {c.kind for c in found} == {"all-gather"}
    assert sorted(c.shape for c in found) == [(40, 64), (64,), (96, 40)]


def test_zero1_gathers_in_the_parameters_dtype():
    tx, mesh = optax.adamw(1e-2, mu_dtype=jnp.float32), make_mesh()
    parameters = place(params(jnp.bfloat16), mesh)
    shardings = state_shardings(tx, parameters, mesh=mesh, mode="zero1", min_size=32)
    step = compiled_step(tx, (NamedSharding(mesh, P()), shardings))
    compiled = step.lower(parameters, init_sharded(tx, parameters, mesh=mesh, mode="zero1", min_size=32), parameters)
    found = collectives(compiled.compile())
    assert {c.dtype for c in found} == {"bf16"}


def gpt2_shapes(vocabulary=50257, width=768, layers=12, context=1024):
    def dense(*shape):
        return {"kernel": shape, "bias": shape[-1:]}

    norm = {"scale": (width,), "bias": (width,)}
    block = {
        "attention": {"qkv": dense(width, 3 * width), "out": dense(width, width)},
        "mlp": {"up": dense(width, 4 * width), "down": dense(4 * width, width)},
        "norm_1": norm,
        "norm_2": norm,
    }
    tree = {"tokens": (vocabulary, width), "positions": (context, width), "norm": norm}
    tree |= {f"block_{i}": block for i in range(layers)}
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), tree, is_leaf=lambda x: isinstance(x, tuple))


@pytest.mark.parametrize("name", CATALOGUE)
def test_zero1_holds_an_eighth_of_gpt2(name):
    tx, mesh, shapes = CATALOGUE[name], make_mesh(), gpt2_shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 124_439_808
    state = jax.eval_shape(tx.init, shapes)
    whole = bytes_per_device(state, state_shardings(tx, shapes, mesh=mesh, mode="replicated"))
    split = bytes_per_device(state, state_shardings(tx, shapes, mesh=mesh, mode="zero1"))
    assert split <= (1 / 8 + 0.01) * whole


# The numbers of one device.


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
@pytest.mark.parametrize("mode", ["fsdp", *MODES])
@pytest.mark.parametrize("name", CATALOGUE)
def test_placed_updates_are_those_of_one_device(name, mode, axis_type):
    tx, mesh = CATALOGUE[name], make_mesh(axis_type)
    alone, alone_state, alone_step = params(), tx.init(params()), compiled_step(tx)
    placement = fsdp_shardings(params(), mesh=mesh, min_size=32) if mode == "fsdp" else NamedSharding(mesh, P())
    parameters = jax.device_put(params(), placement)
    kwargs = {"mesh": mesh, "mode": "like_params" if mode == "fsdp" else mode, "min_size": 32}
    state = init_sharded(tx, parameters, **kwargs)
    step = compiled_step(tx, (placement, state_shardings(tx, parameters, **kwargs)))
    for count in range(5):
        alone, alone_state = alone_step(alone, alone_state, gradients(count))
        parameters, state = step(parameters, state, jax.device_put(gradients(count), placement))
    chex.assert_trees_all_equal((parameters, state), (alone, alone_state))
