"""How long does Muon's direction take on one device, and against optax's?"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import adamw_jax as aj
from benchmarks.problems import blocks
from benchmarks.report import publish

VARIANTS = ("optax", "this library", "this library, bfloat16 products")


def make(variant, lie):
    stacked = lie == "stacked"
    if variant == "optax":
        numbers = optax.contrib.MuonDimensionNumbers(*((1, 2) if stacked else (0, 1)))
        tx = optax.contrib.muon(-1.0, muon_weight_dimension_numbers=lambda t: jax.tree.map(lambda _: numbers, t))
        return optax.GradientTransformation(tx.init, lambda g, state: tx.update(g, state, g))
    return aj.scale_by_muon(
        axes="sio" if stacked else "io", compute_dtype="bfloat16" if "bfloat16" in variant else None
    )


def prepare(variant, lie, layers, width):
    """Return a run of one update, and its temporaries in bytes."""
    tx = make(variant, lie)
    grads = {
        name: jax.random.normal(jax.random.key(i), shape, jnp.float32)
        for i, (name, shape) in enumerate(blocks(layers, width, lie).items())
    }
    state = tx.init(grads)
    compiled = jax.jit(tx.update, donate_argnums=1).lower(grads, state).compile()
    kept = [state]

    def run():
        direction, kept[0] = compiled(grads, kept[0])
        jax.block_until_ready(direction)

    return run, compiled.memory_analysis().temp_size_in_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rows = []
    for lie in ("separate", "stacked"):
        runs = {variant: prepare(variant, lie, args.layers, args.width) for variant in VARIANTS}
        for run, _ in runs.values():
            run()
        seconds = {variant: [] for variant in runs}
        for _ in range(args.repeats):
            for variant, (run, _) in runs.items():
                start = time.perf_counter()
                run()
                seconds[variant].append(time.perf_counter() - start)
        for variant, times in seconds.items():
            rows.append(
                {
                    "blocks of GPT-2": f"{args.layers} of width {args.width}, {lie}",
                    "Muon": variant,
                    "median ms": float(np.median(times)) * 1e3,
                    "min ms": min(times) * 1e3,
                    "median of paired ratios": float(np.median(np.array(times) / np.array(seconds["optax"]))),
                    "temporary, MB": runs[variant][1] / 1e6,
                }
            )
            print(rows[-1], flush=True)
    publish("muon_step", rows)


if __name__ == "__main__":
    main()
