"""Random combinations of all options: a structure, which is compiled once, and numbers, which are traced."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from tests.fuzz.simulator import FALLS, Averages, Cosine, Plain, Setting

SHAPES = {"embed/table": (4, 3), "body/kernel": (6, 5), "body/bias": (5,), "head/kernel": (5, 2), "scale": ()}
PATTERNS = {"kernel": r"kernel", "body": r"^body", "embed": "embed|table", "all": "", "scale": "scale$"}

# Values: a number, or a schedule of the count made of two numbers.

VALUES = {
    "number": lambda xp, a, b: a,
    "wave": lambda xp, a, b: lambda count: a * (1 + 0.5 * xp.sin(b * xp.asarray(count, a.dtype))),
    "switch": lambda xp, a, b: lambda count: xp.where(xp.asarray(count, a.dtype) >= b, a, 0 * a),
}
FUNCTIONS = {
    "number": lambda xp, a, b: a,
    "falling": lambda xp, a, b: lambda count: a / (1 + b * xp.asarray(count, a.dtype)),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a rule is spelled: keys are patterns in order, paths, or nothing; each has one value, or a pair."""

    spelling: str
    cells: tuple[tuple[str, tuple[str, ...]], ...]

    def spelled(self, name, numbers):
        """Return the rule as the library takes it."""
        values = {key: self.value(jnp, name, key, kinds, numbers) for key, kinds in self.cells}
        if self.spelling == "number":
            return values[""]
        if self.spelling == "patterns":
            return {PATTERNS[key]: value for key, value in values.items()}
        if self.spelling == "function":
            return lambda path, leaf: values[path]
        if self.spelling == "matrices":
            return aj.matrices(values[""])
        return nested(values)

    def value(self, xp, name, key, kinds, numbers):
        made = [VALUES[kind](xp, *numbers[f"{name}:{key}:{i}"]) for i, kind in enumerate(kinds)]
        return made[0] if len(made) == 1 else tuple(made)

    def at(self, name, path, count, numbers, default):
        """Return what the documents give to a leaf at a count: the first pattern that is found decides."""
        for key, kinds in self.cells:
            found = {"number": True, "matrices": path.endswith(("kernel", "table")), "patterns": False}
            if found.get(self.spelling, key == path) or (
                self.spelling == "patterns" and re.search(PATTERNS[key], path)
            ):
                value = self.value(np, name, key, kinds, numbers)
                now = tuple(x(count) if callable(x) else x for x in (value if isinstance(value, tuple) else (value,)))
                return tuple(map(float, now))
        return (default,)


def nested(values):
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *above, name = path.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[name] = value
    return tree


def flat(tree):
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


