"""What does Muon move between 8 and 256 chips, as the compilers of TPUs and GPUs see it?

    python -m benchmarks.compiled_muon v5e:2x4 v5e:8x8 ...

One update of the direction from shapes alone: the matrices of GPT-2's blocks, stacked or in separate leaves, split over
the chips. Predicted for matrices that have owners: 2 b P / N times the padding, where b bytes are sent per number.
"""

import argparse
import math
from typing import Any

from benchmarks import targets

import jax  # isort: skip - targets says first that it runs on the CPU
import jax.numpy as jnp
import optax
import optax.contrib

import adamw_jax as aj
from benchmarks.collectives import bytes_by_kind, collectives
from benchmarks.problems import BLOCK, blocks
from benchmarks.report import publish

SPLITS = {"inputs": ("data", None), "both": ("data", "model")}

VARIANTS: dict[str, Any] = {
    "optax": None,
    "as the compiler does": {},
    "owned": {"distribute": "owned"},
    "owned, bfloat16": {"distribute": "owned", "compute_dtype": "bfloat16"},
    "auto": {"distribute": "auto"},
}

CASES = {
    "v5e:2x4": [(12, 768, "stacked", "inputs"), (12, 256, "separate", "inputs"), (12, 256, "stacked", "both")],
    "v5e:8x8": [(80, 256, "stacked", "inputs"), (80, 256, "stacked", "both")],
    "h100x8": [(12, 768, "stacked", "inputs"), (12, 256, "separate", "inputs")],
}
"""(layers, width, how they lie, what the chips split) by target."""

MESHES = {"v5e:2x4": (4, 2), "v5e:8x8": (8, 8), "h100x8": (4, 2)}
"""What "both" splits over."""


def direction(variant: str, lie: str, shardings: Any) -> optax.GradientTransformation:
    """Return Muon's direction."""
    options, stacked = VARIANTS[variant], lie == "stacked"
    if options is None:
        numbers = optax.contrib.MuonDimensionNumbers(*((1, 2) if stacked else (0, 1)))
        return optax.contrib.scale_by_muon(weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: numbers, tree))
    given = {"shardings": shardings} if options else {}
    return aj.scale_by_muon(axes="sio" if stacked else "io", **given, **options)


def formula(layers: int, width: int, chips: int, itemsize: int) -> tuple[float, float]:
    """Return the bytes that chips receive, and their operations, where each of N owns ceil(layers / N) matrices."""
    share, moved, operations = math.ceil(layers / chips), 0, 0
    for i, o in BLOCK.values():
        m, n = sorted((i * width, o * width))
        moved += 2 * itemsize * share * m * n
        operations += share * 5 * (4 * m * m * n + 2 * m**3)
    return moved, operations


def row(target: str, layers: int, width: int, lie: str, split: str, variant: str) -> dict[str, Any]:
    """Compile one update, and compare it with the formula."""
    both = split == "both"
    mesh = targets.mesh(target, MESHES[target], ("data", "model")) if both else targets.mesh(target)
    spec = (*([None] if lie == "stacked" else []), *SPLITS[split])
    place = jax.NamedSharding(mesh, jax.P(*spec))
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
        for name, shape in blocks(layers, width, lie).items()
    }
    shardings = jax.tree.map(lambda p: p.sharding, params)
    tx = direction(variant, lie, shardings)
    places = aj.state_shardings(tx, params, mesh=mesh)
    state = jax.tree.map(
        lambda s, to: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=to), jax.eval_shape(tx.init, params), places
    )
    step = jax.jit(tx.update, donate_argnums=(0, 1), out_shardings=(shardings, places))
    compiled: Any = step.lower(params, state).compile()
    kinds, found = bytes_by_kind(compiled), collectives(compiled)
    size = sum(math.prod(leaf.shape) for leaf in params.values()) * 4
    moved, operations = formula(layers, width, mesh.size, 2 if variant.endswith("bfloat16") else 4)
    facts = {
        "chips": target if mesh.devices.ndim == 1 else f"{target} as {' x '.join(map(str, mesh.devices.shape))}",
        "blocks": f"{layers} of width {width}, {lie}",
        "split": split,
        "Muon": variant,
        "collectives": ", ".join(f"{sum(each.kind == kind for each in found)} {kind}" for kind in kinds) or "none",
        "MB": sum(kinds.values()) / 1e6,
        "formula, MB": moved / 1e6 if variant.startswith("owned") else "",
        "x P": sum(kinds.values()) / size,
        "operations": (compiled.cost_analysis() or {}).get("flops", "") if "v5" in target else "",
        "formula, operations": float(operations) if variant.startswith("owned") else "",
        "temporary, MB": compiled.memory_analysis().temp_size_in_bytes / 1e6,
    }
    print(facts, flush=True)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    rows = [row(target, *case, variant) for target in args.targets for case in CASES[target] for variant in VARIANTS]
    publish(f"compiled_muon_{targets.target(args.targets[0]).platform}", rows)


if __name__ == "__main__":
    main()
