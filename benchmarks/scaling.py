"""How does the cost grow with parameters, and with leaves?"""

import argparse
import time

import numpy as np

from benchmarks.compile_time import stages
from benchmarks.peers import prepare
from benchmarks.problems import fill, small_leaves
from benchmarks.report import publish

NAMES = ["optax adamw", "adamw", "adamw packed"]


def step_seconds(name, shapes, repeats=15):
    params, grads = (fill(shapes, seed, 0.02) for seed in (0, 1))
    run = prepare(name, params, grads)
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="22,23,24,25", help="powers of two: parameters in one leaf")
    parser.add_argument("--leaves", default="125,250,500")
    args = parser.parse_args()
    rows = []

    def note(name, what, by, xs, ys):
        exponent = float(np.polyfit(np.log(xs), np.log(ys), 1)[0])
        costs = ", ".join(f"{y:.3g}" for y in ys)
        rows.append(
            {"peer": name, "cost": what, "against": by, "at": ", ".join(map(str, xs)), "s": costs, "exponent": exponent}
        )

    sizes = [2 ** int(power) for power in args.sizes.split(",")]
    leaves = list(map(int, args.leaves.split(",")))
    for name in NAMES:
        note(name, "step", "parameters", sizes, [step_seconds(name, {"w": (each // 1024, 1024)}) for each in sizes])
        built = [stages(name, small_leaves(each)) for each in leaves]
        note(name, "trace", "leaves", leaves, [float(each[0]) for each in built])
        note(name, "compile", "leaves", leaves, [float(each[2]) for each in built])
        note(name, "step", "leaves", leaves, [step_seconds(name, small_leaves(each)) for each in leaves])
    publish("scaling", rows)


if __name__ == "__main__":
    main()
