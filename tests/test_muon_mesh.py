"""Muon on meshes: the numbers of one device, the parameters' placement, and no more exchanged than the formula says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import adamw_jax as aj
from benchmarks.collectives import bytes_by_kind, collectives
from tests.running import quick_jit

MESHES = {"data": ((8,), ("data",)), "data, model": ((4, 2), ("data", "model"))}
SPLITS = {
    "inputs": ("data", None),
    "outputs": (None, "data"),
    "both": ("data", "model"),
    "inputs over all": (("data", "model"), None),
    "replicated": (None, None),
    "stack": "data",
}


def mesh_of(name, kind):
    shape, axes = MESHES[name]
    axis_type = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    return jax.make_mesh(shape, axes, axis_types=(axis_type,) * len(axes))


def tree(count, lie, seed=0):
    """`count` matrices and as many kernels of attention, in a stack or apart, with axes for each."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (16, 32), "query/kernel": (16, 8, 4)}
    if lie == "stack":
        shapes = {name: (count, *shape) for name, shape in shapes.items()}
    else:
        shapes = {f"{k}/{name}": shape for k in range(count) for name, shape in shapes.items()}
    pre = "s" if lie == "stack" else ""
    return (
        {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in shapes.items()},
        {"query/kernel": f"{pre}ioo", "w": f"{pre}io"},
    )


def placed(params, mesh, split, lie):
    if SPLITS[split] == "data":
        return {path: NamedSharding(mesh, P("data")) for path in params}
    spec = P(*((None,) if lie == "stack" else ()), *SPLITS[split])
    return {path: NamedSharding(mesh, spec) for path in params}


def update_of(tx, kind, shardings):
    def update(g):
        return tx.update(g, optax.EmptyState())[0]

    if kind != "shard_map":
        return update
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings)
    mesh = jax.tree.leaves(shardings)[0].mesh
    return jax.shard_map(update, mesh=mesh, in_specs=(specs,), out_specs=specs)


@functools.cache
def alone(count, lie):
    params, axes = tree(count, lie)
    return quick_jit(update_of(aj.orthogonalize(axes), "auto", None))(params)


def run(mesh_name, kind, over, count, lie, distribute, **options):
    mesh, (params, axes) = mesh_of(mesh_name, kind), tree(count, lie)
    shardings = placed(params, mesh, over, lie)
    given = None if kind == "explicit" else shardings
    tx = aj.orthogonalize(axes, distribute=distribute, shardings=given, **options)
    inputs = jax.device_put(params, shardings)
    compiled = quick_jit(update_of(tx, kind, shardings)).lower(inputs).compile()
    return inputs, compiled(inputs), bytes_by_kind(compiled)


def check(inputs, outputs, expected):
    for path, y in outputs.items():
        # The products of the iteration are rounded in another order where a stack has other neighbours.
        np.testing.assert_allclose(y, expected[path], rtol=0, atol=1e-5, err_msg=path)
        assert y.sharding.is_equivalent_to(inputs[path].sharding, y.ndim), path


