"""How long do tracing and compiling take for many leaves?"""

import argparse
import time

import jax
import numpy as np

from benchmarks.peers import TRANSFORMS, step_function
from benchmarks.problems import TREES, as_shapes, small_leaves
from benchmarks.report import publish

NAMES = ["optax adamw", "adamw", "adamw all extras", "adamw packed"]


def stages(name, shapes):
    """Return the seconds of tracing, lowering and compiling one donating step, from empty caches."""
    jax.clear_caches()
    tx = TRANSFORMS[name]()
    params = as_shapes(shapes)
    state = jax.eval_shape(tx.init, params)
    times = [time.perf_counter()]
    traced = jax.jit(step_function(tx), donate_argnums=(0, 2)).trace(params, params, state)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    return np.diff(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=2000)
    parser.add_argument("--trees", default="leaves", help="leaves, or names from problems.py")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    rows = []
    for tree in args.trees.split(","):
        shapes = small_leaves(args.leaves) if tree == "leaves" else TREES[tree]()
        seconds = {name: [] for name in NAMES}
        for _ in range(args.repeats):
            for name in NAMES:
                seconds[name].append(stages(name, shapes))
        best = {name: np.min(each, axis=0) for name, each in seconds.items()}
        for name in NAMES:
            trace, lower, build = map(float, best[name])
            ratio = best[name] / best[NAMES[0]]
            rows.append(
                {
                    "tree": tree,
                    "peer": name,
                    "trace s": trace,
                    "lower s": lower,
                    "compile s": build,
                    "trace ratio": float(ratio[0]),
                    "compile ratio": float(ratio[2]),
                }
            )
    publish("compile_time", rows)


if __name__ == "__main__":
    main()
