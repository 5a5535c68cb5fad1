"""Grids over rate and decay, and the best pairs once more on seeds that had no part in the choice."""

import json
import re
import time

import numpy as np

import adamw_jax as aj
from benchmarks.decoupling.figures import best_pair
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.trainings import train
from benchmarks.peers import machine
from benchmarks.report import HERE

RAW = HERE / "results" / "decoupling"
SEEDS, FRESH = list(range(5)), list(range(5, 15))


def slug(title):
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def save(part, title, begin, found, folder=None):
    """Write <part>-<title>.json to a folder, results/decoupling; with the machine and the seconds since `begin`."""
    folder = folder or RAW
    folder.mkdir(exist_ok=True)
    seconds = {"wall s": round(time.time() - begin[0]), "CPU s": round(time.process_time() - begin[1])}
    found = json.loads(json.dumps(found), parse_float=lambda number: float(f"{float(number):.5g}"))
    text = json.dumps({"title": title, "machine": machine() | seconds, "found": found})
    (folder / f"{part}-{slug(title)}.json".replace("--", "-")).write_text(text + "\n")
    print(f"{part}: {title}, {seconds}", flush=True)


def load(part, folder=None):
    """Return {title: (machine, found)} of what was measured."""
    files = [json.loads(path.read_text()) for path in sorted((folder or RAW).glob(f"{part}-*.json"))]
    return {file["title"]: (file["machine"], file["found"]) for file in files}


def now():
    return time.time(), time.process_time()


def points(regime, form, points, seeds):
    """Return the scores of pairs (rate, decay), on all seeds: {score: (pair, seed)}."""
    schedule = aj.cosine_warm_restarts(regime.updates, endpoint=False)

    def run(rate, decay, seed):
        return train(regime, FORMS[form](rate, decay, schedule, regime.b2), seed)

    grid = [{"rate": rate, "decay": decay, "seed": seed} for rate, decay in points for seed in seeds]
    found = aj.sweep(run, grid, chunk_size=regime.at_once, progress=False).values
    return {score: np.asarray(values).reshape(len(points), len(seeds)) for score, values in found.items()}


def grid(title, regime, forms=None, seeds=SEEDS):
    """Measure the grids of a regime: of all its forms, or of some, beside those that were measured before."""
    begin, found = now(), {}
    if forms and title in load("grid"):
        before, found = load("grid")[title]
        begin = tuple(start - before[key] for start, key in zip(begin, ("wall s", "CPU s"), strict=True))
    for form in forms or regime.axes:
        rates, decays = regime.axes[form]
        scores = points(regime, form, [(rate, decay) for rate in rates for decay in decays], seeds)
        values = {name: each.reshape(len(rates), len(decays), len(seeds)).tolist() for name, each in scores.items()}
        found[form] = {"rates": rates, "decays": decays, "seeds": seeds, "values": values}
        save("grid", title, begin, found)


def best(title, regime, seeds=FRESH):
    """Train the best pair of each form once more, on fresh seeds."""
    begin, found = now(), {}
    for form, measured in load("grid")[title][1].items():
        errors = np.asarray(measured["values"][f"validation {regime.choose}"])
        row, column = best_pair(np.nan_to_num(errors, nan=100.0))
        pair = measured["rates"][row], measured["decays"][column]
        scores = {name: each[0].tolist() for name, each in points(regime, form, [pair], seeds).items()}
        found[form] = {"rate": pair[0], "decay": pair[1], "seeds": seeds, "values": scores}
    save("best", title, begin, found)
