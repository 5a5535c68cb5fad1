"""What updates compiled for a TPU v5e cost in the compiler's own estimate, and need of its memory; nothing runs.

And what the same version of XLA makes of them for a CPU.
"""

import functools

import pytest

from benchmarks import compiled, compiled_host, compiled_muon, programs, targets

import jax  # isort: skip - targets says first that it runs on the CPU

PLACE = targets.device("v5e")
LEAF = {"dense": {"kernel": (4096, 4096)}}


@functools.cache
def cycles(name):
    return programs.cycles(compiled.lower(compiled.CASES[name], LEAF, PLACE)[0].compile().as_text())


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("adamw float32", 1.0),
        ("adamw all extras", 1.0),
        ("nadamw", 1.0),
        ("adamw bfloat16", 0.72),
        ("adamw packed", 0.72),
        ("adamw packed8", 0.58),
    ],
)
def test_an_update_costs_what_its_bytes_say(name, share):
    # The compiler's estimates of alike loops differ by some cycles in a million.
    assert cycles(name) <= (share + 0.005) * cycles("optax adamw")


@pytest.mark.parametrize("storage", ["bfloat16", "packed", "packed8"])
def test_every_leaf_is_one_loop(storage):
    tree = {f"layer_{i:02d}": {"kernel": (512, 512)} for i in range(12)}
    text = compiled.lower(compiled.CASES[f"adamw {storage}"], tree, PLACE)[0].compile().as_text()
    assert sum(kernel.operation == "fusion" for kernel in programs.kernels(text)) == len(tree)


@pytest.mark.parametrize(("storage", "loops"), [("bfloat16", 2), ("packed", 1), ("packed8", 1)])
def test_on_a_cpu_only_loops_that_write_moments_hash(storage, loops):
    """A loop that hashes has the hash's first multiplier once; the seed, which all of them share, has it once more."""
    tree = {f"layer_{i}": {"kernel": (16, 16)} for i in range(4)}
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    text = compiled.lower(compiled.CASES[f"adamw {storage}"], tree, place)[0].compile().as_text()
    assert text.count(f"constant({0x7FEB352D})") == loops * len(tree) + 1


@pytest.mark.parametrize("moment_dtype", ["float32", "packed"])
def test_a_state_in_the_host_takes_the_room_of_two_leaves(moment_dtype):
    row = compiled_host.row(
        "12 of 2048 x 2048", "in the host, streamed", moment_dtype, targets.mesh("v5e"), "like_params"
    )
    # Two leaves' moments, and a share for what the compiler keeps beside.
    assert row["in a leaf's state"] < 2.3


@pytest.mark.parametrize(("lie", "split"), [("stacked", "both"), ("separate", "inputs")])
def test_matrices_with_owners_move_what_the_formula_says(lie, split):
    """Two all-to-alls for each of four kinds of leaves, and nothing else."""
    row = compiled_muon.row("v5e:2x4", 12, 256, lie, split, "owned")
    assert row["collectives"] == "8 all-to-all"
    assert row["MB"] == pytest.approx(row["formula, MB"])
    assert row["operations"] <= 1.02 * row["formula, operations"]
