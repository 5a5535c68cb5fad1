"""What a batch and a width ask for: the best decay, and the best rate beside it, over both.

The batch grows at the same number of examples, so that the updates shrink; the width grows at the same number of
updates. Decays are steps of two apart, so that every rule of `RULES` leads from one point of the grid to another.
"""

import functools

import adamw_jax as aj
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.grids import now, save
from benchmarks.decoupling.regimes import REGIMES, teacher
from benchmarks.decoupling.trainings import train
from examples import maps

BASE = REGIMES["normalized MLP"]
BATCHES, WIDTHS = (1, 4, 16), (1, 2, 4)
RATES, DECAYS = [4.0**k / 500 for k in range(4)], [2.0**k / 4000 for k in range(11)]
UPDATES = {"batch": 4096, "width": 1024}


def widened(factor):
    """Return the fully normalized MLP with hidden layers `factor` times as wide."""
    sizes = (maps.SIZES[0], *[factor * size for size in maps.SIZES[1:-1]], maps.SIZES[-1])
    return BASE._replace(init=functools.partial(maps.init_params, sizes=sizes))


def over(regime, updates, rates, seeds):
    """Return the scores of AdamW in the paper's form: {score: (rate, decay, seed)}, with the axes."""
    schedule = aj.cosine_warm_restarts(updates, endpoint=False)

    def run(rate, decay, seed):
        return train(regime, FORMS["AdamW"](rate, decay, schedule, regime.b2), seed, updates)

    axes = {"rate": rates, "decay": DECAYS, "seed": list(range(seeds))}
    values = aj.sweep(run, axes, chunk_size=11 * seeds, progress=False).values
    return axes | {"updates": updates, "values": {name: each.tolist() for name, each in values.items()}}


def measure(seeds=5):
    """Measure batches on the same examples again and again and in one pass, and widths."""
    examples = UPDATES["batch"] * BASE.batch
    fresh = BASE._replace(problem=functools.partial(teacher, examples=examples), one_pass=True)
    for title, regime in {"batch, one pass": fresh, "batch, again and again": BASE}.items():
        begin, found = now(), {}
        for factor in BATCHES:
            grown = regime._replace(batch=factor * regime.batch)
            found[str(factor)] = over(grown, UPDATES["batch"] // factor, RATES, seeds)
        save("sizes", title, begin, found)
    begin, found = now(), {}
    for factor in WIDTHS:
        found[str(factor)] = over(widened(factor), UPDATES["width"], RATES[:3], seeds)
    save("sizes", "width", begin, found)
