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
SPREAD = (1 / 4, 1, 4)
"""Decays that are tried, as multiples of the study's best, where a training takes less than a tenth of a second."""

load = functools.partial(grids.load, folder=RAW)
save = functools.partial(grids.save, folder=RAW)


def _narrow(regime, width, updates):
    init, logits = residual("batch", width=width)
    return regime._replace(init=init, logits=logits, updates=updates)


def _around(title, rate, decay, updates):
    return REGIMES[title]._replace(updates=updates), rate, [decay * factor for factor in SPREAD]


STUDIED = {
    "logistic regression": _around("logistic regression, scales alike", 0.032, 0.032, 992),
    "normalized MLP": _around("normalized MLP", 0.032, 0.0032, 1008),
    "MLP, no normalization": _around("digits, MLP, no normalization", 0.0032, 0.001, 800),
    "transformer, one pass": (transformer(updates=128)._replace(updates=512, batch=4), 0.032, [0.01]),
    "CNN, noisy labels": (_narrow(REGIMES["CNN, BatchNorm, 20 % by lot"], 8, 496), 0.01, [0.0032]),
}
"""Regime, rate in the middle of the grid, decays: the study's regimes at its best pairs, narrower and shorter."""


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
    losses = np.asarray(measured["values"]["validation loss"], float)
    return np.nan_to_num(losses, nan=np.inf).mean(1).argmin(0)


def grid(regime, schedule, rate, decays, seeds, reach=4):
    """Measure rates by factors of two, on until no average has its best rate at an end, `reach` times at most."""
    measured = {"pairs": [], "seeds": seeds, "averages": [LAST, *averages(schedule, regime.updates)], "values": {}}
    rates = [rate * 2.0**k for k in (-2, -1, 0, 1, 2)]
    for _ in range(reach + 1):
        pairs = [(rate, decay) for rate in rates for decay in decays]
        for score, values in trainings(regime, schedule, pairs, seeds).items():
            measured["values"][score] = measured["values"].get(score, []) + values.tolist()
        measured["pairs"] += pairs
        low, high = (end([pair[0] for pair in measured["pairs"]]) for end in (min, max))
        chosen = {measured["pairs"][place][0] for place in best_of(measured)}
        rates = [low / 2] * (low in chosen) + [2 * high] * (high in chosen)
        if not rates:
            break
    return measured


def study(title, regime, rate, decays, seeds=SEEDS, fresh=FRESH):
    """Measure the grids of all schedules, and the best pairs of their averages on fresh seeds."""
    regime, begin, found = regime._replace(updates=regime.updates // 16 * 16), now(), {}
    for schedule in (*RUNS, RESTARTS):
        found[schedule] = measured = grid(regime, schedule, rate, decays, seeds)
        save("grid", title, begin, found)
    begin, again = now(), {}
    for schedule, measured in found.items():
        best = best_of(measured)
        pairs = [measured["pairs"][place] for place in sorted(set(best))]
        values = trainings(regime, schedule, pairs, fresh)
        places = [pairs.index(measured["pairs"][place]) for place in best]
        again[schedule] = {
            name: {
                "rate": pairs[place][0],
                "decay": pairs[place][1],
                "values": {score: each[place, :, index].tolist() for score, each in values.items()},
            }
            for index, (name, place) in enumerate(zip(measured["averages"], places, strict=True))
        }
        save("best", title, begin, {"seeds": fresh, "schedules": again})
