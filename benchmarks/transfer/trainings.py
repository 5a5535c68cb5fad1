"""One training of a small transformer on characters, as a program of its shape with all numbers traced.

A point of the study is a flat record: the shape of the run (width, depth, batch, updates) and its numbers.
"""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from benchmarks.problems import random_like

VOCABULARY, CONTEXT, HEAD = 128, 32, 8
EVALUATED = 512
"""Windows of each of the two parts, to tune by and to report."""

SHAPE = ("width", "depth", "batch", "updates")


@functools.cache
def windows():
    """Return windows of the sources of Python's standard library, each character once: inputs and what follows."""
    import sysconfig

    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "".join(file.read_text("ascii", "ignore") for file in files)
    codes = np.frombuffer(text.encode(), np.uint8)
    codes = codes[: (len(codes) - 1) // CONTEXT * CONTEXT + 1].astype(np.int32)
    x, y = (part.reshape(-1, CONTEXT) for part in (codes[:-1], codes[1:]))
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order]


def examples(seed, number):
    """Return the training windows of a seed, each read once; the first ones are for tuning and reporting."""
    x, y = windows()
    rows = 2 * EVALUATED + np.random.default_rng(seed).permutation(len(x) - 2 * EVALUATED)[:number]
    return x[rows], y[rows]


def shapes(width, depth):
    """Return the shapes of the parameters."""
    block = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    ends = {"embed": (VOCABULARY, width), "positions": (CONTEXT, width), "head": (width, VOCABULARY)}
    return ends | {"blocks": [block] * depth}


def norm(x):
    return jax.nn.standardize(x, epsilon=1e-5)


def attend(p, x):
    """Return causal attention with heads of 8 features: a wider model has more of them."""
    q, k, v = jnp.split((x @ p["qkv"]).reshape(*x.shape[:-1], -1, 3 * HEAD), 3, axis=-1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(HEAD)
    seen = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e9))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ p["out"]


def loss_of(params, x, y, branch):
    """Return the mean cross entropy; every residual branch is multiplied by `branch`."""
    h = params["embed"][x] + params["positions"]
    for p in params["blocks"]:
        h = h + branch * attend(p, norm(h))
        h = h + branch * (jax.nn.gelu(norm(h) @ p["up"]) @ p["down"])
    return optax.softmax_cross_entropy_with_integer_labels(norm(h) @ params["head"], y).mean()


def adamw(p, schedule):
    """AdamW in the paper's form: every leaf decays, and the matrices but the embeddings have a multiplier."""
    return aj.adamw(
        p["rate"],
        b1=p["b1"],
        b2=p["b2"],
        eps=p["eps"],
        weight_decay=p["decay"],
        lr_multipliers={"blocks|head": p["matrices"]},
        schedule=schedule,
    )


def muon(p, schedule):
    """Muon on the matrices of the blocks, at ten times the rate; AdamW on the rest."""
    return aj.decoupled(
        {"blocks": aj.scale_by_muon(p["b1"]), "": aj.scale_by_adam(p["b1"], p["b2"], p["eps"])},
        p["rate"],
        weight_decay=p["decay"],
        lr_multipliers={"blocks": p["matrices"], "head": p["head"]},
        schedule=schedule,
    )


def held(p, schedule):
    """Adam with the norms of the blocks' matrices held; the rest decays."""
    return aj.adamw(
        p["rate"],
        b1=p["b1"],
        b2=p["b2"],
        eps=p["eps"],
        weight_decay={"blocks": 0.0, "": p["decay"]},
        hold_norm="blocks",
        lr_multipliers={"blocks|head": p["matrices"]},
        schedule=schedule,
    )


OPTIMIZERS = {"adamw": adamw, "muon": muon, "held": held}


@functools.cache
def program(optimizer, width, depth, batch, updates):
    """Return the compiled training of a shape: numbers, inputs, labels -> losses of the two parts."""
    x, y = (jnp.asarray(part[: 2 * EVALUATED].reshape(2, EVALUATED, CONTEXT)) for part in windows())
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, updates // 16, updates, 0.0)

    @jax.jit
    def run(p, inputs, labels):
        params = random_like(shapes(width, depth), jax.random.key(p["seed"]))
        tx = OPTIMIZERS[optimizer](p, schedule)

        def step(carry, batch):
            params, state = carry
            grads = jax.grad(loss_of)(params, *batch, p["branch"])
            changes, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, changes), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), (inputs, labels))
        return [loss_of(params, x[i], y[i], p["branch"]) for i in range(2)]

    def train(numbers):
        inputs, labels = (
            jnp.asarray(part.reshape(updates, batch, CONTEXT)) for part in examples(numbers["seed"], batch * updates)
        )
        return [float(loss) for loss in run(numbers, inputs, labels)]

    return train


def score(point):
    """Return a point with its losses, to tune by and to report, and the seconds of processor time."""
    begin = time.process_time()
    train = program(point["optimizer"], *(point[name] for name in SHAPE))
    numbers = {key: value for key, value in point.items() if key not in (*SHAPE, "optimizer", "label")}
    tuning, reported = train(numbers)
    return point | {"tuning": tuning, "reported": reported, "seconds": round(time.process_time() - begin, 2)}
