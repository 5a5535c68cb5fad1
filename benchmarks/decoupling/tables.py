"""The tables of the study, each derived from results/decoupling/*.json; nothing is measured here."""

import numpy as np

from benchmarks.decoupling.figures import coupling_slope, interval, paired, with_spread, written
from benchmarks.decoupling.forms import HELD
from benchmarks.decoupling.grids import load
from benchmarks.decoupling.rotation import predicted
from benchmarks.decoupling.run_tables import budgets, multiplier, restarts
from benchmarks.decoupling.size_tables import size_rules, sizes, width

ENDS_FREE = "AdamW, none at the ends"
WITHIN = 1.5
"""A rate counts for a slope if its best score is at most so many times the grid's."""


def scores_of(measured, name):
    """Return a score as an array, with what diverged as 1000."""
    return np.nan_to_num(np.asarray(measured["values"][name], float), nan=1e3, posinf=1e3)


def slope(measured, name):
    """Return the slope of the mean over the seeds, and its bootstrap interval."""
    values = scores_of(measured, name)

    def estimate(seeds):
        return coupling_slope(measured["rates"], measured["decays"], values[..., seeds].mean(-1), WITHIN)

    return estimate(np.arange(values.shape[-1])), interval(estimate, values.shape[-1])


def separable():
    """(b) The slope of log(best decay) over log(rate), with its 90 % bootstrap interval over the seeds."""
    rows, regimes = [], {}
    for title, (_, found) in load("grid").items():
        regimes[title] = found
        if ENDS_FREE in found:
            regimes[f"{title}, no decay at the ends"] = {"AdamW": found[ENDS_FREE]}
    for title, found in regimes.items():
        for kind in ("error", "loss"):
            row = {"regime": title, "seeds": len(found["AdamW"]["seeds"]), "slope on": f"validation {kind}"}
            slopes = {form: slope(found[form], f"validation {kind}") for form in found}
            row |= {"paper's form": written(*slopes["AdamW"]), "times the rate": written(*slopes["AdamW"], plus=-1.0)}
            row |= {
                form: written(*slopes[form]) if form in slopes else "" for form in ("Adam + L2", "SGDW", "SGD + L2")
            }
            rows.append(row)
    return rows


def best():
    """(a) Each form at its own best pair, on seeds that had no part in the choice."""
    rows = []
    for title, (_, found) in load("best").items():
        for form in found:
            peer = {"AdamW": "Adam + L2", "SGDW": "SGD + L2"}.get(form)
            if peer or "L2" in form:
                rows.append({"regime": title} | _against(found, form, peer, "L2"))
    return rows


def _against(found, form, peer, name):
    """Return the row of a form's best pair on fresh seeds, with its differences from another's."""
    measured = found[form]
    row = {"form": form, "rate, decay": f"{measured['rate']:.2g}, {measured['decay']:.2g}"}
    for kind, digits in {"error": 2, "loss": 3}.items():
        row[f"test {kind}"] = with_spread(measured["values"][f"test {kind}"], digits)
    for kind, digits in {"error": 2, "loss": 3}.items():
        row[f"{kind}, against {name}"] = ""
        if peer in found:
            difference, error, p = paired(*(found[each]["values"][f"test {kind}"] for each in (form, peer)))
            row[f"{kind}, against {name}"] = f"{difference:+.{digits}f} ± {error:.{digits}f}, p = {p:.3f}"
    return row


def hold_norm():
    """Norms that are held, the rate tuned alone, against AdamW at its best pair; on fresh seeds."""
    rows = []
    for title, (_, found) in load("best").items():
        if not set(HELD) & set(found):
            continue
        rivals = {"AdamW": None} | {form: "AdamW" for form in found if form in (*HELD, ENDS_FREE)}
        if ENDS_FREE in found:
            rivals["Adam, norms held but at the ends"] = ENDS_FREE
        for form, rival in rivals.items():
            rows.append({"regime": title} | _against(found, form, rival, "rival") | {"rival": rival or ""})
    return rows


def transfer(factors=(-1, 0, 1, 2), start=1):
    """What a tuned decay is worth when only the rate changes, by half decades; test error (%) of the grids' seeds."""
    rows = []
    for title, (_, found) in load("grid").items():
        forms = {"paper's form": ("AdamW", 0), "times the rate": ("AdamW", 1), "Adam + L2": ("Adam + L2", 0)}
        for name, (form, shear) in forms.items():
            if form not in found:
                continue
            measured = found[form]
            tuned = int(scores_of(measured, "validation error")[start].mean(-1).argmin())
            row = {"regime": title, "form": name, "tuned at rate": f"{measured['rates'][start]:.2g}"}
            for factor in factors:
                column, place = tuned + shear * factor, start + factor
                inside = 0 <= column < len(measured["decays"]) and place < len(measured["rates"])
                values = np.asarray(measured["values"]["test error"], float)[place, column] if inside else None
                row[f"rate x {10 ** (factor / 2):.2g}"] = with_spread(values, 1) if inside else "off the grid"
            rows.append(row)
    return rows


def front_page():
    """The maps of the front page: fully normalized MLP, mean of three seeds."""
    rows = []
    for _, found in load("maps").values():
        for form, losses in found["loss"].items():
            losses = np.asarray(losses, float).mean(-1)
            row = {"form": form, "slope": f"{coupling_slope(found['rates'], found['decays'], losses):.2f}"}
            best = (f"{found['decays'][column]:.2g}" for column in losses.argmin(1))
            row |= {f"best decay at {rate:.2g}": decay for rate, decay in zip(found["rates"], best, strict=True)}
            rows.append(row | {"best loss": f"{losses.min():.3f}"})
    return rows


def rotation():
    """The mean angle per update in equilibrium, as a share of the prediction, and the length of the first kernel."""
    rows = []
    for _, found in load("rotation").values():
        for form, measured in found.items():
            angles, norms = (np.asarray(measured[name], float) for name in ("angle", "norm"))
            for index, decay in enumerate(measured["decay"]):
                row = {"form": form, "decay": f"{decay:.2g}", "predicted angle": f"{predicted(decay):.4f}"}
                for place, rate in enumerate(measured["rate"]):
                    here = angles[place, index]
                    row[f"rate {rate:.2g}"] = f"{here.mean():.4f} (length {norms[place, index].mean():.2g})"
                spread = angles[:, index].mean(1)
                row["fastest / slowest layer"] = f"{(spread.max(-1) / spread.min(-1)).mean():.2f}"
                rows.append(row)
    return rows


TABLES = {
    "decoupling_maps": (front_page, "maps"),
    "decoupling_separable": (separable, "grid"),
    "decoupling_transfer": (transfer, "grid"),
    "decoupling_best": (best, "best"),
    "decoupling_budgets": (budgets, "budgets"),
    "decoupling_restarts": (restarts, "restarts"),
    "decoupling_multiplier": (multiplier, "multiplier"),
    "decoupling_rotation": (rotation, "rotation"),
    "decoupling_hold_norm": (hold_norm, "best"),
    "decoupling_sizes": (sizes, "sizes"),
    "decoupling_size_rules": (size_rules, "sizes"),
    "decoupling_width": (width, "width"),
}
"""Name between the marks -> the function, and the part that it reads."""
