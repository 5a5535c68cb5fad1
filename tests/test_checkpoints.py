"""Checkpoints: the whole state, onto other meshes, under other multipliers, from optax; damage is an error."""

import functools
import gc
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import adamw_jax as aj
from examples import checkpoints
from tests.catalogue import OPTIMIZERS

RESTARTS = aj.cosine_warm_restarts(3, t_mult=2)


def params():
    rng = np.random.default_rng(0)
    shapes = {"embed": (32, 24), "dense": {"kernel": (24, 16), "bias": (16,)}, "head": {"kernel": (16, 8)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def gradients(count):
    return jax.tree.map(lambda p: np.sin(np.asarray(p) * (count + 2)), params())


@functools.cache
def compiled_step(tx):
    @jax.jit
    def step(run, gradients):
        updates, state = tx.update(gradients, run["state"], run["params"])
        return {"params": optax.apply_updates(run["params"], updates), "state": state}

    return step


def train(tx, run, steps):
    for count in steps:
        run = compiled_step(tx)(run, gradients(count))
    return run


def start(tx):
    return {"params": params(), "state": tx.init(params())}


def placed_shapes(tx, devices):
    """The shapes of a run with its state split over some of the devices."""
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    whole = jax.tree.map(lambda _: NamedSharding(mesh, P()), params())
    split = aj.state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=16)
    return checkpoints.shapes(jax.eval_shape(lambda: start(tx)), {"params": whole, "state": split})


def placed(tx, devices):
    return jax.tree.map(lambda leaf, to: jax.device_put(leaf, to.sharding), start(tx), placed_shapes(tx, devices))


@pytest.fixture
def manager(tmp_path):
    with checkpoints.open_manager(tmp_path / "run") as manager:
        yield manager


def save(manager, run, step=0):
    checkpoints.save(manager, step, run)
    manager.wait_until_finished()


def filled(run):
    """A run of the same types with other numbers in every leaf, each its own."""
    leaves, treedef = jax.tree.flatten(run)
    rng = np.random.default_rng(1)
    return treedef.unflatten([jnp.asarray(rng.uniform(0, 100, leaf.shape), leaf.dtype) for leaf in leaves])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_leaf_comes_back_bit_for_bit(manager, name):
    run = filled(start(OPTIMIZERS[name]()))
    save(manager, run)
    restored = checkpoints.restore(manager, 0, checkpoints.shapes(run))
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, run)
    chex.assert_trees_all_equal(restored, run)


@pytest.mark.parametrize("name", ["adamw all options", "adamw packed", "nadamw", "sgdw all options"])
def test_a_restored_run_goes_on_bit_for_bit(manager, name):
    tx = OPTIMIZERS[name]()
    run = train(tx, start(tx), range(4))
    save(manager, run, 4)
    restored = checkpoints.restore(manager, 4, checkpoints.shapes(jax.eval_shape(lambda: start(tx))))
    chex.assert_trees_all_equal(train(tx, restored, range(4, 7)), train(tx, run, range(4, 7)))


def test_the_restart_position_is_part_of_the_checkpoint(manager):
    tx = aj.adamw(0.01, weight_decay=0.1, schedule=RESTARTS)
    run = train(tx, start(tx), range(5))
    run["state"] = aj.restart(run["state"], period=7)
    save(manager, run)
    restored = checkpoints.restore(manager, 0, checkpoints.shapes(start(tx)))
    position = {name: int(optax.tree.get(restored["state"], name)) for name in ("t_cur", "period", "cycle")}
    assert position == {"t_cur": 0, "period": 7, "cycle": 2}
    chex.assert_trees_all_equal(train(tx, restored, range(9)), train(tx, run, range(9)))


