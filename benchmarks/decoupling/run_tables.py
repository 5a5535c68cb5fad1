"""The tables of the studies along the time axis, derived from results/decoupling/*.json."""

import numpy as np

from benchmarks.decoupling.figures import interval, optimum, paired, with_spread, written
from benchmarks.decoupling.grids import load


def _budget_slope(found, name):
    """Return the slope of log(best decay) over log(updates) of the mean over the seeds, with its interval."""
    scores = np.array([each[name] for each in found["values"]], float)

    def estimate(seeds):
        optima = [optimum(found["decays"], each[:, seeds].mean(-1)) for each in scores]
        return np.polyfit(np.log(found["lengths"]), optima, 1)[0]

    every = np.arange(scores.shape[-1])
    return written(estimate(every), interval(estimate, len(every)))


def budgets():
    """(c) The slope of log(best decay) over log(updates), and what a transferred decay is worth at the longest."""
    rows = []
    for title, (_, found) in load("budgets").items():
        short, long = found["lengths"][0], found["lengths"][-1]
        row = {"examples": title}
        row |= {f"slope on {kind}": _budget_slope(found, f"validation {kind}") for kind in ("error", "loss")}
        first, last = (np.mean(found["values"][at]["validation error"], axis=1) for at in (0, -1))
        tuned = int(first.argmin())
        row[f"best decay at {short}"] = f"{found['decays'][tuned]:.2g}"
        row[f"best decay at {long}"] = f"{found['decays'][int(last.argmin())]:.2g}"
        test = np.asarray(found["values"][-1]["test error"], float)
        # The decays are half a decade apart, the lengths a decade.
        carried = {name: test[tuned - cells] for name, cells in {"as it is": 0, "x sqrt(1/10)": 1, "x 1/10": 2}.items()}
        row |= {f"test error at {long}: {name}": with_spread(errors) for name, errors in carried.items()}
        difference = paired(carried["x sqrt(1/10)"], carried["as it is"])
        rows.append(row | {"sqrt - as it is": "{:+.2f} ± {:.2f}, p = {:.3f}".format(*difference)})
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
            here = each["test error"][raised]
            row[f"at rate {rates[raised]:.2g}"] = with_spread(here)
            row["against the full rate there"] = "{:+.2f} ± {:.2f}, p = {:.3f}".format(*paired(here, full[raised]))
            rows.append(row)
    return rows
