"""Directions on the small transformer: each at its own best rate, and with its state in half the memory."""

import argparse

import jax
import numpy as np
import optax
import optax.contrib

import adamw_jax as aj
from benchmarks.quality import training, transformer
from benchmarks.report import publish

STEPS = 200
"""Updates of a training."""

OPTIONS = {
    "weight_decay": aj.matrices(1e-4, but="tokens|places"),
    "schedule": aj.cosine_warm_restarts(STEPS, warmup=20),
}


def muon(narrow):
    """Muon for the blocks' matrices, in steps as large as Adam's; Adam for embeddings and head."""
    return {"blocks": narrow(aj.scale_by_muon(consistent_rms=0.2)), "": narrow(optax.scale_by_adam(b2=0.99))}


DIRECTIONS = {
    "adamw": lambda narrow: narrow(optax.scale_by_adam(b2=0.99)),
    "lion": lambda narrow: narrow(optax.scale_by_lion()),
    "ademamix": lambda narrow: narrow(optax.contrib.scale_by_ademamix(b2=0.99)),
    "muon by path": muon,
}
RATES = {"adamw": 8e-3, "lion": 2e-3, "ademamix": 4e-3, "muon by path": 8e-3}
"""The middle of each direction's grid, whose rates are a factor of two apart."""

STATES = {"float32": lambda direction: direction, "with_narrow_state": aj.with_narrow_state}
NARROW = ("lion", "ademamix", "muon by path")


def maker(name, state):
    return lambda rate: aj.decoupled(DIRECTIONS[name](STATES[state]), rate, **OPTIONS)


def best_rate(name, train):
    """Return the best rate of a grid that goes on to where the best one lies inside, and the losses over the grid."""
    losses = {}

    def loss(rate):
        if rate not in losses:
            losses[rate] = float(train(0, rate))
            print(name, rate, losses[rate], flush=True)
        return losses[rate]

    rate = RATES[name]
    while (best := min((rate / 2, rate, rate * 2), key=loss)) != rate:
        rate = best
    return rate, dict(sorted(losses.items()))


def bytes_per_parameter(name, state, problem):
    params = problem[0](jax.random.key(0))
    totals = aj.explain(maker(name, state)(1.0), params).totals
    return totals["state_bytes"] / totals["size"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    problem, rows = transformer(), []
    for name in DIRECTIONS:
        train = training(problem, maker(name, "float32"), STEPS)
        rate, searched = best_rate(name, train)
        wide = None
        for state in STATES if name in NARROW else ("float32",):
            train = train if state == "float32" else training(problem, maker(name, state), STEPS)
            losses = np.array([float(train(seed, rate)) for seed in range(args.seeds)])
            wide = losses if wide is None else wide
            rows.append(
                {
                    "direction": name,
                    "state": state,
                    "bytes/parameter": bytes_per_parameter(name, state, problem),
                    "best rate": rate,
                    "losses over the grid": ", ".join(f"{r:g}: {loss:.3f}" for r, loss in searched.items()),
                    "final training loss": float(losses.mean()),
                    "standard deviation over seeds": float(losses.std(ddof=1)),
                    "distance from float32 in its standard deviations": float(
                        (losses.mean() - wide.mean()) / wide.std(ddof=1)
                    ),
                    "paired difference": float((losses - wide).mean()),
                    "seeds": args.seeds,
                    "updates": STEPS,
                }
            )
            print(rows[-1], flush=True)
    publish("directions", rows)


if __name__ == "__main__":
    main()
