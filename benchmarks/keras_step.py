"""What does the adapter cost inside Keras, compared with Keras's own AdamW in the same process?

Every optimizer gets the same model, data and decay (all kernels). Per optimizer: `trace` of `stateless_apply`,
`compile` of what was traced, one `train_on_batch`, and one step of `fit` (an epoch over its steps). The optimizers
take turns within every repetition; the table holds medians, and medians of the ratios to Keras within a repetition.

Of models made one after the other in one process the first is the fastest, by up to 5 % at 322 variables. So the models
are made anew in rounds, in another order each, every optimizer once in every place. Keras's own has two controls: run
a second time, whose distance from 1 is what the ratios can tell; and with two scalar Variables more, as many as t_cur
and eta_t are, which it only carries along and counts up.
"""

import gc
import os
import statistics
import time
from collections import defaultdict

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import optax

from adamw_jax.keras import AdamW, OptaxOptimizer
from benchmarks.report import publish

REFERENCE = "keras.optimizers.AdamW"


class TwoMore(keras.optimizers.AdamW):
    def build(self, variables):
        super().build(variables)
        self.counter = self.add_variable((), dtype="int32", name="counter")
        self.factor = self.add_variable((), name="factor")

    def _backend_update_step(self, *args):
        super()._backend_update_step(*args)
        self.counter.assign_add(1)


def optimizers(model):
    kernels = {v.path: (0.0, 1e-2) for v in model.trainable_variables if v.path.endswith("kernel")}
    own = {"weight_decays": kernels, "total_iterations": 1000, "init_verbose": False}

    def reference(make=keras.optimizers.AdamW):
        optimizer = make(1e-3, weight_decay=1e-2)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer

    def optax_adamw(learning_rate):
        def mask(tree):
            return {path: path.endswith("kernel") for path in tree}

        return optax.adamw(learning_rate, weight_decay=1e-2, mask=mask)

    return {
        REFERENCE: reference,
        f"{REFERENCE}, again": reference,
        f"{REFERENCE}, two scalars more": lambda: reference(TwoMore),
        "AdamW": lambda: AdamW(1e-3, coupling="learning_rate", **own),
        "AdamW, packed": lambda: AdamW(1e-3, coupling="learning_rate", moment_dtype="packed", **own),
        "AdamW, warm restarts": lambda: AdamW(1e-3, use_cosine_annealing=True, **own),
        "OptaxOptimizer(optax.adamw)": lambda: OptaxOptimizer(optax_adamw, 1e-3),
    }


def build_model(layers, units):
    keras.utils.set_random_seed(0)
    stack = [keras.layers.Dense(units, activation="tanh") for _ in range(layers - 1)]
    return keras.Sequential([keras.layers.Input((units,)), *stack, keras.layers.Dense(1)])


def clock(function, blocked=None):
    start = time.perf_counter()
    result = function()
    jax.block_until_ready(blocked() if blocked else None)
    return time.perf_counter() - start, result


def trace_and_compile(make, variables):
    optimizer = make()
    optimizer.build(variables)
    state = [v.value for v in optimizer.variables]
    values = [v.value for v in variables]
    jax.clear_caches()
    trace, traced = clock(lambda: jax.jit(optimizer.stateless_apply).trace(state, values, values))
    lowered = traced.lower()
    return {"trace": trace, "compile": clock(lowered.compile)[0]}


def steps(model, x, y, repeat):
    on_batch, _ = clock(lambda: [model.train_on_batch(x[:32], y[:32]) for _ in range(repeat)])
    fit, _ = clock(lambda: model.fit(x, y, batch_size=32, verbose=0, shuffle=False))
    return {"train_on_batch": on_batch / repeat, "fit": fit / (len(x) // 32)}


def turned(names, turn):
    return names[turn % len(names) :] + names[: turn % len(names)]


def measure(layers, units, builds, repetitions, per_repetition):
    variables = build_model(layers, units).trainable_variables
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32 * per_repetition, units), dtype=np.float32)
    y = x[:, :1] * 0.5
    names = list(optimizers_of(variables))
    times = defaultdict(lambda: defaultdict(list))
    for turn in range(builds):
        for name in turned(names, turn):
            for key, value in trace_and_compile(optimizers_of(variables)[name], variables).items():
                times[key][name].append(value)
    for first in range(len(names)):
        models = {}
        for name in turned(names, first):
            models[name] = build_model(layers, units)
            models[name].compile(optimizers(models[name])[name](), loss="mse")
            steps(models[name], x, y, 2)
        for turn in range(repetitions):
            for name in turned(names, turn):
                for key, value in steps(models[name], x, y, per_repetition).items():
                    times[key][name].append(value)
        del models
        gc.collect()

    def ratio(by, name):
        return statistics.median(a / b for a, b in zip(by[name], by[REFERENCE], strict=True))

    return [
        {"optimizer": name}
        | {key: ratio(by, name) for key, by in times.items()}
        | {f"{key} ms": 1e3 * statistics.median(by[name]) for key, by in times.items()}
        for name in names
    ]


def optimizers_of(variables):
    class Bag:
        trainable_variables = variables

    return optimizers(Bag)


def main():
    cases = {
        "322 variables (161 Dense layers of 16)": {
            "layers": 161,
            "units": 16,
            "builds": 7,
            "repetitions": 5,
            "per_repetition": 10,
        },
        "MLP (3 Dense layers of 64)": {"layers": 3, "units": 64, "builds": 21, "repetitions": 15, "per_repetition": 50},
    }
    publish("keras_step", [{"model": name} | row for name, case in cases.items() for row in measure(**case)])


if __name__ == "__main__":
    main()
