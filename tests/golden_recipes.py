"""From an entry of golden/index.json to a recipe: what to build and how to drive it, in this project's terms.

A recipe is made from the entry's formula, source, arguments, actions and schedule, never from its id, so any further
trace of the same kinds is covered. An argument that nothing here understands is an error.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.golden_schedules import Arguments, Piece, cosine, schedule_pieces

GOLDEN = pathlib.Path(__file__).parent / "golden"


FORMULAS = {
    "first factor": "eta of the first update is eta_t = 1, "
    "not eta_min + (eta_max - eta_min) (1 + cos(pi t_cur / (T - 1))) / 2",
    "tf.keras NadamW": "u = ((1 - mu_t) g / (1 - Pi_t) + mu_t m / (1 - Pi_{t+1})) / sqrt(v / c2 + eps), "
    "not (... + mu_{t+1} m / (1 - Pi_{t+1})) / (sqrt(v / c2) + eps)",
    "legacy decay": "lr / (1 + decay it), the time-inverse rate of old Keras, which is no argument of the presets",
    "legacy decay ignored": "lr, not lr / (1 + decay it): the argument has no effect on this path of the package",
    "compounding multipliers": "the multiplier of the j-th variable is r_1 r_2 ... r_j, not r_j",
    "zero multiplier": "a leaf with r = 0 still decays; here it is frozen",
    "missed restart": "a t_cur set past T - 1 runs on for ever (the package tests equality); here the cycle ends",
    "cautious mask": "u mask / max(mean(mask), 1e-3) with mask = (u g > 0), not u",
    "corrected decay": "alpha_t^2 / alpha_0 lambda theta, not alpha_t lambda theta",
    "authors' code": "the first cycle has (k + 1) / n in the cosine, not k / n",
    "fractional periods": "T_i = T_0 t_mult^i, not rounded to whole updates",
}
"""Where a package contradicts itself, its documents or the paper: the formula that the trace follows instead."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An optimizer and its run. `documented` is what the package's documents or the paper say instead, if they do."""

    direction: str
    options: Mapping[str, Any]
    learning_rate: np.ndarray
    weight_decay: Any = 0.0
    lr_multipliers: Any = None
    coupling: str = "learning_rate"
    normalize: Any = None
    schedule: tuple[Piece, ...] = ()
    rate_in_velocity: bool = True
    cautious: bool = False
    corrected: bool = False
    multiplier_scales_decay: bool = False
    actions: Mapping[int, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    documented: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def as_documented(self):
        return dataclasses.replace(self, **self.documented)


def load_index():
    return json.loads((GOLDEN / "index.json").read_text())["traces"]


def load_problem(name):
    """The variables in the file's order: {name: initial value}, {name: gradients of all steps}."""
    names = [name for name, _ in json.loads((GOLDEN / f"problem_{name}.json").read_text())["vars"]]
    with np.load(GOLDEN / f"problem_{name}.npz") as file:
        return {n: file[f"p0/{n}"] for n in names}, {n: file[f"g/{n}"] for n in names}


def load_trace(entry):
    with np.load(GOLDEN / entry["file"]) as file:
        return dict(file)


def value_for(rules, path, default):
    """What a rule set of this module ({pattern: value}, or a number for all) gives to a path."""
    if not isinstance(rules, Mapping):
        return default if rules is None else rules
    return next((value for pattern, value in rules.items() if re.search(pattern, path)), default)


def pattern_of(key, paths):
    """keras-adamw searches a plain string in "dense_1/kernel:0"; ours is a regex for "dense_1/kernel"."""
    pattern = re.escape(key.removesuffix(":0")) + ("$" if key.endswith(":0") else "")
    return pattern if any(re.search(pattern, path) for path in paths) else None


def rules_of(mapping, paths):
    """Patterns that match nothing are left out: keras-adamw ignores them, here they would be an error."""
    rules = {pattern_of(key, paths): value for key, value in (mapping or {}).items()}
    rules.pop(None, None)
    return rules


def recipe_of(entry, paths):
    source = entry["source"]
    if source.startswith("ka-"):
        return keras_adamw_recipe(entry, paths)
    return paper_recipe(entry) if source == "paper" else peer_recipe(entry)


def keras_adamw_recipe(entry, paths):
    """Formulas F1, F2a, F2b, F3: decay before eta but after the learning rate, normalized by sqrt(1/T)."""
    args, formula, steps = Arguments(entry["args"]), entry["formula"], entry["steps"]
    tf_keras = entry["source"] == "ka-tfkeras"
    deviations, documented = [], {}
    for silent in ("init_verbose", "name"):
        args.take(None, silent)

    default = {"F1": 1e-3, "F2a": 1e-3, "F2b": 2e-3, "F3": 1e-2}[formula]
    base = args.take(default, "lr", "learning_rate")
    rates = np.full(steps, base)
    for step, name, value in entry["actions"]:
        if name == "lr":
            rates[step:] = value
    legacy = args.take(0.0, "decay")
    if legacy:
        decayed = rates / (1 + legacy * np.arange(steps))
        honoured = tf_keras == (formula == "F3")
        if honoured:
            deviations.append("legacy decay")
        else:
            deviations.append("legacy decay ignored")
        documented["learning_rate"] = rates if honoured else decayed
        rates = decayed if honoured else rates

    epsilon = args.take(1e-7, "epsilon") or 1e-7
    moments = {"b1": args.take(0.9, "beta_1"), "b2": args.take(0.999, "beta_2"), "eps": epsilon}
    if formula == "F1":
        direction = "amsgrad" if args.take(False, "amsgrad") else "adam"
        options = {**moments, "epsilon_hat": True}
    elif formula == "F3":
        direction = "momentum"
        options = {"momentum": args.take(0.0, "momentum"), "nesterov": args.take(False, "nesterov")}
    else:
        direction = "nadam"
        options = {**moments, "momentum_decay": args.take(0.004, "schedule_decay")}
        if formula == "F2a":
            documented["direction"] = direction
            direction = "nadam_tf_keras"
            deviations.append("tf.keras NadamW")

    period = args.take(0, "total_iterations")
    normalize = args.take(0, "total_iterations_wd") or period
    decays = {k: tuple(v) for k, v in rules_of(args.take({}, "weight_decays"), paths).items()}
    if period <= 1 or not decays:
        decays = 0.0
    multipliers = rules_of(args.take({}, "lr_multipliers"), paths) or None
    if "known-bug" in entry["tags"]:
        documented["lr_multipliers"] = multipliers
        deviations.append("compounding multipliers")
        product = np.cumprod([value_for(multipliers, path, 1.0) for path in paths])
        multipliers = {f"^{path}$": float(r) for path, r in zip(paths, product, strict=True)}

    annealed = args.take(False, "use_cosine_annealing")
    restart = args.take(annealed, "autorestart")
    eta_min, eta_max = args.take(0.0, "eta_min"), args.take(1.0, "eta_max")
    eta, t_cur = args.take(1.0, "eta_t"), args.take(0, "t_cur")
    args.done()
    actions = {step: {"t_cur": value} for step, name, value in entry["actions"] if name == "t_cur"}
    if period <= 1 or not (annealed or restart):
        schedule = Piece("constant", {"value": eta})
    else:
        ends = {"eta_min": eta_min, "eta_max": eta_max} if annealed else {"eta_min": eta, "eta_max": eta}
        schedule = Piece("cosine", {"period": period, **ends, "autorestart": bool(restart)})
    start = {"t_cur": t_cur}
    if schedule.kind == "cosine":
        first = eta_min + (eta_max - eta_min) * (1 + np.cos(np.pi * t_cur / (period - 1))) / 2 if annealed else eta
        if abs(eta - first) > 1e-12:
            start["eta"] = eta
            documented["actions"] = {**actions, 0: {"t_cur": t_cur, "eta": first}}
            deviations.append("first factor")
    if t_cur or "eta" in start:
        actions[0] = {**start, **actions.get(0, {})}
    if schedule.options.get("autorestart") and max([t_cur, *(a["t_cur"] for a in actions.values())]) >= period:
        if any(a["t_cur"] < period for step, a in actions.items() if step):
            raise NotImplementedError("a t_cur past the cycle that later returns into it")
        documented["schedule"] = (schedule,)
        deviations.append("missed restart")
        schedule = Piece("cosine", {**schedule.options, "autorestart": False})
    frozen_yet_decayed = [p for p in paths if value_for(multipliers, p, 1) == 0 and value_for(decays, p, 0) != 0]
    if frozen_yet_decayed:
        documented["lr_multipliers"] = multipliers
        deviations.append("zero multiplier")
        multipliers = {pattern: r or 1e-30 for pattern, r in multipliers.items()}
    return Recipe(direction, options, rates, decays, multipliers, "schedule", normalize or None, (schedule,),
                  actions=actions, deviations=tuple(deviations), documented=documented)  # fmt: skip


DECAY_DEFAULTS = {("torch", "adamw"): 1e-2, ("optax", "adamw"): 1e-4, ("optax", "nadamw"): 1e-4,
                  ("timm", "adamw"): 1e-2, ("timm", "nadamw"): 1e-2, ("keras3", "adamw"): 4e-3}  # fmt: skip
RATE_DEFAULTS = {("torch", "nadam"): 2e-3, ("keras3", "sgd"): 1e-2}


def peer_recipe(entry):
    """Formulas F4 to F12: decay before the learning rate, but for optax's chain in the paper's order."""
    args, formula, name = Arguments(entry["args"]), entry["formula"], (entry["source"], entry["optimizer"].lower())
    rate = args.take(RATE_DEFAULTS.get(name, 1e-3), "lr", "learning_rate")
    decay = args.take(DECAY_DEFAULTS.get(name, 0.0), "decoupled", "weight_decay") or 0.0
    args.take(None, "decoupled_weight_decay")
    deviations, documented, extra = [], {}, {}
    if formula in ("F8", "F9"):
        direction, options = (
            "momentum",
            {"momentum": args.take(0.0, "momentum"), "nesterov": args.take(False, "nesterov")},
        )
    else:
        b1, b2 = args.take((None, None), "betas")
        options = {"b1": args.take(b1 or 0.9, "b1", "beta_1"), "b2": args.take(b2 or 0.999, "b2", "beta_2"),
                   "eps": args.take(1e-7 if name[0] == "keras3" else 1e-8, "eps", "epsilon"),
                   "eps_root": args.take(0.0, "eps_root")}  # fmt: skip
        args.take(None, "nesterov")
        largest = args.take(formula == "F11", "amsgrad")
        psi = args.take(1.0 if name[0] == "keras3" else 0.004, "momentum_decay")
        if formula in ("F5", "F6", "F7"):
            direction = "nadam"
            options["momentum_decay"] = psi if formula == "F5" else None
            options["shared_correction"] = formula == "F7"
        else:
            direction = "amsgrad" if largest else "adam"
            options["epsilon_hat"] = formula == "F10"
            if largest:
                options["max_of"] = "nu_hat" if formula == "F11" else "nu"
    if args.take(False, "caution"):
        extra["cautious"], documented["cautious"] = True, False
        deviations.append("cautious mask")
    if args.take(False, "corrected_weight_decay"):
        extra["corrected"], documented["corrected"] = True, False
        deviations.append("corrected decay")
    args.done()
    schedule = ()
    if entry["schedule"]:
        schedule, rate, differs, instead = schedule_pieces(entry["schedule"], rate, entry["steps"])
        if differs:
            documented["schedule"] = instead
            deviations.extend(differs)
    coupling = "schedule" if formula == "F12" else "learning_rate"
    return Recipe(direction, options, np.full(entry["steps"], rate), decay, coupling=coupling, schedule=schedule,
                  rate_in_velocity=formula == "F9" or not schedule, deviations=tuple(deviations), documented=documented,
                  **extra)  # fmt: skip


def paper_recipe(entry):
    """Formulas F12 and F13: cycles of epochs_i B / b updates, lambda = lambda_norm sqrt(1 / T_i)."""
    args, steps = Arguments(entry["args"]), entry["steps"]
    size, batch = args.take(None, "B"), args.take(None, "b")
    periods = [epochs * size // batch for epochs in args.take(None, "epochs")]
    t_mult = periods[1] / periods[0] if len(periods) > 1 else 1
    ends = {"eta_min": args.take(0.0, "eta_min"), "eta_max": args.take(1.0, "eta_max")}
    alpha, decay = args.take(None, "alpha"), args.take(None, "lambda_norm")
    authors = args.take("paper", "t_index") == "authors_code"
    if entry["formula"] == "F13":
        direction, options = "momentum", {"momentum": args.take(0.9, "beta1")}
    else:
        direction = "adam"
        options = {"b1": args.take(0.9, "beta1"), "b2": args.take(0.999, "beta2"), "eps": args.take(1e-8, "eps")}
    args.done()
    actions, expected, start = {}, periods[0], 0
    for cycle, period in enumerate(periods):
        if period != expected:
            actions[start] = {"t_cur": 0, "period": period, "cycle": cycle}
        expected, start = max(1, round(period * t_mult)), start + period
    documented, deviations = {}, ()
    if authors:
        # First cycle: t_cur = 1 .. n instead of 0 .. n - 1, so its last update has eta_min.
        n = periods[0]
        documented["actions"], deviations = dict(actions), ("authors' code",)
        actions[0] = {"t_cur": 1, "eta": None}
        actions[n - 1] = {"t_cur": n - 1, "period": n, "cycle": 0, "eta": ends["eta_min"]}
    return Recipe(direction, options, np.full(steps, alpha), decay, coupling="schedule", normalize="cycle",
                  schedule=(cosine(periods[0], t_mult=t_mult, **ends),), actions=actions, deviations=deviations,
                  documented=documented)  # fmt: skip
