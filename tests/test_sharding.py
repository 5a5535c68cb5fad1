"""Placement of the state: a rule on paths and shapes, created in place, no gather of a moment, one device's numbers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P

import adamw_jax
from adamw_jax import bytes_per_device, fsdp_shardings, init_sharded, placement_report, state_shardings
from benchmarks.collectives import collectives
from tests.catalogue import OPTIMIZERS, STORED
from tests.running import lenient

AXIS_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
MIN_SIZE = 32
"""So that all but the smallest of the small parameters below are split."""

COUPLED = {
    "clip": optax.chain(optax.clip_by_global_norm(1.0), adamw_jax.adamw(1e-2)),
    "inject": optax.inject_hyperparams(adamw_jax.adamw)(learning_rate=1e-2),
    "masked": lenient(
        optax.masked(optax.adamw(1e-2), {"head": True, "dense": {"kernel": True, "bias": False}, "odd": False})
    ),
    "partition": optax.partition(
        {"a": adamw_jax.adamw(1e-2), "b": adamw_jax.sgdw(1e-2)},
        {"head": "a", "dense": {"kernel": "b", "bias": "a"}, "odd": "b"},
    ),
    "multisteps": lenient(optax.MultiSteps(adamw_jax.adamw(1e-2), 2).gradient_transformation()),
    "factored": optax.adafactor(1e-2, min_dim_size_to_factor=8),
}
"""Optimizers inside wrappers, or whose elements meet."""

ALONE = {name: make() for name, make in OPTIMIZERS.items()} | {"optax.adamw": lenient(optax.adamw(1e-2))}
"""Optimizers in which no element needs another one."""

EVERYTHING = ALONE | COUPLED


def params(dtype=jnp.float32):
    shapes = {"head": (96, 40), "dense": {"kernel": (40, 64), "bias": (64,)}, "odd": (5, 7)}
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), dtype), shapes, is_leaf=lambda node: isinstance(node, tuple)
    )


def gradients(count):
    return jax.tree.map(lambda p: np.sin(np.asarray(p) * (count + 2)), params())


def abstract_mesh(shape=(8,), names=("data",)):
    # Which type the axes have by default depends on JAX's version.
    return AbstractMesh(shape, names, axis_types=(AxisType.Auto,) * len(names))


def make_mesh(kind="auto", shape=(8,), names=("data",)):
    return jax.make_mesh(shape, names, axis_types=(AXIS_TYPES[kind],) * len(names))


def compiled_step(tx, shardings=None):
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, out_shardings=shardings)


def specs(shardings):
    return jax.tree.map(lambda sharding: sharding.spec, shardings)


# The rule.

ZERO1 = [
    ((96, 40), P(), "data", P("data")),
    ((5, 40), P(), "data", P(None, "data")),
    ((5, 7), P(), "data", P()),
    ((4, 7), P(), "data", P()),  # smaller than MIN_SIZE
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
    mesh = abstract_mesh((4, 2), ("data", "model"))
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    kwargs = {"mesh": mesh, "axis": axis, "min_size": MIN_SIZE}
    assert state_shardings(optax.trace(0.9), leaf, mode="zero1", **kwargs).trace.spec == expected
    assert fsdp_shardings({"w": leaf}, **kwargs)["w"].spec == expected


@pytest.mark.parametrize("name", EVERYTHING)
def test_like_params_places_every_leaf_of_its_parameters_shape_as_the_parameter(name):
    mesh = abstract_mesh((4, 2), ("data", "model"))
    by_name = {"head": P("data"), "kernel": P("data", "model"), "bias": P("model"), "odd": P()}
    shapes = {path[-1].key: leaf.shape for path, leaf in jax.tree.leaves_with_path(params())}
    placed = jax.tree.map_with_path(
        lambda path, p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=NamedSharding(mesh, by_name[path[-1].key])),
        params(),
    )
    state = jax.eval_shape(EVERYTHING[name].init, params())

    def expected(path, leaf):
        owner = getattr(path[-1], "key", None)
        return by_name[owner] if leaf.shape == shapes.get(owner) else P()

    assert specs(state_shardings(EVERYTHING[name], placed, mesh=mesh)) == jax.tree.map_with_path(expected, state)
    replicated = state_shardings(EVERYTHING[name], placed, mesh=mesh, mode="replicated")
    assert specs(replicated) == jax.tree.map(lambda _: P(), state)


def test_parameters_of_one_shape_keep_their_own_placements():
    mesh = abstract_mesh((4, 2), ("data", "model"))

    def leaf(*spec):
        return jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=NamedSharding(mesh, P(*spec)))

    tree = {"a": leaf("data"), "b": {"a": leaf("model"), "c": [leaf()]}}
    mu = optax.tree.get(state_shardings(adamw_jax.adamw(1.0), tree, mesh=mesh), "mu")
    assert specs(mu) == {"a": P("data"), "b": {"a": P("model"), "c": [P()]}}


def test_zero1_leaves_statistics_smaller_than_their_parameter_whole():
    shardings = state_shardings(COUPLED["factored"], params(), mesh=abstract_mesh(), mode="zero1")
    assert set(jax.tree.leaves(specs(optax.tree.get(shardings, "v_row")))) == {P()}


def test_arguments_are_checked():
    mesh, other = make_mesh(), make_mesh(shape=(4, 2), names=("data", "model"))
    tx, tree = adamw_jax.adamw(1.0), {"a": {"w": jnp.ones(8)}}
    with pytest.raises(ValueError, match=r"`mode` must be one of .*'zero1'.*, got 'zero2'"):
        state_shardings(tx, tree, mesh=mesh, mode="zero2")
    with pytest.raises(ValueError, match=r"`axis` must be one of 'data', got 'fsdp'"):
        fsdp_shardings(tree, mesh=mesh, axis=("data", "fsdp"))
    with pytest.raises(ValueError, match=r"`min_size` must be an integer from 0 .*, got -1"):
        init_sharded(tx, tree, mesh=mesh, mode="zero1", min_size=-1)
    placed = jax.device_put(tree, NamedSharding(other, P("model")))
    with pytest.raises(ValueError, match=r"`mesh` .* got \{'data': 8\}, and 'a/w' is on \{'data': 4, 'model': 2\}"):
        state_shardings(tx, placed, mesh=mesh)


# Created in place.


@pytest.mark.parametrize("name", ["adamw all options", "sgdw", "masked", "multisteps", "factored"])
def test_init_sharded_is_init_placed_and_gathers_nothing(name):
    tx, mesh = EVERYTHING[name], make_mesh()
    placed = jax.device_put(params(), NamedSharding(mesh, P()))
    shardings = state_shardings(tx, placed, mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    state = init_sharded(tx, placed, mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    chex.assert_trees_all_equal(state, tx.init(params()))
    compiled = jax.jit(tx.init, out_shardings=shardings).lower(placed).compile()
    assert collectives(compiled) == []
    # The compiler's figure has the output tuple's table of pointers in it, 8 bytes a leaf.
    table = 8 * len(jax.tree.leaves(state))
    assert bytes_per_device(state) == compiled.memory_analysis().output_size_in_bytes - table


def test_bytes_per_device_are_those_a_device_holds():
    tx, mesh = adamw_jax.adamw(1e-2), make_mesh()
    state = init_sharded(tx, params(), mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    for device in range(8):
        held = sum(leaf.addressable_shards[device].data.nbytes for leaf in jax.tree.leaves(state))
        assert bytes_per_device(state) == held
    shardings = state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    assert bytes_per_device(jax.eval_shape(tx.init, params()), shardings) == held


def test_placement_report_counts_leaves_and_bytes():
    state = init_sharded(optax.trace(0.9), params(), mesh=make_mesh(), mode="zero1", min_size=MIN_SIZE)
    split, whole = (96 * 40 + 40 * 64 + 64) * 4, 5 * 7 * 4
    assert [line.split() for line in placement_report(state).splitlines()[1:]] == [
        ["data", "3", str(split), str(split // 8)],
        ["whole", "1", str(whole), str(whole)],
        ["total", "4", str(split + whole), str(split // 8 + whole)],
    ]


# Training steps.


def train(name, mode, axis_type, steps=5):
    """Train on eight devices, and check after every step that the state is still of the type and where it was.

    The steps run one compiled program, which takes arguments of exactly the placements it was compiled for.
    """
    tx, mesh = EVERYTHING[name], make_mesh(axis_type)
    whole = NamedSharding(mesh, P())
    placement = fsdp_shardings(params(), mesh=mesh, min_size=MIN_SIZE) if mode == "like_params" else whole
    parameters = jax.device_put(params(), placement)
    shardings = state_shardings(tx, parameters, mesh=mesh, mode=mode, min_size=MIN_SIZE)
    state = init_sharded(tx, parameters, mesh=mesh, mode=mode, min_size=MIN_SIZE)
    types = jax.tree.map(jax.typeof, state)
    compiled = compiled_step(tx, (placement, shardings)).lower(parameters, state, parameters).compile()
    for count in range(steps):
        parameters, state = compiled(parameters, state, jax.device_put(gradients(count), placement))
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
        assert jax.tree.map(jax.typeof, state) == types
    return parameters, state, collectives(compiled)


@functools.cache
def train_alone(name, steps=5):
    parameters, state, step = params(), EVERYTHING[name].init(params()), compiled_step(EVERYTHING[name])
    for count in range(steps):
        parameters, state = step(parameters, state, gradients(count))
    return parameters, state


def assert_same_run(placed, alone):
    # Loops over shards are vectorized otherwise than loops over whole leaves, and where a multiply-add is fused differs
    # with that: float32's rounding of values near 1, a few times over.
    chex.assert_trees_all_close(placed, alone, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "axis_type"), [(name, "auto") for name in STORED] + [("adamw all options", "explicit")]
)
def test_zero1_gathers_the_new_parameters_and_nothing_else(name, axis_type):
    _, _, found = train(name, "zero1", axis_type, steps=2)
    # Three parameters are split, and the new value of each is gathered once. The moments have the same shapes: were one
    # of them gathered, there would be a fourth.
    assert {each.kind for each in found} == {"all-gather"}
    assert sorted(each.shape for each in found) == [(40, 64), (64,), (96, 40)]


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
@pytest.mark.parametrize("name", ["adamw all options", "nadamw"])
def test_zero1_gives_the_numbers_of_one_device(name, axis_type):
    parameters, state, _ = train(name, "zero1", axis_type)
    assert_same_run((parameters, state), train_alone(name))


@pytest.mark.parametrize(
    ("name", "axis_type"),
    [("adamw all options", "auto"), ("adamw amsgrad", "explicit"), ("nadamw", "explicit"), ("sgdw", "explicit")],
)
def test_state_like_split_parameters_needs_no_collective(name, axis_type):
    parameters, state, found = train(name, "like_params", axis_type)
    assert found == []
    assert_same_run((parameters, state), train_alone(name))


@pytest.mark.parametrize(
    ("name", "mode", "axis_type"),
    [(name, "zero1", "explicit") for name in COUPLED]
    + [("clip", "like_params", "auto"), ("factored", "like_params", "auto"), ("partition", "zero1", "auto")],
)
def test_wrapped_optimizers_keep_their_placement_and_gather_no_moment(name, mode, axis_type):
    parameters, state, found = train(name, mode, axis_type)
    gathered = [each.shape for each in found if each.kind == "all-gather" and each.shape in {(96, 40), (40, 64), (64,)}]
    assert len(gathered) <= (3 if mode == "zero1" else 0)
    assert_same_run((parameters, state), train_alone(name))


@pytest.mark.parametrize(("mode", "axis_type"), [("zero1", "auto"), ("zero1", "explicit"), ("like_params", "auto")])
def test_packed_moments_are_those_of_one_device_bit_for_bit(mode, axis_type, monkeypatch):
    # Dyadic gradients and decays of few bits: no product or sum of the moments needs more than float32's 24 bits, so
    # fused or not, split or not, the numbers to be rounded are the same. What is left is the rounding's noise.
    dyadic = adamw_jax.adamw(0.01, b1=0.5, b2=0.75, moment_dtype="packed")
    monkeypatch.setitem(EVERYTHING, "packed dyadic", dyadic)
    monkeypatch.setitem(globals(), "gradients", lambda _: jax.tree.map(lambda p: np.round(8 * p) / 8, params()))
    _, state, _ = train("packed dyadic", mode, axis_type, steps=3)
    _, alone = train_alone("packed dyadic", steps=3)
    chex.assert_trees_all_equal(optax.tree.get(state, "moments"), optax.tree.get(alone, "moments"))


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
def test_split_parameters_need_no_out_shardings_to_compile_once(axis_type):
    tx, mesh = ALONE["adamw all options"], make_mesh(axis_type)
    placement = fsdp_shardings(params(), mesh=mesh, min_size=MIN_SIZE)
    parameters = jax.device_put(params(), placement)
    state = init_sharded(tx, parameters, mesh=mesh)
    step = compiled_step(tx)
    for count in range(3):
        parameters, state = step(parameters, state, jax.device_put(gradients(count), placement))
    assert step._cache_size() == 1
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == state_shardings(tx, parameters, mesh=mesh)


def test_zero1_gathers_in_the_parameters_dtype():
    # float16 and not bfloat16: the CPU's compiler widens every bfloat16 collective to float32.
    tx, mesh = adamw_jax.adamw(1e-2, weight_decay=1e-2), make_mesh()
    parameters = jax.device_put(params(jnp.float16), NamedSharding(mesh, P()))
    state = init_sharded(tx, parameters, mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    assert {leaf.dtype for leaf in jax.tree.leaves(optax.tree.get(state, "mu"))} == {jnp.dtype(jnp.float32)}
    shardings = state_shardings(tx, parameters, mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    step = compiled_step(tx, (NamedSharding(mesh, P()), shardings))
    found = collectives(step.lower(parameters, state, parameters).compile())
    assert {each.dtype for each in found} == {"f16"}
    assert sum(each.bytes for each in found) == 2 * (96 * 40 + 40 * 64 + 64)


def test_explicit_axes_take_split_gradients_into_a_branch():
    mesh = make_mesh("explicit")
    tx = optax.apply_if_finite(adamw_jax.adamw(1e-2), 3)
    split = fsdp_shardings(params(), mesh=mesh, min_size=MIN_SIZE)
    shardings = state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=MIN_SIZE)

    def step(params, state, gradients):
        gradients = jax.sharding.reshard(gradients, split)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, out_shardings=(NamedSharding(mesh, P()), shardings))
    parameters = jax.device_put(params(), NamedSharding(mesh, P()))
    state = init_sharded(tx, parameters, mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    bad = jax.tree.map(lambda g: np.full_like(g, np.nan), gradients(0))
    after, skipped = step(parameters, state, jax.device_put(bad, NamedSharding(mesh, P())))
    chex.assert_trees_all_equal(after, params())
    assert jax.tree.map(lambda leaf: leaf.sharding, skipped) == shardings


# Inside shard_map.


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
def test_the_specs_are_those_of_a_shard_map(axis_type):
    tx, mesh = ALONE["nadamw all options"], make_mesh(axis_type, (4, 2), ("data", "model"))
    split = specs(fsdp_shardings(params(), mesh=mesh, min_size=MIN_SIZE))
    shardings = state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=MIN_SIZE)

    def update(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    # Manual over "data" alone: "model" stays with the compiler.
    mapped = jax.shard_map(
        update,
        mesh=mesh,
        in_specs=(split, specs(shardings), split),
        out_specs=(split, specs(shardings)),
        axis_names={"data"},
    )
    # Explicit axes take what is placed as the specs say; with Auto ones the compiler sees to it.
    whole = NamedSharding(mesh, P())
    placed = whole if axis_type == "auto" else fsdp_shardings(params(), mesh=mesh, min_size=MIN_SIZE)
    step = jax.jit(mapped, out_shardings=(whole, shardings))
    parameters = jax.device_put(params(), whole)
    state = init_sharded(tx, parameters, mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    for count in range(5):
        parameters, state = step(jax.device_put(parameters, placed), state, jax.device_put(gradients(count), placed))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    assert_same_run((parameters, state), train_alone("nadamw all options"))


def test_a_manual_training_step_scatters_gradients_and_gathers_parameters():
    tx, mesh = ALONE["adamw all options"], make_mesh()
    split = specs(fsdp_shardings(params(), mesh=mesh, min_size=MIN_SIZE))
    state_specs = specs(state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=MIN_SIZE))

    def own_part(p, g, spec):
        """The device's part of a replicated parameter, and of the sum of the devices' gradients."""
        if spec == P():
            return p, jax.lax.psum(g, "data")
        dim, part = spec.index("data"), p.shape[spec.index("data")] // 8
        mine = jax.lax.dynamic_slice_in_dim(p, jax.lax.axis_index("data") * part, part, dim)
        return mine, jax.lax.psum_scatter(g, "data", scatter_dimension=dim, tiled=True)

    def step(params, state, scale):
        gradients = jax.tree.map(lambda p: jnp.sin(p) * scale[0] / 36, params)  # the scales 1 .. 8 add up to 36
        pairs = jax.tree.map(own_part, params, gradients, split)
        mine, summed = (jax.tree.map(lambda _, pair, i=i: pair[i], params, pairs) for i in (0, 1))
        updates, state = tx.update(summed, state, mine)
        return optax.apply_updates(mine, updates), state

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), state_specs, P("data")), out_specs=(split, state_specs), check_vma=False
    )
    step_placed = jax.jit(mapped)
    state = init_sharded(tx, params(), mesh=mesh, mode="zero1", min_size=MIN_SIZE)
    parameters, state = step_placed(params(), state, jnp.arange(1.0, 9.0))
    alone = compiled_step(tx)(params(), tx.init(params()), jax.tree.map(jnp.sin, params()))
    assert_same_run((parameters, state), alone)


# A real model's shapes.


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
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), tree, is_leaf=lambda node: isinstance(node, tuple)
    )


@pytest.mark.parametrize("name", ["adamw", "adamw amsgrad", "nadamw", "sgdw", "optax.adamw"])
def test_zero1_holds_an_eighth_of_gpt2(name):
    tx = ALONE[name]
    mesh, shapes = abstract_mesh(), gpt2_shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 124_439_808
    state = jax.eval_shape(tx.init, shapes)
    whole = bytes_per_device(state, state_shardings(tx, shapes, mesh=mesh, mode="replicated"))
    split = bytes_per_device(state, state_shardings(tx, shapes, mesh=mesh, mode="zero1"))
    assert split <= (1 / 8 + 0.01) * whole
