"""Whole trainings as functions of traced numbers: what the optimizer is made from, and the seed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.decoupling.forms import WIDE


class Problem(NamedTuple):
    """Inputs and labels: to train on, to choose hyperparameters by, and to report."""

    training: tuple
    validation: tuple
    test: tuple


class Regime(NamedTuple):
    """A data set with the network that is trained on it.

    Attributes:
      problem: seed -> `Problem`; the seed decides which examples are trained on, and labels that are drawn by lot.
      init: key -> params.
      logits: params, x, rows -> logits; a normalization over the batch takes its statistics from the first `rows` rows,
        all of them where that is None.
      updates, batch: of a training.
      augment: key, x -> x.
      one_pass: takes the examples in their order, each once, instead of batches by lot.
      at_once: trainings side by side in one program; None: all.
      axes: form -> (rates, decays), the grid that is searched.
      b2: of Adam's second moment.
      choose: "error" or "loss", by which the best pair is chosen on the validation examples.
    """

    problem: Callable
    init: Callable
    logits: Callable
    updates: int
    batch: int
    augment: Callable | None = None
    one_pass: bool = False
    at_once: int | None = None
    axes: dict = WIDE
    b2: float = 0.999
    choose: str = "error"


REFERENCE = 512
"""Training examples whose statistics a normalization over the batch takes for predictions."""


def loss_of(regime, params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(regime.logits(params, x, None), y).mean()


def run(regime, tx, params, training, key, updates, every=None):
    """Return parameters and state after `updates` steps, and the parameters after each `every` of them."""
    x, y = training

    def step(carry, now):
        params, state = carry
        key, count = now
        lot, noise = jax.random.split(key)
        if regime.one_pass:
            rows = count * regime.batch + jnp.arange(regime.batch)
        else:
            rows = jax.random.randint(lot, (regime.batch,), 0, len(y))
        inputs = x[rows] if regime.augment is None else regime.augment(noise, x[rows])
        grads = jax.grad(loss_of, argnums=1)(regime, params, inputs, y[rows])
        changes, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, changes), state), None

    def block(carry, now):
        carry, _ = jax.lax.scan(step, carry, now)
        return carry, carry[0]

    keys = jax.random.split(key, updates).reshape(-1, every or updates)
    counts = jnp.arange(updates).reshape(keys.shape)
    return jax.lax.scan(block, (params, tx.init(params)), (keys, counts))


def fit(regime, tx, params, training, key, updates, every=None):
    """Return the parameters after `updates` steps; with `every`, a tree of them after each so many."""
    (params, _), along = run(regime, tx, params, training, key, updates, every)
    return params if every is None else along


def loss_and_error(regime, params, reference, part):
    """Return the mean loss and the share of wrong answers in percent."""
    x, y = part
    rows = reference[:REFERENCE]
    out = regime.logits(params, jnp.concatenate([rows, x]), len(rows))[len(rows) :]
    losses = optax.softmax_cross_entropy_with_integer_labels(out, y)
    return losses.mean(), 100 * (out.argmax(-1) != y).mean(dtype=jnp.float32)


def scores(regime, params, problem):
    found = {}
    for name in ("validation", "test"):
        loss, error = loss_and_error(regime, params, problem.training[0], getattr(problem, name))
        found |= {f"{name} loss": loss, f"{name} error": error}
    return found


def train(regime, tx, seed, updates=None, every=None):
    """Return the scores of one training from scratch; with `every`, also on the way, along a leading axis."""
    key = jax.random.key(seed)
    problem = regime.problem(seed)
    start = regime.init(key)
    params = fit(regime, tx, start, problem.training, jax.random.fold_in(key, 1), updates or regime.updates, every)
    if every is None:
        return scores(regime, params, problem)
    return jax.lax.map(lambda params: scores(regime, params, problem), params)