def test_a_run_moves_to_smaller_meshes(manager):
    tx = aj.nadamw(0.01, weight_decay=0.1, schedule=RESTARTS)
    run = train(tx, placed(tx, 8), range(3))
    for step, devices in enumerate((8, 4, 1)):
        save(manager, run, step)
        target = placed_shapes(tx, devices)
        moved = checkpoints.restore(manager, step, target)
        assert jax.tree.map(lambda leaf: leaf.sharding, moved) == jax.tree.map(lambda leaf: leaf.sharding, target)
        chex.assert_trees_all_equal(jax.device_get(moved), jax.device_get(run))
        run = moved
    # From three steps on eight devices, one device goes on as it does from three steps of its own: the moments differ
    # where a multiply-add is fused over a shard and not over a whole leaf.
    alone = train(tx, start(tx), range(6))
    chex.assert_trees_all_close(train(tx, run, range(3, 6)), alone, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("make", [aj.adamw, aj.nadamw, aj.sgdw], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr_multipliers": {"embed": 0.5, "kernel": 2.0}},
        {"weight_decay": {"embed": (0.1, 0.2)}, "lr_multipliers": {"bias": 0.0}, "multiplier_scales_decay": True},
        {"weight_decay": 0.2, "normalize_decay": "cycle", "lr_multipliers": lambda path, leaf: leaf.ndim},
    ],
    ids=["none", "others", "frozen", "function"],
)
def test_multipliers_and_decays_may_change_between_save_and_restore(manager, make, options):
    before = make(0.01, weight_decay={"kernel": 0.1}, lr_multipliers={"embed": 0.5}, schedule=RESTARTS)
    after = make(0.02, schedule=RESTARTS, **options)
    run = filled(start(before))
    save(manager, run)
    restored = checkpoints.restore(manager, 0, checkpoints.shapes(start(after)))
    assert jax.tree.structure(restored["state"]) == jax.tree.structure(after.init(params()))
    chex.assert_trees_all_equal(restored, run)


@pytest.mark.usefixtures("lenient")
def test_an_optax_adamw_run_goes_on_as_ours(manager):
    theirs, ours = optax.adamw(0.01, weight_decay=0.1), aj.adamw(0.01, weight_decay=0.1, coupling="learning_rate")
    run = train(theirs, start(theirs), range(4))
    save(manager, run)
    restored = checkpoints.restore(manager, 0, checkpoints.shapes(start(theirs)))
    state = aj.from_optax_adam(restored["state"], ours.init(restored["params"]))
    went_on = train(ours, {"params": restored["params"], "state": state}, range(4, 8))
    # The same formula, associated otherwise: float32's rounding of values near 1, over four updates.
    chex.assert_trees_all_close(went_on["params"], train(theirs, run, range(4, 8))["params"], rtol=1e-6, atol=1e-6)
    assert {int(count) for _, count in optax.tree.get_all_with_path(went_on["state"], "count")} == {8}


def test_a_float32_run_goes_on_packed_and_back(manager):
    options = {"weight_decay": 0.1, "schedule": RESTARTS}
    wide, packed = aj.adamw(0.01, **options), aj.adamw(0.01, moment_dtype="packed", **options)
    run = train(wide, start(wide), range(4))
    save(manager, run, 0)
    restored = checkpoints.restore(manager, 0, checkpoints.shapes(start(wide)))
    state = aj.convert_moments(restored["state"], packed.init(params()))
    assert jax.tree.structure(state) == jax.tree.structure(packed.init(params()))
    for before, after in zip(aj.read_moments(run["state"]), aj.read_moments(state), strict=True):
        nearest = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), before)
        # To nearest, a tie upwards and not to even: half a unit in the last of bfloat16's 8 bits.
        chex.assert_trees_all_close(after, before, rtol=2.0**-8, atol=0)
        same = jax.tree.map(lambda a, b: np.mean(np.asarray(a) == np.asarray(b)), after, nearest)
        assert min(jax.tree.leaves(same)) > 0.99
    went_on = train(packed, {"params": restored["params"], "state": state}, range(4, 7))
    save(manager, went_on, 1)
    restored = checkpoints.restore(manager, 1, checkpoints.shapes(start(packed)))
    back = aj.convert_moments(restored["state"], wide.init(params()))
    assert jax.tree.structure(back) == jax.tree.structure(wide.init(params()))
    chex.assert_trees_all_equal(aj.read_moments(back), aj.read_moments(went_on["state"]))
    assert int(optax.tree.get(back, "t_cur")) == int(optax.tree.get(went_on["state"], "t_cur"))
    assert {int(count) for _, count in optax.tree.get_all_with_path(back, "count")} == {7}
    train(wide, {"params": restored["params"], "state": back}, range(7, 8))


