"""What do the compiled programs of one update move, launch and cost on devices that are not there?

    make compiled                              all of it, in environments of their own
    python -m benchmarks.compiled h100         one table, where the compiler of that target is installed

Nothing runs here: a program is compiled from shapes, and read. The bound of an update is what it cannot do without:
to read the gradient, and to read and write the parameter and every array of the state.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import programs, targets

import jax  # isort: skip - targets says first that it runs on the CPU
import jax.numpy as jnp
import optax

import adamw_jax as aj
from benchmarks.report import publish

RATE, DECAY = 1e-3, 0.1
SAME = {"weight_decay": DECAY, "coupling": "learning_rate"}
EXTRAS = {
    "weight_decay": {"kernel": (1e-6, 1e-4)},
    "lr_multipliers": {".": 0.5},
    "schedule": aj.cosine_warm_restarts(1000, t_mult=1.5),
    "normalize_decay": "cycle",
}
STORAGES = ("float32", "bfloat16", "packed", "packed8")


class Case(NamedTuple):
    """An optimizer, the dtype of parameters and gradients, and its peer."""

    make: Callable[[], Any]
    dtype: Any = jnp.float32
    against: str = "optax adamw"


def _adamw(storage: str = "float32", **options: Any) -> Callable[[], Any]:
    return functools.partial(aj.adamw, RATE, moment_dtype=storage, **(options or SAME))


CASES = {
    "optax adamw": Case(lambda: optax.adamw(RATE, weight_decay=DECAY)),
    "optax nadamw": Case(lambda: optax.nadamw(RATE, weight_decay=DECAY)),
    "optax sgdw": Case(
        lambda: optax.chain(optax.trace(0.9), optax.add_decayed_weights(DECAY), optax.scale_by_learning_rate(RATE)),
        against="optax sgdw",
    ),
    "optax lion": Case(lambda: optax.lion(RATE, weight_decay=DECAY), against="optax lion"),
    **{f"adamw {storage}": Case(_adamw(storage)) for storage in STORAGES},
    "adamw all extras": Case(_adamw(**EXTRAS)),
    "adamw packed, all extras": Case(_adamw("packed", **EXTRAS)),
    "adamw, average": Case(lambda: aj.with_average(_adamw()(), aj.Ema(500))),
    "adamw, average in bfloat16": Case(lambda: aj.with_average(_adamw()(), aj.Ema(500), store="bfloat16")),
    "adamw amsgrad": Case(_adamw(amsgrad=True, **SAME)),
    "adamw cautious": Case(_adamw(decay="cautious", **SAME)),
    "adamw Huber": Case(_adamw(decay=aj.Huber(1.0), **SAME)),
    "adamw proximal": Case(_adamw(proximal_l1=1e-4, **SAME)),
    "adamw corrected": Case(_adamw(weight_decay=DECAY, coupling="corrected")),
    "decoupled lion": Case(lambda: aj.decoupled(optax.scale_by_lion(), RATE, **SAME), against="optax lion"),
    "nadamw": Case(lambda: aj.nadamw(RATE, **SAME), against="optax nadamw"),
    "sgdw": Case(lambda: aj.sgdw(RATE, **SAME), against="optax sgdw"),
    "sgdw packed": Case(lambda: aj.sgdw(RATE, moment_dtype="packed", **SAME), against="optax sgdw"),
    "optax adamw, bfloat16 parameters": Case(lambda: optax.adamw(RATE, weight_decay=DECAY), jnp.bfloat16),
    **{
        f"adamw {storage}, bfloat16 parameters": Case(_adamw(storage, round_params=True, **SAME), jnp.bfloat16)
        for storage in STORAGES
    },
}
"""What is compiled, by the name in the tables."""

FOUR = ((768, 2304), (768, 768), (768, 3072), (3072, 768))
LEAVES = {f"block_{i}": {f"matrix_{j}": {"kernel": shape} for j, shape in enumerate(FOUR)} for i in range(6)}
"""24 leaves of four shapes."""

ALIKE = {f"block_{i:02d}": {"kernel": (1024, 1024)} for i in range(24)}
"""24 leaves alike."""

SINGLE = ((4096, 4096), (50257, 768))


def placed(tree: Any, dtype: Any, place: Any) -> Any:
    """Return a tree of shapes as arrays that hold nothing, on a device that is not there."""
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype, sharding=place), tree, is_leaf=lambda x: isinstance(x, tuple)
    )


def lower(case: Case, tree: Any, place: Any) -> tuple[jax.stages.Lowered, float]:
    """Return one donating update, lowered, and its bound in bytes per parameter."""
    tx = case.make()
    params = placed(tree, case.dtype, place)
    state = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), jax.eval_shape(tx.init, params)
    )

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    held = [sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for tree in (params, state)]
    bound = (3 * held[0] + 2 * held[1]) / sum(leaf.size for leaf in jax.tree.leaves(params))
    jax.clear_caches()
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params), bound


def gpu_row(name: str, tree: Any, place: Any) -> dict[str, Any]:
    """Compile for a GPU, and count."""
    lowered, bound = lower(CASES[name], tree, place)
    compiled, registers = programs.compiled_for_gpu(lowered)
    text = compiled.as_text()
    sizes = [leaf.size for leaf in jax.tree.leaves(placed(tree, jnp.float32, place))]
    written = programs.large_results(text)
    return {
        "optimizer": name,
        "bound, bytes/parameter": bound,
        "bytes/parameter": programs.bytes_moved(text) / sum(sizes),
        "over the bound, %": 100 * (programs.bytes_moved(text) / sum(sizes) / bound - 1),
        "leaves": len(sizes),
        "large kernels": len(written),
        "launches": len(programs.kernels(text)),
        "large results of a kernel": max(written),
        "registers": max(used for used, _ in registers),
        "spilled bytes": max(spilled for _, spilled in registers),
        "float64": "arrays"
        if programs.wide_floats(text)[1]
        else "scalars"
        if programs.wide_floats(text)[0]
        else "none",
    }


def chosen(only: str) -> list[str]:
    """Return the names of all cases, or of those with a word in their names, and what they are held against."""
    return [name for name in CASES if only in name or name in ("optax adamw", "adamw float32")]


def tpu_rows(place: Any, only: str = "") -> list[dict[str, Any]]:
    """Compile each of two leaves alone for a TPU, and add up what its compiler estimates."""
    rows = []
    for shape in SINGLE:
        found: dict[str, int] = {}
        for name in chosen(only):
            case = CASES[name]
            lowered, bound = lower(case, {"dense": {"kernel": shape}}, place)
            compiled = lowered.compile()
            found[name] = programs.cycles(compiled.as_text())
            rows.append(
                {
                    "leaf": " x ".join(map(str, shape)),
                    "optimizer": name,
                    "bound, bytes/parameter": bound,
                    "estimated cycles": found[name],
                    "against optax adamw": found[name] / found["optax adamw"],
                    "bound against optax adamw": bound / 28,
                    "against its peer": found[name] / found[case.against],
                    "temporary, bytes": compiled.memory_analysis().temp_size_in_bytes,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="h100 or v5e")
    parser.add_argument("--alike", action="store_true", help="24 leaves alike in place of 24 leaves of four shapes")
    parser.add_argument("--only", default="", help="a word in the names of the optimizers, such as average")
    args = parser.parse_args()
    suffix = "_alike" * args.alike + f"_{args.only}" * bool(args.only)
    place = targets.device(args.target)
    if targets.target(args.target).platform == "tpu":
        publish(f"compiled_{args.target}{suffix}", tpu_rows(place, args.only))
    else:
        tree = ALIKE if args.alike else LEAVES
        rows = [gpu_row(name, tree, place) for name in chosen(args.only)]
        publish(f"compiled_{args.target}{suffix}", rows)


if __name__ == "__main__":
    main()