@dataclasses.dataclass(frozen=True)
class Structure:
    """What is decided before tracing."""

    directions: tuple[tuple[str, str, tuple[tuple[str, Any], ...]], ...]
    """(pattern, kind, options that are no numbers), the first found deciding."""
    preset: bool
    alpha: str
    schedule: str | None
    flags: tuple[bool, bool]
    """`endpoint` and `autorestart`."""
    coupling: str
    normalize: str | None
    form: str
    multipliers: Rule | None
    decay: Rule
    threshold: Rule | None
    scales: bool
    frozen: tuple[str, ...]
    held: tuple[str, ...]
    steps: bool
    wrap: str
    storage: str | None = None
    average: str | None = None
    """Kind of average, and "half-life" and "power" of an exponential one, or the shape of a merge."""
    but: tuple[str, ...] = ()

    # As the library takes it.

    def optimizer(self, numbers):
        """Return the optimizer with these numbers, which may be traced."""

        def number(name):
            return numbers[name][0]

        directions = {}
        for pattern, kind, options in self.directions:
            stored = {} if kind == "lion" else {"moment_dtype": self.storage}
            own = {name: number(name) for name in NUMBERS_OF[kind]} | dict(options) | stored
            make = optax.scale_by_lion if kind == "lion" else getattr(aj, f"scale_by_{kind}")
            directions[pattern] = own, make
        couplings = {"corrected": aj.Corrected("kernel", peak=number("peak"))}
        forms = {"huber": aj.Huber(number("delta"))} if self.form == "huber" else {}
        options = {
            "weight_decay": self.decay.spelled("decay", numbers),
            "coupling": couplings.get(self.coupling, self.coupling),
            "normalize_decay": number("updates") if self.normalize == "number" else self.normalize,
            "decay": forms.get(self.form, self.form),
            "proximal_l1": self.threshold and self.threshold.spelled("threshold", numbers),
            "lr_multipliers": self.multipliers and self.multipliers.spelled("multipliers", numbers),
            "multiplier_scales_decay": self.scales,
            "schedule": self.factor(numbers),
            "freeze": list(self.frozen) or None,
            "hold_norm": list(self.held) or None,
        }
        alpha = FUNCTIONS[self.alpha](jnp, *numbers["alpha"])
        if self.preset:
            (own, make) = directions[""]
            own = {name: value for name, value in own.items() if name not in ("max_of", "shared_correction")}
            if make is aj.scale_by_momentum:
                tx = aj.sgdw(alpha, **own, **options)
            elif make is aj.scale_by_nadam:
                tx = aj.nadamw(alpha, **own, **options)
            else:
                tx = aj.adamw(alpha, amsgrad=make is aj.scale_by_amsgrad, **own, **options)
        else:
            made = {pattern: make(**own) for pattern, (own, make) in directions.items()}
            accumulate = "steps" if self.steps else "gradients"
            one = made[""] if len(made) == 1 else made
            tx = aj.decoupled(one, alpha, accumulate=accumulate, **options)
        if self.average and "inside" in self.wrap:
            tx = self.averaged(tx, number)
        if "spikes" in self.wrap:
            tx = aj.skip_spikes(tx, sigma=number("sigma"), window=3)
        if self.average and "inside" not in self.wrap:
            tx = self.averaged(tx, number)
        return aj.observe(tx, 2) if "observe" in self.wrap else tx

    def averaged(self, tx, number):
        kind, *parts = self.average.split()
        if kind == "ema":
            half_life, power = (number(name) if name in parts else None for name in ("half-life", "power"))
            how = aj.Ema(half_life, number("start"), power)
        elif kind == "merge":
            how = aj.DecayMerge(parts[0], number("run"), number("last"))
        else:
            how = aj.CycleMean(ends=kind == "ends")
        return aj.with_average(tx, how, but=list(self.but) or None)

    def factor(self, numbers):
        if self.schedule == "cosine":
            named = {name: numbers[name][0] for name in COSINE}
            endpoint, autorestart = self.flags
            return aj.cosine_warm_restarts(**named, endpoint=endpoint, autorestart=autorestart)
        return None if self.schedule is None else FUNCTIONS[self.schedule](jnp, *numbers["eta"])

    # As the simulator takes it.

    def setting(self, numbers):
        """Return the same for the simulator."""

        def number(name):
            return float(numbers[name][0])

        def group(path):
            return next(pattern for pattern, _, _ in self.directions if re.search(pattern, path))

        def rule(name, path, count, default, rules):
            return rules.at(name, path, count, numbers, default) if rules else (default,)

        def decay(path, count):
            values = rule("decay", path, count, 0.0, self.decay)
            return values if len(values) == 2 else (0.0, values[0])

        def found(patterns):
            return lambda path: any(re.search(pattern, path) for pattern in patterns)

        averages = None
        if self.average:
            kind, *parts = self.average.split()
            half_life, power = (number(name) if name in parts else None for name in ("half-life", "power"))
            shape = parts[0] if kind == "merge" else "linear"
            of_run = int(number("run")), number("last")
            averages = Averages(kind, found(self.but), half_life, int(number("start")), power, shape, *of_run)
        alpha = FUNCTIONS[self.alpha](np, *numbers["alpha"])
        schedule = None
        if self.schedule == "cosine":
            endpoint, autorestart = self.flags
            whole = {"period", "warmup"}
            schedule = Cosine(
                **{name: int(number(name)) if name in whole else number(name) for name in COSINE},
                endpoint=endpoint,
                autorestart=autorestart,
            )
        elif self.schedule:
            schedule = Plain(FUNCTIONS[self.schedule](np, *numbers["eta"]))
        return Setting(
            group,
            {
                pattern: (kind, {name: number(name) for name in NUMBERS_OF[kind]} | dict(options))
                for pattern, kind, options in self.directions
            },
            (lambda count: float(alpha(count))) if callable(alpha) else (lambda count: float(alpha)),
            schedule,
            lambda path, count: rule("multipliers", path, count, 1.0, self.multipliers)[0],
            decay,
            lambda path, count: rule("threshold", path, count, 0.0, self.threshold)[0],
            self.coupling,
            number("updates") if self.normalize == "number" else self.normalize,
            self.form,
            number("delta") if self.form == "huber" else math.inf,
            number("peak"),
            found(["kernel"]),
            self.scales,
            found(self.frozen),
            found(self.held),
            self.steps,
            (number("sigma"), 3) if "spikes" in self.wrap else None,
            2 if "observe" in self.wrap else None,
            self.storage in NARROW,
            averages,
        )


