"""How many bytes do state and step need per parameter?"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import jax

from benchmarks.peers import TRANSFORMS, prepare, step_function
from benchmarks.problems import TREES, as_shapes, fill, size
from benchmarks.report import publish

NAMES = [
    "optax adamw",
    "adamw",
    "adamw bfloat16",
    "adamw packed",
    "adamw packed8",
    "nadamw packed",
    "sgdw",
    "sgdw packed",
]


def peak():
    """Return the most bytes in use so far: the device's, or the process's on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(name, tree):
    """Return by how much copying the parameters, state, compiling and steps raise the peak, in bytes per parameter."""
    params, grads = (fill(TREES[tree](), seed, 0.02) for seed in (0, 1))
    jax.block_until_ready((params, grads))
    before = peak()
    run = prepare(name, params, grads)
    for _ in range(3):
        run()
    return (peak() - before) / size(params)


def analysed(name, tree):
    shapes = TREES[tree]()
    params = as_shapes(shapes)
    tx = TRANSFORMS[name]()
    state = jax.eval_shape(tx.init, params)
    compiled = jax.jit(step_function(tx), donate_argnums=(0, 2)).lower(params, params, state).compile()
    number = size(params)
    analysis = compiled.memory_analysis()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    in_all = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return held / number, analysis.temp_size_in_bytes / number, (in_all - analysis.alias_size_in_bytes) / number


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", default="gpt2")
    parser.add_argument("--one", help="measure this one in this process and print it")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one, args.tree)))
        return
    rows = []
    for name in NAMES:
        held, temporary, in_all = analysed(name, args.tree)
        command = [sys.executable, "-m", "benchmarks.memory", "--tree", args.tree, "--one", name]
        grown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            {
                "tree": args.tree,
                "peer": name,
                "state bytes/parameter": held,
                "temporary": temporary,
                "parameters, gradients, state, temporary": in_all,
                "measured growth of the peak": grown,
            }
        )
    publish("memory", rows)


if __name__ == "__main__":
    main()
