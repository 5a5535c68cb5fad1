"""How long does one update take, and against whom?"""

import argparse
import gc
import time

import jax.numpy as jnp
import numpy as np

from benchmarks.peers import STREAM, prepare
from benchmarks.problems import TREES, fill, size
from benchmarks.report import publish

BASE = "optax adamw"
ADAMW = [BASE, "adamw", "adamw packed", "torch fused", STREAM]
GROUPS = {
    "gpt2": [
        ADAMW,
        [BASE, "adamw no extras", "adamw all extras", "adamw packed all extras"],
        [BASE, "adamw bfloat16", "adamw packed8", "keras", "torch default", "torch foreach"],
        ["optax nadamw", "nadamw", "nadamw packed"],
        ["optax sgdw", "sgdw", "sgdw packed"],
    ],
    "vit": [
        [*ADAMW, "keras", "torch foreach"],
        ["optax nadamw", "nadamw", "nadamw packed"],
        ["optax sgdw", "sgdw", "sgdw packed"],
    ],
    "digits": [[*ADAMW, "keras", "torch foreach"], ["optax nadamw", "nadamw"], ["optax sgdw", "sgdw"]],
    "leaves": [[BASE, "adamw", "torch fused", "torch foreach"]],
}
# Bytes that must pass for each parameter: loops that read and write in place, as each form is compiled for a CPU.
BYTES = {STREAM: 8, "adamw packed": 24, "torch fused": 28, "adamw": 40, BASE: 40}


def measure(names, params, grads, repeats):
    """Return the seconds of every run of every peer, in turns."""
    runs = {name: run for name in names if (run := prepare(name, params, grads)) is not None}
    for run in runs.values():
        run()
        run()
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", default="digits,vit,gpt2,leaves")
    parser.add_argument("--dtype", default="float32", help="dtype of parameters and gradients")
    parser.add_argument("--groups", type=int, default=None, help="only the first so many groups of a tree")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    rows, trees = [], args.trees.split(",")
    for tree in trees:
        shapes = TREES[tree]()
        for names in GROUPS[tree][: args.groups]:
            params, grads = (fill(shapes, seed, 0.02, jnp.dtype(args.dtype)) for seed in (0, 1))
            many = 10 if size(params) < 1e6 else 1
            seconds = measure(names, params, grads, args.repeats * many)
            base = np.median(seconds[names[0]])
            # A tree that fits into a cache says nothing about the memory.
            stream = float(np.median(seconds[STREAM])) / 8 if STREAM in seconds and size(params) > 5e7 else None
            for name, times in seconds.items():
                median = float(np.median(times))
                ratios = np.median(np.array(times) / np.array(seconds[names[0]]))
                rows.append(
                    {
                        "tree": tree,
                        "dtype": args.dtype,
                        "peer": name,
                        "median ms": median * 1e3,
                        "min ms": min(times) * 1e3,
                        "against": names[0],
                        "ratio": float(median / base),
                        "median of paired ratios": float(ratios),
                        "share of stream": BYTES[name] * stream / median if stream and name in BYTES else "",
                    }
                )
                print(rows[-1], flush=True)
            del params, grads, seconds
            gc.collect()
    name = "step_time" if args.dtype == "float32" else f"step_time_{args.dtype}"
    publish(name, rows)


if __name__ == "__main__":
    main()