NARROW = ("bfloat16", "packed", "packed8")
COSINE = ("period", "t_mult", "eta_min", "eta_max", "eta_max_decay", "warmup")
ADAM = ("b1", "b2", "eps", "eps_root")
NUMBERS_OF = {"adam": ADAM, "amsgrad": ADAM, "nadam": ADAM, "momentum": ("momentum",), "lion": ("b1", "b2")}

# Draws.


def draw_rule(rng, pair, choices=("number", "patterns", "function", "tree", "matrices")):
    spelling = choices[rng.integers(len(choices))]

    def kinds():
        return tuple(str(rng.choice(["number", "wave", "switch"], p=[0.5, 0.3, 0.2])) for _ in range(1 + pair))

    if spelling == "patterns":
        keys = rng.permutation(list(PATTERNS))[: rng.integers(1, 4)]
    else:
        keys = SHAPES if spelling in ("function", "tree") else [""]
    # One number for all leaves is told apart from a schedule, which stands only inside of a rule.
    return Rule(spelling, tuple((str(k), ("number",) * (1 + pair) if spelling == "number" else kinds()) for k in keys))


def draw_average(draw, schedule):
    merges = [f"merge {shape}" for shape in FALLS]
    cycles = ["cycle", "ends"] if schedule == "cosine" else []
    return draw(None, None, "ema half-life", "ema power", "ema half-life power", *merges, *cycles)


