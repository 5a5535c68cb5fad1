"""What does it cost to see every step, or every hundredth; and with `--average`, to average the weights?"""

import argparse
import gc
import time

import jax
import numpy as np
import optax

import adamw_jax as aj
from benchmarks.problems import TREES, fill, size
from benchmarks.report import publish

WRAPPERS = {
    "without": lambda tx: tx,
    "observe(every=100)": lambda tx: aj.observe(tx, 100),
    "observe(every=1)": aj.observe,
    "skip_spikes": aj.skip_spikes,
}

AVERAGES = {
    "without": lambda tx: tx,
    "with_average, bfloat16": lambda tx: aj.with_average(tx, aj.Ema(500), store="bfloat16"),
}


def prepare(wrap, shapes, grads):
    """Return a function that makes one update of the whole tree, in place, and what the program needs beside it."""
    tx, params = wrap(aj.adamw(1e-3, weight_decay=1e-4)), fill(shapes, 0, 0.02)
    carry = [params, jax.jit(tx.init)(params)]

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, grads).compile()

    def run():
        carry[:] = compiled(*carry, grads)
        jax.block_until_ready(carry)

    return run, compiled.memory_analysis().temp_size_in_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", default="gpt2", choices=TREES)
    parser.add_argument("--updates", type=int, default=200, help="of each, in turns; a multiple of 100")
    parser.add_argument("--average", action="store_true", help="what an average costs, in place of what watching does")
    args = parser.parse_args()
    shapes = TREES[args.tree]()
    grads = fill(shapes, 1, 0.02)
    runs = {name: prepare(wrap, shapes, grads) for name, wrap in (AVERAGES if args.average else WRAPPERS).items()}
    gc.collect()
    for run, _ in runs.values():
        run()
    seconds = {name: [] for name in runs}
    for _ in range(args.updates):
        for name, (run, _) in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rows, base = [], np.array(seconds["without"])
    for name, (_, bytes_beside) in runs.items():
        times = np.array(seconds[name])
        # The first update of the run was made above: the observed ones are those before a multiple of 100.
        seen = (np.arange(len(times)) + 2) % 100 == 0 if "100" in name else np.zeros(len(times), bool)
        rows.append(
            {
                "tree": args.tree,
                "wrapper": name,
                "median ms": float(np.median(times[~seen]) * 1e3),
                "min ms": float(times[~seen].min() * 1e3),
                "median of paired ratios": float(np.median((times / base)[~seen])),
                "observed update ms": float(np.median(times[seen]) * 1e3) if seen.any() else "",
                "mean ratio over the run": float(times.mean() / base.mean()),
                "bytes beside, per parameter": bytes_beside / size(grads),
                "updates": args.updates,
            }
        )
        print(rows[-1], flush=True)
    publish("average_cost" if args.average else "observe_cost", rows)


if __name__ == "__main__":
    main()
