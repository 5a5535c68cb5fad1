"""What updates compiled for an H100 move and launch; nothing runs. XLA decides what it fuses: its version is pinned."""

import pytest

from benchmarks import compiled, targets

PLACE = targets.device("h100")
FOUR = {f"layer_{i}": {"kernel": shape} for i, shape in enumerate(((256, 384), (512, 256), (768, 128), (256, 256)))}
ALIKE = {f"layer_{i:02d}": {"kernel": (256, 256)} for i in range(24)}


def check(row):
    # Scalars and their kernels: under 0.2 % of these bytes, and a dozen launches at most.
    assert abs(row["over the bound, %"]) < 0.2
    assert row["launches"] <= row["leaves"] + 12
    assert row["large kernels"] == row["leaves"]
    assert row["large results of a kernel"] <= 4
    assert row["registers"] <= 64
    assert row["spilled bytes"] == 0
    assert row["float64"] == "none"


@pytest.mark.parametrize("name", [name for name in compiled.CASES if not name.startswith("optax")])
def test_an_update_moves_its_bound_in_one_kernel_a_leaf(name):
    check(compiled.gpu_row(name, FOUR, PLACE))


@pytest.mark.parametrize("storage", ["bfloat16", "packed", "packed8"])
def test_many_leaves_alike_stay_one_kernel_each(storage):
    """Where XLA has an index that two loops share as an array, it merges a dozen of these leaves into one kernel."""
    check(compiled.gpu_row(f"adamw {storage}, bfloat16 parameters", ALIKE, PLACE))
