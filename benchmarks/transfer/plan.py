"""The points of the study, stage by stage: each stage reads what the stages before it scored."""

import numpy as np

from benchmarks.transfer.fits import fit

TUNING, REPORTING = (0, 1), (100, 101, 102, 103)
"""Seeds to choose by, and seeds that had no part in a choice."""

START = {
    "optimizer": "adamw",
    "width": 32,
    "depth": 2,
    "batch": 4,
    "updates": 2048,
    "rate": 0.0125,
    "decay": 7e-4,
    "b1": 0.9,
    "b2": 0.99,
    "eps": 1e-8,
    "matrices": 1.0,
    "branch": 1.0,
}
ROOT = 2**0.5
CROSS = [(r, 1.0) for r in (0.5, 1 / ROOT, 1.0, ROOT, 2.0)] + [(1.0, d) for d in (0.25, 0.5, 2.0, 4.0)]
CROSS += [(r, d) for r in (1 / ROOT, ROOT) for d in (0.5, 2.0)]

TARGETS = {
    "width x 2": {"width": 2},
    "batch x 4": {"batch": 4},
    "depth x 2": {"depth": 2},
    "tokens x 4": {"tokens": 4},
    "width x 4": {"width": 4},
    "all": {"width": 2, "depth": 2, "batch": 4, "tokens": 4},
}


def labelled(label, point, seeds):
    return [point | {"seed": seed, "label": label} for seed in seeds]


def mean_of(scored, label, **where):
    """Return the mean loss to tune by of the points of a label with some numbers."""
    losses = [p["tuning"] for p in scored if p["label"] == label and all(p[k] == v for k, v in where.items())]
    return float(np.mean(losses)) if losses else np.inf


def best_of(scored, label):
    """Return the best rate and decay of the points of a label: the minimum of the quadratic."""
    rows = [p for p in scored if p["label"] == label]
    return fit(*([p[key] for p in rows] for key in ("rate", "decay", "tuning")))[:2]


def probes():
    """Return the first points: branches and b1 over three rates."""
    settings = [{"branch": b} for b in (1.0, 0.5, 0.25)] + [{"b1": b, "branch": 0.5} for b in (0.8, 0.95)]
    settings.append({"branch": 0.125})
    rates = [START["rate"] * 2.0**k for k in (-1, 0, 1)]
    return [p for s in settings for r in rates for p in labelled("probe", START | s | {"rate": r}, TUNING)]


BASE = START | {"branch": 0.25, "rate": 0.01}
"""The center of the base's grid: the best branch of the probes, and their b1."""


def over(label, point, pairs, seeds=TUNING):
    """Return the points of a label at some multiples of a rate and a decay."""
    moved = [point | {"rate": point["rate"] * r, "decay": point["decay"] * d} for r, d in pairs]
    return [p for each in moved for p in labelled(label, each, seeds)]


def base_grid(base):
    steps = [2.0**k for k in (-2, -1, 0, 1, 2)]
    return over("base", base, [(r**0.5, d) for r in steps for d in steps])


def grown(base, growth):
    """Return the base's numbers at the target's shape."""
    growth = {"width": 1, "depth": 1, "batch": 1, "tokens": 1} | growth
    updates = base["updates"] * growth["tokens"] // growth["batch"]
    return base | {key: base[key] * growth[key] for key in ("width", "depth", "batch")} | {"updates": updates}


def by_default(base, growth):
    """Return the numbers of the default rule at the target's shape."""
    n, depth, b, d = (growth.get(key, 1) for key in ("width", "depth", "batch", "tokens"))
    return grown(base, growth) | {
        "rate": base["rate"] * b**0.5,
        "matrices": 1 / n,
        "decay": base["decay"] * b * d**-0.5,
        "b1": 1 - b * (1 - base["b1"]),
        "b2": 1 - b * (1 - base["b2"]),
        "eps": base["eps"] / b**0.5,
        "branch": base["branch"] / depth,
    }


GRID = [(r, d) for r in (1 / ROOT, 1.0, ROOT) for d in (1 / 3, 1.0, 3.0)]
"""Around the rules' numbers, for the targets that take longest."""

OTHERS = {
    "width x 2": {"sqrt_width": lambda p, m: p | {"decay": p["decay"] / m["width"] ** 0.5}, "all rates / m": None},
    "tokens x 4": {
        "timescale": lambda p, m: p | {"decay": p["decay"] / m["tokens"] ** 0.5},
        "rate x m^-0.3": lambda p, m: p | {"rate": p["rate"] * m["tokens"] ** -0.3},
        "completed": lambda p, m: completed(p, m),
    },
    "batch x 4": {"b1 kept": lambda p, m: p | {"b1": 0.9}, "rate kept": lambda p, m: p | {"rate": p["rate"] / 2}},
    "all": {"completed": lambda p, m: completed(p, m), "timescale for the decay": None, "mup": None},
}
"""Other rules: the default's numbers and the growths -> numbers."""


