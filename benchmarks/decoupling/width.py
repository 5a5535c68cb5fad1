"""What a rate tuned at one width is worth at two and four times it: with a decay, coupled or not, and with norms held.

The decay is the one that was best at the first width and the best rate there; nothing but the width and the rate
changes. In the coupled form it moves with the rate, as in optax, PyTorch and Keras.
"""

import numpy as np

import adamw_jax as aj
from benchmarks.decoupling.figures import best_pair
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.grids import load, now, save
from benchmarks.decoupling.regimes import transformer
from benchmarks.decoupling.sizes import UPDATES, WIDTHS, widened
from benchmarks.decoupling.trainings import train

RATES = [2.0**k / 1000 for k in range(9)]
COUPLED = "AdamW, times the rate"
MLP, TRANSFORMER = "normalized MLP", "character transformer, one pass"


def tuned(rates, decays, losses):
    """Return the pair of the smallest mean loss: losses (rate, decay, seed)."""
    row, column = best_pair(np.nan_to_num(np.asarray(losses, float), nan=1e3))
    return rates[row], decays[column]


def over(regime, pair, rates, forms, seeds):
    """Return {form: {score: (rate, seed)}}."""
    schedule = aj.cosine_warm_restarts(regime.updates, endpoint=False)
    best_rate, best_decay = pair
    found = {}
    for name in forms:

        def run(rate, decay, seed, form="AdamW" if name == COUPLED else name):
            return train(regime, FORMS[form](rate, decay, schedule, regime.b2), seed)

        decay_at = {rate: best_decay * (rate / best_rate if name == COUPLED else 1.0) for rate in rates}
        grid = [{"rate": rate, "decay": decay_at[rate], "seed": seed} for rate in rates for seed in range(seeds)]
        values = aj.sweep(run, grid, chunk_size=regime.at_once, progress=False).values
        found[name] = {score: each.reshape(len(rates), seeds).tolist() for score, each in values.items()}
    return found


def normalized():
    """Return pair, rates and scores of the fully normalized MLP; needs the part `sizes`."""
    first = load("sizes")["width"][1]["1"]
    pair = tuned(first["rate"], first["decay"], first["values"]["validation loss"])
    forms = ["AdamW", COUPLED, "Adam, norms held"]
    regimes = {factor: widened(factor)._replace(updates=UPDATES["width"]) for factor in WIDTHS}
    return pair, RATES, {str(factor): over(regime, pair, RATES, forms, 5) for factor, regime in regimes.items()}


def reading():
    """Return pair, rates and scores of the character transformer; needs its part `grid`."""
    grid = load("grid")[TRANSFORMER][1]["AdamW"]
    pair = tuned(grid["rates"], grid["decays"], grid["values"]["validation loss"])
    forms = ["AdamW", "Adam, norms held but at the ends"]
    return pair, RATES[3:], {str(factor): over(transformer(factor), pair, RATES[3:], forms, 3) for factor in WIDTHS}


def measure(networks):
    """Measure those of the two networks."""
    for title, scores in {MLP: normalized, TRANSFORMER: reading}.items():
        if title in networks:
            begin = now()
            pair, rates, values = scores()
            save("width", title, begin, {"rates": rates, "pair": pair, "values": values})