def test_packed_words_are_not_restored_as_numbers(manager):
    save(manager, start(aj.adamw(0.01, moment_dtype="packed")))
    with pytest.raises(ValueError, match=r"must hold the leaves .*'state.*moments.*': wanted nothing, saved .*uint32"):
        checkpoints.restore(manager, 0, checkpoints.shapes(start(aj.adamw(0.01))))


# Damaged and foreign checkpoints.


def test_an_interrupted_save_is_no_checkpoint(manager, tmp_path):
    tx = aj.adamw(0.01)
    save(manager, start(tx), 1)
    shutil.copytree(tmp_path / "run" / "1", tmp_path / "run" / "2.orbax-checkpoint-tmp")
    with checkpoints.open_manager(tmp_path / "run") as reopened:
        assert reopened.latest_step() == 1


FOREIGN = {
    "another optimizer": (lambda: aj.sgdw(0.01), params, "state/inner_state"),
    "another shape": (lambda: aj.adamw(0.01), lambda: params() | {"embed": jnp.ones((8, 8))}, "embed"),
    "another name": (lambda: aj.adamw(0.01), lambda: {"other": jnp.ones((8, 8))}, "dense"),
    "another dtype": (lambda: aj.adamw(0.01), lambda: jax.tree.map(jnp.float16, params()), "float16"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_an_error(manager, name):
    make, model, named = FOREIGN[name]
    save(manager, start(aj.adamw(0.01)))
    running = {"params": model(), "state": make().init(model())}
    before = jax.device_get(running)
    with pytest.raises(ValueError, match=rf"must hold the leaves .* step 0 in .*run, first .*{named}"):
        checkpoints.restore(manager, 0, checkpoints.shapes(running))
    chex.assert_trees_all_equal(running, before)


def damaged_copies(source, target):
    """Yield the names of the files of a checkpoint, each time with that one cut in half or gone in `target`."""
    for file in sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file()):
        for cut in (True, False):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
            content = (target / file).read_bytes()
            (target / file).unlink()
            if cut:
                (target / file).write_bytes(content[: len(content) // 2])
            yield f"{file} {'cut' if cut else 'gone'}"


# Orbax reads the arrays at once, raises the first error and leaves the others in futures that nobody asks.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_truncated_checkpoint_is_an_error_or_whole(manager, tmp_path):
    tx = aj.adamw(0.01, schedule=RESTARTS)
    running = train(tx, start(tx), range(2))
    save(manager, running)
    before, refused, passed = jax.device_get(running), [], []
    for damage in damaged_copies(tmp_path / "run" / "0", tmp_path / "other" / "0"):
        with checkpoints.open_manager(tmp_path / "other") as other:
            try:
                restored = checkpoints.restore(other, 0, checkpoints.shapes(running))
            except ValueError as error:
                refused.append((damage, str(error)))
            else:  # a file that only repeats what others say
                passed.append(damage)
                chex.assert_trees_all_equal(restored, before)
        chex.assert_trees_all_equal(running, before)
    assert all(f"got an unreadable step 0 in {tmp_path / 'other'}" in message for _, message in refused)
    # The description of the tree, the index and the arrays' data are refused, cut or gone.
    assert sum("_METADATA" in damage for damage, _ in refused) >= 2
    assert sum("manifest.ocdbt" in damage for damage, _ in refused) >= 2
    assert sum("/d/" in damage for damage, _ in refused) >= 4
    assert "default/_sharding gone" in passed
    gc.collect()  # the reads that Orbax gave up on complain here, while the filter above holds