# Every pair of mesh, kind of axes, split, count, lie and mode is met at least once, not every combination.
CASES = [
    ("data", "auto", "inputs", 12, "stack", "owned"),
    ("data", "explicit", "outputs", 3, "apart", "owned"),
    ("data", "shard_map", "inputs", 8, "apart", "owned"),
    ("data", "explicit", "replicated", 12, "apart", "owned"),
    ("data", "auto", "stack", 8, "stack", "owned"),
    ("data", "shard_map", "outputs", 3, "stack", "gather"),
    ("data, model", "auto", "both", 3, "apart", "owned"),
    ("data, model", "explicit", "both", 8, "stack", "owned"),
    ("data, model", "shard_map", "both", 12, "stack", "owned"),
    ("data, model", "shard_map", "replicated", 3, "apart", "owned"),
    ("data, model", "explicit", "inputs", 12, "stack", "auto"),
    ("data, model", "auto", "outputs", 8, "apart", "auto"),
    ("data, model", "auto", "inputs over all", 12, "stack", "owned"),
    ("data, model", "explicit", "both", 3, "stack", "gather"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(map(str, case)))
def test_a_mesh_has_the_numbers_of_one_device_and_keeps_placements(case):
    inputs, outputs, _ = run(*case)
    check(inputs, outputs, alone(case[3], case[4]))


def predicted(mesh_name, split, count, mode):
    """The bytes that a chip receives for `tree`, one stack of w and query, whose matrices are all 16 x 32, float32."""
    names = {name for entry in SPLITS[split] for name in (entry if isinstance(entry, tuple) else (entry,)) if name}
    sizes = dict(zip(*MESHES[mesh_name][::-1], strict=True))
    parts = int(np.prod([sizes[name] for name in names]))
    if mode == "gather":
        return 2 * count * 512 * 4
    share = -(-2 * count // 8)
    return (parts > 1) * 2 * share * 512 * 4 + (parts < 8) * share * 8 * 512 // parts * 4


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[6], CASES[10], CASES[13]], ids=str)
def test_what_moves_is_what_the_formula_says(case):
    mesh_name, _, split, count, _, mode = case
    *_, found = run(*case)
    assert sum(found.values()) == predicted(mesh_name, split, count, "owned" if mode == "auto" else mode)
    idle = mesh_name != "data" and split == "inputs"
    assert set(found) == ({"all-gather"} if mode == "gather" else {"all-to-all", *(["all-gather"] if idle else [])})


def test_bfloat16_halves_what_moves():
    *_, wide = run(*CASES[0])
    inputs, outputs, narrow = run("data", "auto", "inputs", 12, "stack", "owned", compute_dtype="bfloat16")
    # The CPU's compiler widens collectives of bfloat16, so that only kinds can be compared here.
    assert set(narrow) == set(wide) == {"all-to-all"}
    for path, expected in alone(12, "stack").items():
        assert float(jnp.linalg.norm(outputs[path] - expected) / jnp.linalg.norm(expected)) < 0.1
        assert outputs[path].sharding.is_equivalent_to(inputs[path].sharding, outputs[path].ndim)


def test_a_lone_matrix_is_gathered_by_auto():
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 32)), jnp.float32)}
    mesh = mesh_of("data", "auto")
    shardings = {"w": NamedSharding(mesh, P("data"))}
    tx = aj.orthogonalize(distribute="auto", shardings=shardings)
    compiled = quick_jit(update_of(tx, "auto", None)).lower(jax.device_put(params, shardings)).compile()
    assert {each.kind for each in collectives(compiled)} == {"all-gather"}


def test_axes_to_be_avoided_are_not_crossed():
    """Two slices with the same parameters: each orthogonalizes all of them, in exchanges within the slice."""
    inputs, outputs, found = run("data, model", "auto", "inputs", 8, "stack", "owned", avoid="model")
    check(inputs, outputs, alone(8, "stack"))
    assert set(found) == {"all-to-all"}
    with pytest.raises(ValueError, match=r"`avoid` must not have an axis that splits a matrix, .* 'query"):
        run("data, model", "auto", "inputs", 8, "stack", "owned", avoid=("data",))


def test_matrices_side_by_side_on_a_mesh():
    params, axes = tree(3, "stack")
    expected = quick_jit(update_of(aj.orthogonalize(axes, split={"w": 2}), "auto", None))(params)
    for kind, over in (("auto", "outputs"), ("shard_map", "both")):
        inputs, outputs, _ = run("data, model", kind, over, 3, "stack", "owned", split={"w": 2})
        check(inputs, outputs, expected)


@pytest.mark.parametrize("kind", ["explicit", "shard_map"])
def test_the_dual_norm_is_the_leaf_s(kind):
    params, axes = tree(3, "stack")
    expected = quick_jit(update_of(aj.orthogonalize(axes, adaptive=True), "auto", None))(params)
    inputs, outputs, _ = run("data, model", kind, "both", 3, "stack", "owned", adaptive=True)
    scale = {path: float(jnp.abs(leaf).max()) for path, leaf in expected.items()}
    scaled = {path: jax.device_put(y / scale[path], inputs[path].sharding) for path, y in outputs.items()}
    check(inputs, scaled, {path: leaf / scale[path] for path, leaf in expected.items()})