def draw_structure(rng, **fixed):
    """Draw a structure; `fixed` are fields that are given."""

    def draw(*values):
        return values[rng.integers(len(values))]

    def direction():
        kind = draw("adam", "adam", "amsgrad", "nadam", "momentum", "lion")
        options = {
            "adam": (("epsilon_hat", draw(False, True)),),
            "amsgrad": (("max_of", draw("nu", "nu_hat")),),
            "nadam": (("momentum_decay", draw(None, 0.004, 0.5)), ("shared_correction", draw(False, True))),
            "momentum": (("nesterov", draw(False, True)),),
            "lion": (),
        }[kind]
        return kind, options

    preset = draw(False, False, True)
    kind, options = direction()
    if preset and (kind == "lion" or (kind == "amsgrad" and dict(options)["max_of"] == "nu_hat")):
        kind, options = "adam", (("epsilon_hat", False),)
    if preset and kind in ("amsgrad", "nadam"):
        options = {"amsgrad": (("max_of", "nu"),), "nadam": (("momentum_decay", 0.004), ("shared_correction", False))}[
            kind
        ]
    directions = (("", kind, options),)
    if not preset and draw(False, True):
        directions = ((draw("kernel", "^body", "embed"), *direction()), *directions)
    coupling = draw("schedule", "learning_rate", "constant", "corrected")
    schedule = draw("cosine", "cosine", "cosine", "falling", "number", None)
    frozen = draw((), (), ("embed",), ("bias", "scale"))
    held = draw((), (), (), ("body/kernel",))
    # A held leaf has no decay and no threshold: rules by function leave it out below.
    multipliers = draw(None, draw_rule(rng, False, ("number", "patterns", "function", "tree")))
    decay = draw_rule(rng, draw(False, True))
    threshold = draw(None, draw_rule(rng, False))
    if held:
        decay = Rule("patterns", (("embed", decay.cells[0][1]),))
        threshold = threshold and Rule("patterns", (("scale", threshold.cells[0][1]),))
        frozen = ()
    drawn = {
        "directions": directions,
        "preset": preset,
        # A rate with a schedule would hide the eta that the paper's coupling needs.
        "alpha": "number" if coupling == "schedule" else draw("number", "falling"),
        "schedule": schedule,
        "flags": (draw(True, False), draw(True, True, False)),
        "coupling": coupling,
        "normalize": draw(None, "number", "cycle") if schedule == "cosine" else draw(None, "number"),
        "form": draw("decoupled", "cautious", "anchored", "huber"),
        "multipliers": multipliers,
        "decay": decay,
        "threshold": threshold,
        "scales": multipliers is not None and draw(False, True),
        "frozen": frozen,
        "held": held,
        "steps": (preset and kind == "momentum") or (not preset and draw(False, True)),
        "wrap": draw("", "", "spikes", "observe", "observe spikes", "inside spikes"),
        "average": draw_average(draw, schedule),
        "but": draw((), (), ("bias",), ("kernel",)),
    }
    return Structure(**(drawn | fixed))


def draw_numbers(rng, structure):
    """Draw every number that the structure has a place for."""

    def between(low, high):
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    numbers = {
        "alpha": (between(0.003, 0.1), between(0.01, 0.3)),
        "eta": (between(0.3, 1.0), between(0.01, 0.3)),
        "period": (rng.integers(2, 9),),
        "t_mult": (rng.choice([1.0, 1.5, 2.0, 0.7, 1.1]),),
        "eta_min": (rng.choice([0.0, 0.1]),),
        "eta_max": (between(0.3, 1.0),),
        "eta_max_decay": (between(0.5, 1.0),),
        "warmup": (rng.integers(0, 4),),
        "b1": (rng.uniform(0.3, 0.95),),
        "b2": (rng.uniform(0.5, 0.99),),
        "eps": (between(1e-8, 1e-3),),
        "eps_root": (rng.choice([0.0, 1e-6]),),
        "momentum": (rng.uniform(0.0, 0.95),),
        "updates": (rng.integers(5, 40),),
        "delta": (between(0.1, 2.0),),
        "peak": (0.1,),
        "sigma": (rng.uniform(3.0, 6.0),),
        "half-life": (between(1.0, 8.0),),
        "power": (rng.uniform(0.0, 3.0),),
        "start": (rng.integers(0, 6),),
        "run": (rng.integers(3, 14),),
        "last": (rng.uniform(0.1, 1.0),),
    }
    if not structure.flags[1]:  # no further cycle begins
        numbers |= {"t_mult": (1.0,), "eta_max_decay": (1.0,)}
    sizes = {"multipliers": (0.2, 2.0), "decay": (1e-3, 2e-2), "threshold": (1e-4, 1e-2)}
    for name, size in sizes.items():
        rule = getattr(structure, name)
        for key, kinds in rule.cells if rule else ():
            for i, kind in enumerate(kinds):
                a = 0.0 if kind == "number" and rng.random() < 0.15 else between(*size)
                numbers[f"{name}:{key}:{i}"] = (
                    a,
                    float(rng.integers(2, 12)) if kind == "switch" else between(0.1, 1.0),
                )
    whole = {"period", "warmup", "updates", "start", "run"}
    return {name: tuple(np.int32(x) if name in whole else np.float64(x) for x in xs) for name, xs in numbers.items()}
