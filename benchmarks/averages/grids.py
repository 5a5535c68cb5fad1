"""Grids over the rate for every arm, and each arm's best pair once more on seeds that had no part in the choice."""

import functools

import numpy as np

import adamw_jax as aj
from benchmarks.averages.arms import LAST, RESTARTS, RUNS, averages, train
from benchmarks.decoupling import grids
from benchmarks.decoupling.grids import now
from benchmarks.decoupling.networks import residual
from benchmarks.decoupling.regimes import REGIMES, transformer
from benchmarks.report import HERE

RAW = HERE / "results" / "averages"
SEEDS, FRESH = list(range(4)), list(range(4, 14))
load = functools.partial(grids.load, folder=RAW)
save = functools.partial(grids.save, folder=RAW)


def _narrow_cnn(regime, updates):
    init, logits = residual("batch", width=8)
    return regime._replace(init=init, logits=logits, updates=updates)


STUDIED = {
    "logistic regression": (REGIMES["logistic regression, scales alike"]._replace(updates=992), 0.016, 0.016),
    "normalized MLP": (REGIMES["normalized MLP"]._replace(updates=1008), 0.032, 0.0008),
    "MLP, no normalization": (REGIMES["digits, MLP, no normalization"]._replace(updates=800), 0.0256, 0.004),
    "transformer, one pass": (transformer(updates=128)._replace(updates=512, batch=4), 0.016, 0.0025),
    "CNN, noisy labels": (_narrow_cnn(REGIMES["CNN, BatchNorm, 20 % by lot"], 496), 0.01, 0.0032),
}
"""Regime, and rate and decay in the middle of the grid: the study's regimes, some narrower or shorter."""


def trainings(regime, schedule, pairs, seeds):
    """Return the scores of pairs (rate, decay) on all seeds: {score: (pair, seed, average)}."""
    points = [{"rate": rate, "decay": decay, "seed": seed} for rate, decay in pairs for seed in seeds]
    run = functools.partial(train, regime)
    if schedule == RESTARTS:
        run = functools.partial(run, RESTARTS)
    else:
        points = [point | {"schedule": list(RUNS).index(schedule)} for point in points]
    found = aj.sweep(run, points, chunk_size=min(regime.at_once or 20, 20), progress=False).values
    return {score: np.reshape(values, (len(pairs), len(seeds), -1)) for score, values in found.items()}


def best_of(measured):
    """Return the index of each average's best pair, by the mean validation loss over the seeds."""
    return np.nan_to_num(np.asarray(measured["validation loss"], float), nan=np.inf).mean(1).argmin(0)


def beyond(axis, chosen, factor):
    """Return the next values of an axis behind those of its ends that were chosen."""
    low, high = min(axis), max(axis)
    return [low / factor] * (low in chosen) + [high * factor] * (high in chosen)


def grid(regime, rate, decay, seeds, reach=2):
    """Return the scores of rates by factors of 2 and decays by factors of 4, the same for all schedules.

    The grid grows until no average of any schedule has its best rate or decay at an end, `reach` times at most.
    """
    rates, decays = [rate * 2.0**k for k in (-2, -1, 0, 1, 2)], [decay * 4.0**k for k in (-1, 0, 1)]
    pairs = [(rate, decay) for rate in rates for decay in decays]
    found = {
        schedule: {
            "seeds": seeds,
            "averages": [LAST, *averages(schedule, regime.updates)],
            "pairs": [],
            "validation loss": [],
        }
        for schedule in (*RUNS, RESTARTS)
    }
    for _ in range(reach + 1):
        for schedule, measured in found.items():
            measured["validation loss"] += trainings(regime, schedule, pairs, seeds)["validation loss"].tolist()
            measured["pairs"] += pairs
        chosen = [measured["pairs"][place] for measured in found.values() for place in best_of(measured)]
        more_rates, more_decays = (
            beyond(axis, {pair[k] for pair in chosen}, factor)
            for k, (axis, factor) in enumerate(((rates, 2), (decays, 4)))
        )
        known, rates, decays = set(measured["pairs"]), rates + more_rates, decays + more_decays
        pairs = [(rate, decay) for rate in rates for decay in decays if (rate, decay) not in known]
        if not pairs:
            break
    return found


def study(title, regime, rate, decay, seeds=SEEDS, fresh=FRESH):
    """Measure the grids of all schedules, and the best pairs of their averages on fresh seeds."""
    regime, begin = regime._replace(updates=regime.updates // 16 * 16), now()
    found = grid(regime, rate, decay, seeds)
    save("grid", title, begin, found)
    begin, again = now(), {}
    for schedule, measured in found.items():
        best = best_of(measured)
        pairs = [measured["pairs"][place] for place in sorted(set(best))]
        values = trainings(regime, schedule, pairs, fresh)
        again[schedule] = {}
        for index, (name, place) in enumerate(zip(measured["averages"], best, strict=True)):
            rate, decay = measured["pairs"][place]
            kept = {score: each[pairs.index((rate, decay)), :, index].tolist() for score, each in values.items()}
            again[schedule][name] = {"rate": rate, "decay": decay, "values": kept}
    save("best", title, begin, {"seeds": fresh, "schedules": again})