def train(mesh, axis_kind, distribute, steps=3):
    """A few updates of Muon by path with decay and a schedule, from one set of parameters; None for one device."""
    params, axes = tree(3, "stack")
    params = {**params, "bias": jnp.ones(32)}
    shardings = None
    if mesh is not None:
        specs = {"w": P(None, "data", None), "query/kernel": P(None, "data", None, None), "bias": P()}
        shardings = {path: NamedSharding(mesh, spec) for path, spec in specs.items()}
        params = jax.device_put(params, shardings)
    muon = aj.scale_by_muon(axes=axes, distribute=distribute, shardings=None if axis_kind == "explicit" else shardings)
    tx = aj.decoupled(
        {"bias": aj.scale_by_adam(), "": muon}, 0.1, weight_decay=aj.matrices(0.01), schedule=aj.cosine_warm_restarts(5)
    )
    step = quick_jit(lambda p, s: (lambda u, s: (optax.apply_updates(p, u), s))(*tx.update(p, s, p)))
    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, shardings


@pytest.mark.parametrize("axis_kind", ["explicit", "auto"])
def test_a_whole_optimizer_on_a_mesh(axis_kind):
    expected, _ = train(None, None, None)
    params, shardings = train(mesh_of("data", axis_kind), axis_kind, "owned")
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=0, atol=1e-5)
        assert leaf.sharding.is_equivalent_to(shardings[path], leaf.ndim)


def test_without_distribute_explicit_axes_gather_and_warn():
    with pytest.warns(UserWarning, match="2 leaves are split over devices, and gathered whole on each"):
        inputs, outputs, _ = run("data", "explicit", "inputs", 3, "stack", None)
    check(inputs, outputs, alone(3, "stack"))


def test_shardings_that_are_not_the_leaves_are_told():
    mesh = mesh_of("data", "auto")
    params = {"w": jax.device_put(jnp.ones((16, 32)), NamedSharding(mesh, P("data")))}
    tx = aj.orthogonalize(distribute="owned", shardings={"w": NamedSharding(mesh, P(None, "data"))})
    with pytest.warns(UserWarning, match="`shardings` has 'w' as .*'data'.*, but it is"):
        tx.update(params, optax.EmptyState())


def test_a_matrix_that_no_chip_holds_is_told():
    mesh = mesh_of("data", "auto")
    shardings = {"w": NamedSharding(mesh, P("data"))}
    tx = aj.orthogonalize(distribute="owned", shardings=shardings)
    with pytest.warns(UserWarning, match="one of 65536 x 65536 has 17179869184 bytes"):
        jax.eval_shape(update_of(tx, "auto", None), {"w": jax.ShapeDtypeStruct((65536, 65536), "float32")})


def test_a_placement_that_is_needed_is_asked_for():
    params = {"w": jnp.ones((16, 32))}
    with pytest.raises(ValueError, match="`distribute='owned'` must know where the leaves are"):
        aj.orthogonalize(distribute="owned").update(params, optax.EmptyState())
    mesh = mesh_of("data", "auto")
    shardings = {"w": NamedSharding(mesh, P("data"))}
    inside = update_of(aj.orthogonalize(), "shard_map", shardings)
    with pytest.raises(ValueError, match=r"`shardings` must be given to orthogonalize inside jax.shard_map"):
        inside(params)
    with pytest.raises(ValueError, match=r"`shardings` must have the parameters' paths, got none for 'w'; the nearest"):
        aj.orthogonalize(distribute="owned", shardings={"v": NamedSharding(mesh, P())}).init(params)
    shardings = {"w": NamedSharding(mesh, P("data"))}
    with pytest.raises(ValueError, match="`avoid` must be one of 'data', got 'slices'"):
        aj.orthogonalize(distribute="owned", shardings=shardings, avoid="slices").update(params, optax.EmptyState())