def completed(p, m):
    """Return Complete(d)P's numbers from the default's: sqrt(m_B / m_D), m_B / m_D for the decay and for 1 - b."""
    d = m["tokens"]
    rest = {"decay": p["decay"] * d**-0.5, "b1": 1 - (1 - p["b1"]) / d, "b2": 1 - (1 - p["b2"]) / d}
    return p | rest | {"rate": p["rate"] * d**-0.5}


OTHERS["width x 2"]["all rates / m"] = lambda p, m: p | {"rate": p["rate"] / m["width"], "matrices": 1.0}
OTHERS["all"]["timescale for the decay"] = lambda p, m: p | {"decay": p["decay"] * m["tokens"] ** -0.5}
OTHERS["all"]["mup"] = lambda p, m: (
    p
    | {
        "rate": p["rate"] / m["batch"] ** 0.5,
        "decay": p["decay"] / m["batch"] * m["tokens"] ** 0.5,
        "b1": 1 - (1 - p["b1"]) / m["batch"],
        "b2": 1 - (1 - p["b2"]) / m["batch"],
        "branch": p["branch"] * m["depth"],
    }
)
"""The width alone."""


def others(name, by_rule):
    """Return the points of the other rules of a target, on the seeds to report."""
    growth = {"width": 1, "depth": 1, "batch": 1, "tokens": 1} | TARGETS[name]
    seeds = REPORTING if name != "all" else REPORTING[:2]
    points = {rule: change(by_rule, growth) for rule, change in OTHERS.get(name, {}).items()}
    return [p for rule, point in points.items() for p in labelled(f"{name}, {rule}", point, seeds)]


def curve(base, width):
    """Return the points of one rate for all leaves at a width, over rates: what `width_multipliers` repairs."""
    rates = [(1 / 4, 1.0), (1 / 2, 1.0), (1 / ROOT, 1.0), (1.0, 1.0), (ROOT, 1.0)]
    return over(f"width x {width}, one rate", grown(base, {"width": width}), rates, TUNING[:1])


def stages(scored):
    """Yield lists of points; between them `scored` has grown by what the last one scored."""
    yield probes()
    yield base_grid(BASE)
    rate, decay = best_of(scored, "base")
    base = BASE | {"rate": rate, "decay": decay}
    yield labelled("base, best", base, REPORTING)
    for name in ("width x 2", "batch x 4", "depth x 2", "tokens x 4", "width x 4"):
        by_rule = by_default(base, TARGETS[name])
        yield labelled(f"{name}, default", by_rule, REPORTING)
        yield labelled(f"{name}, left", grown(base, TARGETS[name]), REPORTING)
        yield over(f"{name}, tuning", by_rule, GRID if name == "width x 4" else CROSS)
        rate, decay = best_of(scored, f"{name}, tuning")
        yield labelled(f"{name}, tuned", by_rule | {"rate": rate, "decay": decay}, REPORTING)
    by_rule = by_default(base, TARGETS["all"])
    yield labelled("all, default", by_rule, REPORTING)
    yield labelled("all, left", grown(base, TARGETS["all"]), REPORTING)
    yield curve(base, 2)
    yield over("all, tuning", by_rule, GRID, TUNING[:1])
    rate, decay = best_of(scored, "all, tuning")
    yield labelled("all, tuned", by_rule | {"rate": rate, "decay": decay}, REPORTING)
    yield curve(base, 4)
    yield over("width x 4, curve", by_default(base, TARGETS["width x 4"]), [(0.5, 1.0), (2.0, 1.0)], TUNING[:1])
    for name in ("batch x 4", "tokens x 4", "width x 2"):
        yield others(name, by_default(base, TARGETS[name]))
    for optimizer in ("held", "muon"):
        yield from other_optimizers(scored, optimizer, base)
    yield others("all", by_rule)


def other_optimizers(scored, optimizer, base):
    """Yield the points of held norms, or of Muon by path: tuned at the base, then four times as wide, in two ways."""
    start = base | {"optimizer": optimizer} | ({"head": 1.0} if optimizer == "muon" else {})
    label = f"{optimizer}, base"
    tried = [start | {"matrices": r, "rate": base["rate"] * f} for r in (0.5, 2.0, 8.0) for f in (0.7, 1.4)]
    yield [point for each in tried for point in labelled(label, each, TUNING[:1])]
    rows = [p for p in scored if p["label"] == label]
    best = min(rows, key=lambda p: p["tuning"])
    best = start | {key: best[key] for key in ("rate", "matrices")}
    wide = grown(best, {"width": 4})
    kept = wide | ({"head": 0.25} if optimizer == "muon" else {})
    for name, point in {"kept": kept, "/ m": kept | {"matrices": best["matrices"] / 4}}.items():
        yield labelled(f"{optimizer}, width x 4, {name}", point, TUNING[:1])
