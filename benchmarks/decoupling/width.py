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
COUPLED, HELD = "AdamW, times the rate", "Adam, norms held but at the ends"


def tuned(rates, decays, losses):
    """Return the pair of the smallest mean loss: losses (rate, decay, seed)."""
    row, column = best_pair(np.nan_to_num(np.asarray(losses, float), nan=1e3))
    return rates[row], decays[column]


def over(regime, pair, held, seeds):
    """Return {form: {score: (rate, seed)}}."""
    schedule = aj.cosine_warm_restarts(regime.updates, endpoint=False)
    best_rate, best_decay = pair
    found = {}
    for name, form, decay_at in (
        ("AdamW", "AdamW", lambda rate: best_decay),
        (COUPLED, "AdamW", lambda rate: best_decay * rate / best_rate),
        (held, held, lambda rate: 0.0),
    ):

        def run(rate, decay, seed, form=form):
            return train(regime, FORMS[form](rate, decay, schedule, regime.b2), seed)

        grid = [{"rate": rate, "decay": decay_at(rate), "seed": seed} for rate in RATES for seed in range(seeds)]
        values = aj.sweep(run, grid, chunk_size=regime.at_once, progress=False).values
        found[name] = {score: each.reshape(len(RATES), seeds).tolist() for score, each in values.items()}
    return found


def measure():
    """Measure the fully normalized MLP and the character transformer; needs their parts `sizes` and `grid`."""
    first = load("sizes")["width"][1]["1"]
    pair = tuned(first["rate"], first["decay"], first["values"]["validation loss"])
    begin, found = now(), {}
    for factor in WIDTHS:
        found[str(factor)] = over(widened(factor)._replace(updates=UPDATES["width"]), pair, "Adam, norms held", 5)
    save("width", "normalized MLP", begin, {"rates": RATES, "pair": pair, "values": found})
    title = "character transformer, one pass"
    grid = load("grid")[title][1]["AdamW"]
    pair = tuned(grid["rates"], grid["decays"], grid["values"]["validation loss"])
    begin, found = now(), {}
    for factor in WIDTHS:
        found[str(factor)] = over(transformer(factor), pair, HELD, 3)
    save("width", title, begin, {"rates": RATES, "pair": pair, "values": found})
