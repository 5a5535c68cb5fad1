"""The arms of the study: five schedules, the averages that a training under each of them keeps, and its scores."""

import functools

import jax
import jax.numpy as jnp

import adamw_jax as aj
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.trainings import run, scores

LAST = "last weights"
HALF_LIVES, MERGED = (0.01, 0.03, 0.12), (0.1, 0.2, 0.4)
"""Shares of the run."""

RUNS = {
    "constant": lambda updates, warmup: aj.linear_warmup(warmup),
    "cosine": aj.cosine,
    "linear": aj.linear,
    "stable, decay": lambda updates, warmup: aj.warmup_stable_decay(updates, warmup=warmup, decay=round(updates / 5)),
}
"""updates, warm-up (a sixteenth) -> schedule; the decay takes the last fifth."""

RESTARTS = "restarts"
"""The name of five cycles of a cosine, each nearly a fifth of the run."""


def averages(schedule, updates):
    """Return the averages that a run under a schedule keeps, by their names."""
    if schedule == RESTARTS:
        return {"CycleMean": aj.CycleMean(), "CycleMean, ends": aj.CycleMean(ends=True)}
    found = {f"Ema {share:.0%}": aj.Ema(half_life=share * updates) for share in HALF_LIVES}
    return found | {f"DecayMerge {share:.0%}": aj.DecayMerge("linear", updates, last=share) for share in MERGED}


def train(regime, schedule, rate, decay, seed):
    """Return the scores of one training, of its last weights first and then of each average, along a leading axis.

    Args:
      schedule: `RESTARTS`, or a place among `RUNS`, which may be traced: one program for all of them.
    """
    updates, warmup = regime.updates, regime.updates // 16
    if schedule == RESTARTS:
        factor = aj.cosine_warm_restarts((updates - warmup) // 5, warmup=warmup, endpoint=False)
    else:
        factors = [make(updates, warmup) for make in RUNS.values()]
        factor = lambda count: jnp.stack([each(count) for each in factors])[schedule]  # noqa: E731, as short as it reads
    kinds = averages(schedule, updates).values()
    tx = functools.reduce(aj.with_average, kinds, FORMS["AdamW"](rate, decay, factor, regime.b2))
    key, problem = jax.random.key(seed), regime.problem(seed)
    (params, state), _ = run(regime, tx, regime.init(key), problem.training, jax.random.fold_in(key, 1), updates)
    weights = []
    for _ in kinds:
        # The last average is the outermost state; without those inside it is the only one.
        weights.insert(0, aj.averaged(state._replace(inner_state=()), params, missing="params"))
        state = state.inner_state
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, *weights)
    return jax.lax.map(lambda params: scores(regime, params, problem), stacked)
