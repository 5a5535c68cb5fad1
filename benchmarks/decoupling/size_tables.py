"""The tables of the studies over batch and width, derived from results/decoupling/*.json."""

import functools

import numpy as np

from benchmarks.decoupling.figures import interval, optimum, paired, with_spread, written
from benchmarks.decoupling.grids import load

PAPER, COUPLED, KEPT = "paper's form", "times the rate", "either form, one rate"
POWERS = {"1": 1.0, "1/2": 0.5, "0": 0.0, "-1/2": -0.5, "-1": -1.0}
"""By which the rules of the literature move a decay with a batch or a width."""


def _scores(measured, name):
    return np.nan_to_num(np.asarray(measured["values"][name], float), nan=1e3, posinf=1e3)


def best_places(measured, losses):
    """Return the logarithms of the best decay in both forms, and of the best rate, each with the other chosen anew.

    Last the mean over the rates of the best decay at each of them.

    Args:
      measured: with "rate" and "decay", the axes.
      losses: (rate, decay), means over seeds.
    """
    rates, decays = np.asarray(measured["rate"]), np.asarray(measured["decay"])
    ratios = np.log(decays) - np.log(rates)[:, None]
    # The rates are a power of the decays' steps apart, so that pairs of one ratio lie on diagonals of the grid.
    places, diagonal = np.unique(ratios.round(6), return_inverse=True)
    diagonals = np.full(len(places), np.inf)
    np.minimum.at(diagonals, diagonal.ravel(), losses.ravel())
    return {
        PAPER: optimum(decays, losses.min(0)),
        COUPLED: optimum(np.exp(places), diagonals),
        "rate": optimum(rates, losses.min(1)),
        KEPT: float(np.mean([optimum(decays, row) for row in losses])),
    }


def sizes():
    """The best decay over batch (same number of examples) and width, with the best rate beside."""
    rows = []
    for title, (_, found) in load("sizes").items():
        for factor, measured in found.items():
            losses = _scores(measured, "validation loss")
            best = {name: np.exp(place) for name, place in best_places(measured, losses.mean(-1)).items()}
            pair = np.unravel_index(losses.mean(-1).argmin(), losses.shape[:2])
            row = {"what": title, "times": factor, "updates": measured["updates"], "best rate": f"{best['rate']:.2g}"}
            row |= {f"best decay, {form}": f"{best[form]:.2g}" for form in (PAPER, COUPLED)}
            row["decay x updates"] = f"{best[PAPER] * measured['updates']:.2g}"
            row["test loss of the best pair"] = with_spread(_scores(measured, "test loss")[pair], 3)
            rows.append(row)
    return rows


def _slopes(found):
    """Return {what: (slope over log(factor), its interval)}."""
    grids = [(measured, _scores(measured, "validation loss")) for measured in found.values()]
    logs = np.log([float(factor) for factor in found])

    @functools.cache
    def slopes(seeds):
        places = [best_places(measured, losses[..., list(seeds)].mean(-1)) for measured, losses in grids]
        return {what: float(np.polyfit(logs, [each[what] for each in places], 1)[0]) for what in places[0]}

    seeds = grids[0][1].shape[-1]
    whole = slopes(tuple(range(seeds)))
    return {
        what: (middle, interval(lambda drawn, what=what: slopes(tuple(drawn))[what], seeds))
        for what, middle in whole.items()
    }


def _carried(found):
    """Return the test losses at the largest size with the decay of the smallest moved by each power, {power: losses}.

    The rate is chosen anew on the validation examples; a decay beyond the grid has none.
    """
    small, *_, large = found
    first, last = (_scores(found[at], "validation loss").mean(-1) for at in (small, large))
    tuned = found[small]["decay"][int(first.min(0).argmin())]
    moved = {}
    for name, power in POWERS.items():
        distance = np.abs(np.log(np.asarray(found[large]["decay"]) / (tuned * float(large) ** power)))
        if distance.min() < 1e-3:
            column = int(distance.argmin())
            moved[name] = _scores(found[large], "test loss")[int(last[:, column].argmin()), column]
    return moved


def size_rules():
    """Which power of batch or width the best decay follows, and what a decay moved by each power is worth."""
    rows = []
    for title, (_, found) in load("sizes").items():
        row, slopes = {"what": title}, _slopes(found)
        for what, (middle, ends) in slopes.items():
            row[f"power, {what}"] = written(middle, ends)
            if what in (PAPER, COUPLED):
                inside = [name for name, power in POWERS.items() if ends[0] <= power <= ends[1]]
                row[f"inside, {what}"] = ", ".join(inside) or "none"
        moved = _carried(found)
        for name in POWERS:
            row[f"test loss, decay x size^{name}"] = with_spread(moved[name], 3) if name in moved else "off the grid"
        rows.append(row)
    return rows


def width():
    """The best rate at each width, and what the rate tuned at the first costs at the others, in test loss."""
    rows = []
    for title, (_, found) in load("width").items():
        rates = found["rates"]
        for form in found["values"]["1"]:
            chosen = {
                factor: int(_scores({"values": forms[form]}, "validation loss").mean(-1).argmin())
                for factor, forms in found["values"].items()
            }
            row = {"network": title, "form": form}
            row |= {f"best rate x {factor}": f"{rates[at]:.2g}" for factor, at in chosen.items()}
            for factor, forms in found["values"].items():
                test = _scores({"values": forms[form]}, "test loss")
                row[f"test loss x {factor}"] = with_spread(test[chosen[factor]], 3)
                if factor != "1":
                    cost = paired(test[chosen["1"]], test[chosen[factor]])
                    row[f"rate of x 1 at x {factor} costs"] = "{:+.3f} ± {:.3f}, p = {:.3f}".format(*cost)
            rows.append(row)
    return rows
