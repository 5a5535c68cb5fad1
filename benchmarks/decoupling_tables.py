"""The tables of the study, each derived from results/decoupling/*.json; nothing is measured here."""

import numpy as np

from benchmarks.decoupling_figures import coupling_slope, interval, optimum, paired, with_spread
from benchmarks.decoupling_grids import load
from benchmarks.decoupling_rotation import predicted

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


def _written(middle, ends, plus=0.0):
    if np.isnan(middle):
        return "-"
    return f"{middle + plus:.2f} [{ends[0] + plus:.2f}, {ends[1] + plus:.2f}]"


def separable():
    """(b) The slope of log(best decay) over log(rate), with its 90 % bootstrap interval over the seeds."""
    rows = []
    for title, (_, found) in load("grid").items():
        for kind in ("error", "loss"):
            row = {"regime": title, "slope on": f"validation {kind}"}
            slopes = {form: slope(found[form], f"validation {kind}") for form in found}
            row |= {"paper's form": _written(*slopes["AdamW"]), "times the rate": _written(*slopes["AdamW"], plus=-1.0)}
            row |= {
                form: _written(*slopes[form]) if form in slopes else "" for form in ("Adam + L2", "SGDW", "SGD + L2")
            }
            rows.append(row)
    return rows


def best():
    """(a) Each form at its own best pair, on seeds that had no part in the choice."""
    rows = []
    for title, (_, found) in load("best").items():
        for form, measured in found.items():
            pair = f"{measured['rate']:.2g}, {measured['decay']:.2g}"
            row = {"regime": title, "form": form, "rate, decay": pair}
            row |= {
                f"test {kind}": with_spread(measured["values"][f"test {kind}"], 2 if kind == "error" else 3)
                for kind in ("error", "loss")
            }
            peer = {"AdamW": "Adam + L2", "SGDW": "SGD + L2"}.get(form)
            for kind in ("error", "loss"):
                text = ""
                if peer in found:
                    difference, error, p = paired(*(found[each]["values"][f"test {kind}"] for each in (form, peer)))
                    digits = 2 if kind == "error" else 3
                    text = f"{difference:+.{digits}f} ± {error:.{digits}f}, p = {p:.3f}"
                row[f"{kind}, against L2"] = text
            rows.append(row)
    return rows


def transfer(factors=(-1, 0, 1, 2), start=1):
    """What a tuned decay is worth when only the rate changes, by half decades; test error (%) of the grids' seeds."""
    rows = []
    for title, (_, found) in load("grid").items():
        forms = {"paper's form": ("AdamW", 0), "times the rate": ("AdamW", 1), "Adam + L2": ("Adam + L2", 0)}
        for name, (form, shear) in forms.items():
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


def budgets():
    """(c) The slope of log(best decay) over log(updates), and what a transferred decay is worth at the longest."""
    rows = []
    for title, (_, found) in load("budgets").items():
        decays, lengths = found["decays"], found["lengths"]
        validation = np.array([each["validation error"] for each in found["values"]], float)
        test = np.asarray(found["values"][-1]["test error"], float)

        def estimate(seeds, validation=validation, decays=decays, lengths=lengths):
            optima = [optimum(decays, each[:, seeds].mean(-1)) for each in validation]
            return np.polyfit(np.log(lengths), optima, 1)[0]

        every = np.arange(validation.shape[-1])
        row = {
            "examples": title,
            "slope on validation error": _written(estimate(every), interval(estimate, len(every))),
        }
        tuned = int(validation[0].mean(-1).argmin())
        row[f"best decay at {lengths[0]}"] = decays[tuned]
        row[f"best decay at {lengths[-1]}"] = decays[int(validation[-1].mean(-1).argmin())]
        for name, cells in {"as it is": 0, "x sqrt(1/10)": 1, "x 1/10": 2}.items():
            text = with_spread(test[tuned - cells]) if tuned >= cells else "off the grid"
            row[f"test error at {lengths[-1]}: {name}"] = text
        rows.append(row)
    return rows


def restarts():
    """(d) The test error (%) when a training is stopped on the way."""
    rows = []
    for title, (_, found) in load("restarts").items():
        shortest, every = found["shortest"], found["every"]
        ends = [shortest, 3 * shortest, 5 * shortest, 7 * shortest]
        for name, errors in found["test error"].items():
            errors = np.asarray(errors, float)
            row = {"regime": title, "schedule": name}
            row |= {f"after {end}": with_spread(errors[:, end // every - 1]) for end in ends}
            rows.append(row | {"mean of the way": with_spread(errors.mean(-1))})
        restart, cosine = (np.asarray(found["test error"][name], float) for name in ("warm restarts", "one cosine"))
        row = {"regime": title, "schedule": "restarts - cosine"}
        pairs = {f"after {end}": (restart[:, end // every - 1], cosine[:, end // every - 1]) for end in ends}
        pairs["mean of the way"] = restart.mean(-1), cosine.mean(-1)
        for name, pair in pairs.items():
            row[name] = "{:+.2f} ± {:.2f}, p = {:.3f}".format(*paired(*pair))
        rows.append(row)
    return rows


def multiplier():
    """(e) Fine-tuning, every multiplier at its own best rate, and at ten times the full rate's best."""
    rows = []
    for _, found in load("multiplier").values():
        rates = found["rates"]
        at = {name: int(np.mean(each["validation error"], axis=1).argmin()) for name, each in found["values"].items()}
        raised = min(at["full rate"] + 2, len(rates) - 1)
        full = found["values"]["full rate"]["test error"]
        for name, each in found["values"].items():
            own = each["test error"][at[name]]
            row = {"body": name, "best rate": rates[at[name]], "test error": with_spread(own)}
            row["against the full rate"] = "{:+.2f} ± {:.2f}, p = {:.3f}".format(*paired(own, full[at["full rate"]]))
            rows.append(row | {f"at rate {rates[raised]:.2g}": with_spread(each["test error"][raised])})
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


def sizes():
    """The best decay over batch (same number of examples) and width, for the paper's form and times the rate."""
    rows = []
    for title, (_, found) in load("sizes").items():
        for factor, measured in found.items():
            losses = np.asarray(measured["validation loss"], float)
            for index, rate in enumerate(measured["rate"]):
                decay = np.exp(optimum(measured["decay"], losses[index].mean(-1)))
                row = {"what": f"{title} x {factor}", "updates": measured["updates"], "rate": f"{rate:.2g}"}
                row |= {"best decay, paper's form": f"{decay:.2g}", "times the rate": f"{decay / rate:.2g}"}
                row |= {"decay x updates": f"{decay * measured['updates']:.2g}"}
                row["validation loss"] = with_spread(losses[index, losses[index].mean(-1).argmin()], 3)
                rows.append(row)
    return rows


TABLES = {
    "decoupling_separable": (separable, "grid"),
    "decoupling_transfer": (transfer, "grid"),
    "decoupling_best": (best, "best"),
    "decoupling_budgets": (budgets, "budgets"),
    "decoupling_restarts": (restarts, "restarts"),
    "decoupling_multiplier": (multiplier, "multiplier"),
    "decoupling_rotation": (rotation, "rotation"),
    "decoupling_sizes": (sizes, "sizes"),
}
"""Name between the marks -> the function, and the part that it reads."""