def test_the_tables_tell_what_moves():
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    shapes = {"up": (12, 64, 256), "down": (12, 256, 64), "lone": (64, 64), "bias": (64,)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    shardings = aj.fsdp_shardings(params, mesh=mesh, min_size=1)
    muon = aj.scale_by_muon(distribute="auto", shardings=shardings)
    tx = aj.decoupled({"bias": aj.scale_by_adam(), "": muon}, 0.1, axes={"up|down": "sio"})
    table = aj.explain(tx, params, mesh=mesh)
    rows = {row["path"]: row for row in table.rows}
    assert {path: row["whole"] for path, row in rows.items()} == {
        "bias": None,
        "down": "owned",
        "lone": "gather",
        "up": "owned",
    }
    # Two matrices each, after padding of 12 to 16: 2 b m n 16 / 8 bytes, and twice the operations of one.
    assert rows["up"]["moved"] == rows["down"]["moved"] == 2 * 4 * 64 * 256 * 16 // 8
    assert rows["up"]["operations"] == 2 * 5 * (4 * 64 * 64 * 256 + 2 * 64**3)
    assert rows["lone"]["moved"] == 4 * 64 * 64
    assert "bytes moved" in str(table)
    assert "bytes moved" not in str(aj.explain(tx, params))
    lines = [line.split() for line in aj.placement_report(params, shardings, tx=tx).splitlines()[-4:]]
    assert lines[0] == ["orthogonalized", "leaves", "whole", "bytes", "moved", "operations"]
    assert ["12x64x256", "1", "owned", str(rows["up"]["moved"]), str(rows["up"]["operations"])] in lines
    with pytest.raises(ValueError, match="`tree` must be placed on a mesh, or `shardings` given"):
        aj.placement_report(params, tx=tx)
    (row,) = aj.explain(aj.decoupled(aj.scale_by_muon(), 0.1), {"w": jnp.ones((64, 64))}, mesh=mesh).rows
    assert (row["whole"], row["moved"]) == ("gather", 0), "an array on one device is split over no axis"


def test_held_norms_of_a_split_stack_on_explicit_axes():
    """The radii in the state stay where they are, whole or split as the stack."""
    mesh = mesh_of("data", "explicit")
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(8, 4, 6)), jnp.float32), "v": jnp.ones((3, 8, 6))}
    rules = [aj.Held("w"), aj.Brake("v")]
    muon = aj.scale_by_muon(distribute="owned")

    def after(params, state, tx):
        step = quick_jit(lambda p, s: (lambda u, s: (optax.apply_updates(p, u), s))(*tx.update(p, s, p)))
        for _ in range(2):
            params, state = step(params, state)
        return params, optax.tree.get(state, "norms")["w"]

    alone = aj.observe(aj.decoupled(aj.scale_by_muon(), 0.1, axes="sio", hold_norm=rules))
    expected, radii = after(params, alone.init(params), alone)
    tx = aj.observe(aj.decoupled(muon, 0.1, axes="sio", hold_norm=rules))
    placed = jax.device_put(params, {"w": NamedSharding(mesh, P("data")), "v": NamedSharding(mesh, P(None, "data"))})
    for state in (tx.init(placed), aj.init_sharded(tx, placed, mesh=mesh)):
        found, norms = after(placed, state, tx)
        np.testing.assert_allclose(norms, radii, rtol=1e-6)
        for path, leaf in found.items():
            np.testing.assert_allclose(leaf, expected[path], rtol=0, atol=1e-5)
            assert leaf.sharding.is_equivalent_to(placed[path].sharding, leaf.ndim)


def test_axes_of_a_direction_are_for_its_leaves_alone():
    params = {"blocks": {"kernel": jnp.ones((4, 8, 8)), "bias": jnp.ones((4, 8))}, "head": jnp.ones((8, 8))}
    tx = aj.decoupled({"blocks/kernel": aj.scale_by_muon(axes="sio"), "": aj.scale_by_adam()}, 0.1)
    rows = aj.explain(tx, params, mesh=jax.sharding.AbstractMesh((4,), ("x",))).rows
    assert [row["whole"] for row in rows] == [None, "gather", None]
