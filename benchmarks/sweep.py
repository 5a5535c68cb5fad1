"""How much wall time does a grid of 64 (learning rate, decay) pairs take as one program?

Every contender trains the same network on the digits from the same start on the same batches, a whole training in one
`lax.scan`, and pays for all of its compilations:

    one program       adamw_jax in `sweep`: 64 trainings side by side, compiled once
    optax side by side optax.adamw in `sweep`
    optax one by one  64 trainings one after the other, optax.adamw with plain numbers: each is a program of its own
    optax traced      64 trainings one after the other, the numbers are arguments of one program

    python benchmarks/sweep.py [--epochs 5] [--repeats 3]

Writes results/sweep-EPOCHS.json and, of the first contender, results/sweep.png.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import numpy as np
import optax
from sklearn.datasets import load_digits

import adamw_jax as aj
from adamw_jax import plot

RESULTS = pathlib.Path(__file__).parent / "results"
BATCH = 64
GRID = {
    "learning_rate": np.geomspace(1e-4, 3e-2, 8).astype(np.float32).tolist(),
    "weight_decay": np.geomspace(1e-3, 1.0, 8).astype(np.float32).tolist(),
}


def digits():
    data = load_digits()
    order = np.random.RandomState(0).permutation(len(data.target))
    images, labels = jnp.asarray(data.data[order] / 16, jnp.float32), jnp.asarray(data.target[order])
    return (images[:1344], labels[:1344]), (images[1344:], labels[1344:])


def logits(params, x):
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss_of(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def make_train(epochs):
    """Return train(tx) -> final loss and test accuracy, the same for every contender."""
    (x, y), (x_test, y_test) = digits()
    keys = jax.random.split(jax.random.key(0), 2)
    he = jax.nn.initializers.he_normal()
    start = {"w1": he(keys[0], (64, 64)), "b1": jnp.zeros(64), "w2": he(keys[1], (64, 10)), "b2": jnp.zeros(10)}
    rng = np.random.RandomState(1)
    batches = jnp.asarray(np.concatenate([rng.permutation(len(x)).reshape(-1, BATCH) for _ in range(epochs)]))

    def train(tx):
        def step(carry, batch):
            params, state = carry
            grads = jax.grad(loss_of)(params, x[batch], y[batch])
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), batches)
        accuracy = (logits(params, x_test).argmax(-1) == y_test).mean()
        return {"loss": loss_of(params, x, y), "accuracy": accuracy}

    return train, len(batches)


def contenders(train):
    def ours(learning_rate, weight_decay):
        return train(aj.adamw(learning_rate, weight_decay=weight_decay, coupling="learning_rate"))

    def of_optax(learning_rate, weight_decay):
        return train(optax.adamw(learning_rate, weight_decay=weight_decay))

    def one_by_one():
        cells = []
        for rate in GRID["learning_rate"]:
            for decay in GRID["weight_decay"]:
                program = jax.jit(lambda rate=rate, decay=decay: of_optax(rate, decay))
                cells.append(jax.device_get(program()))
        return cells

    def traced():
        program = jax.jit(lambda rate, decay: of_optax(rate, decay))
        return [
            jax.device_get(program(rate, decay)) for rate in GRID["learning_rate"] for decay in GRID["weight_decay"]
        ]

    def stacked(run):
        def call():
            cells = run()
            return {key: np.stack([cell[key] for cell in cells]).reshape(8, 8) for key in cells[0]}

        return call

    return {
        "one program": lambda: aj.sweep(ours, GRID, progress=False).values,
        "optax side by side": lambda: aj.sweep(of_optax, GRID, progress=False).values,
        "optax one by one": stacked(one_by_one),
        "optax traced": stacked(traced),
    }


def against(cells, others):
    """Compare the final losses (relative, of 1e-3 at least) and test accuracies of two sets of 64 runs."""
    apart = np.abs(cells["loss"] - others["loss"]) / np.maximum(np.abs(others["loss"]), 1e-3)
    return {
        "largest_relative_difference_of_loss": float(apart.max()),
        "median_relative_difference_of_loss": float(np.median(apart)),
        "cells_within_1e-4": int((apart < 1e-4).sum()),
        "cells_within_1e-2": int((apart < 1e-2).sum()),
        "learning_rates_of_the_others": sorted({GRID["learning_rate"][row] for row in np.nonzero(apart >= 1e-4)[0]}),
        "largest_difference_of_test_accuracy": float(np.abs(cells["accuracy"] - others["accuracy"]).max()),
        "cells_with_the_same_test_accuracy": int((cells["accuracy"] == others["accuracy"]).sum()),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    train, updates = make_train(arguments.epochs)
    runs = contenders(train)
    jax.block_until_ready(jax.jit(lambda: train(optax.sgd(0.1)))())  # what a process pays once, whoever comes first
    seconds, values = {name: [] for name in runs}, {}
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            values[name] = run()
            seconds[name].append(time.perf_counter() - begin)
            print(f"{name:20s} {seconds[name][-1]:8.2f} s", flush=True)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    one = values["one program"]
    results = {
        "question": __doc__.splitlines()[0],
        "command": f"python benchmarks/sweep.py --epochs {arguments.epochs} --repeats {arguments.repeats}",
        "machine": {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "device": jax.devices()[0].device_kind,
            "python": sys.version.split()[0],
            "jax": jax.__version__,
            "optax": optax.__version__,
        },
        "updates_per_run": updates,
        "seconds": seconds,
        "median_seconds": median,
        "times_as_long_as_one_program": {name: value / median["one program"] for name, value in median.items()},
        "equal_results": {
            # The second line is optax against itself: what running side by side does to the rounding alone.
            name: against(values[name], values["optax one by one"])
            for name in ("one program", "optax side by side")
        },
        "best_test_accuracy": float(one["accuracy"].max()),
    }
    RESULTS.mkdir(exist_ok=True)
    device = "" if jax.default_backend() == "cpu" else f"-{jax.default_backend()}"
    (RESULTS / f"sweep-{arguments.epochs}{device}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: results[key] for key in ("times_as_long_as_one_program", "equal_results")}, indent=1))
    points = [{"learning_rate": a, "weight_decay": b} for a in GRID["learning_rate"] for b in GRID["weight_decay"]]
    table = aj.Sweep(GRID, points, one)
    ax = plot.heat_map(table, lambda values: values["accuracy"], label="test accuracy", largest=True)
    ax.figure.savefig(RESULTS / "sweep.png", dpi=120)


if __name__ == "__main__":
    main()
