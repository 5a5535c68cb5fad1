"""Small data sets on which regularization matters, and whole trainings of a small network on them, seeds traced."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.quality import random_like

BATCH, WIDTH = 50, 64


class Problem(NamedTuple):
    """Inputs and labels: to train on, to choose hyperparameters by, and to report."""

    training: tuple
    validation: tuple
    test: tuple
    classes: int


def _split(x, y, *sizes):
    ends = np.cumsum((0, *sizes))
    parts = [(jnp.asarray(x[a:b], jnp.float32), jnp.asarray(y[a:b])) for a, b in itertools.pairwise(ends)]
    return Problem(*parts, int(y.max()) + 1)


def digits():
    """Handwritten digits: 300 to train on, 600 to validate, 897 to test."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return _split(x[order] / 16, y[order], 300, 600, 897)


def teacher():
    """The classes that a random network tells apart, with a fifth of the training labels drawn by lot."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6600, 20))
    hidden = np.tanh(x @ rng.standard_normal((20, 10)) / 3)
    y = (hidden @ rng.standard_normal((10, 5))).argmax(-1)
    noisy = rng.random(600) < 0.2
    y[:600][noisy] = rng.integers(0, 5, noisy.sum())
    return _split(x, y, 600, 2000, 4000)


PROBLEMS = {"digits": digits, "teacher": teacher}


def network(key, inputs, outputs):
    """Return the parameters of a network with one hidden layer."""
    sizes = {"body": (inputs, WIDTH), "head": (WIDTH, outputs)}
    return random_like({name: {"kernel": (m, n), "bias": (n,)} for name, (m, n) in sizes.items()}, key)


def logits(params, x):
    hidden = jax.nn.relu(x @ params["body"]["kernel"] + params["body"]["bias"])
    return hidden @ params["head"]["kernel"] + params["head"]["bias"]


def loss_of(params, part):
    x, y = part
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def error_of(params, part):
    """Return the share of wrong answers in percent."""
    x, y = part
    return 100 * (logits(params, x).argmax(-1) != y).mean()


def fit(tx, params, part, key, updates, every=None):
    """Return the parameters after `updates` steps; with `every`, a tree of them after each so many."""
    x, y = part

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(y))
        grads = jax.grad(loss_of)(params, (x[rows], y[rows]))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def block(carry, keys):
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, carry[0]

    keys = jax.random.split(key, updates).reshape(-1, every or updates)
    (params, _), along = jax.lax.scan(block, (params, tx.init(params)), keys)
    return params if every is None else along


def scores(params, problem):
    return {
        "validation loss": loss_of(params, problem.validation),
        "validation error": error_of(params, problem.validation),
        "test error": error_of(params, problem.test),
    }


def train(problem, tx, seed, updates):
    """Return the scores of one training from scratch; the seed decides the start and the batches."""
    key = jax.random.key(seed)
    params = network(key, problem.training[0].shape[-1], problem.classes)
    return scores(fit(tx, params, problem.training, jax.random.fold_in(key, 1), updates), problem)
