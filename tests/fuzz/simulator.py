"""A simulator in NumPy and float64 of what the documents say that an optimizer does: leaf by leaf, update by update.

It is written from the docstrings and the pages alone and shares no code with the library, so that a difference is a
fault of one of the three. `Setting` is an optimizer whose numbers are known; `Run` is parameters and state.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

# Positions and schedules.


@dataclasses.dataclass
class Position:
    t_cur: int = 0
    period: int | None = None
    cycle: int = 0
    given: float | None = None
    """A factor that `set_position` gave for the next update."""


@dataclasses.dataclass(frozen=True)
class Cosine:
    """The schedule of `cosine_warm_restarts`, by its docstring."""

    period: int
    t_mult: float = 1.0
    eta_min: float = 0.0
    eta_max: float = 1.0
    eta_max_decay: float = 1.0
    endpoint: bool = True
    warmup: int = 0
    autorestart: bool = True

    def start(self):
        return Position(-self.warmup, self.period)

    def eta(self, position):
        peak = max(self.eta_max * self.eta_max_decay**position.cycle, self.eta_min)
        if position.t_cur < 0:
            weight = (position.t_cur + self.warmup + 1) / (self.warmup + 1)
        else:
            length = position.period - 1 if self.endpoint else position.period
            weight = (1 + math.cos(math.pi * position.t_cur / length)) / 2 if length else 1.0
        return self.eta_min + (peak - self.eta_min) * weight

    def advance(self, position):
        t_cur, period, cycle = position.t_cur + 1, position.period, position.cycle
        if self.autorestart and t_cur >= period:
            # Python rounds a fraction exactly, and halves to the even number.
            t_cur, cycle = 0, cycle + 1
            period = max(round(period * Fraction(self.t_mult).limit_denominator(10**6)), 1)
        return Position(t_cur, period, cycle)


@dataclasses.dataclass(frozen=True)
class Plain:
    """A function of the count, one endless cycle; or a number, which always has its own value."""

    function: Callable[[int], float] | float

    def start(self):
        return Position(cycle=0 if callable(self.function) else -1)

    def eta(self, position):
        return self.function(position.t_cur) if callable(self.function) else self.function

    def advance(self, position):
        return Position(position.t_cur + 1, position.period, position.cycle)


def walked(schedule, count):
    position = schedule.start()
    for _ in range(count):
        position = schedule.advance(position)
    return position


# Directions: what one keeps of its leaves, and what it makes of a gradient.


class Memory(dict):
    """The moments of a leaf. A narrow one is rounded where it is stored, and the direction sees what is stored."""

    stored: Callable[[str, np.ndarray], np.ndarray] | None = None
    """Gives what is stored of a moment (name, number)."""

    def __setitem__(self, name, exact):
        super().__setitem__(name, self.stored(name, exact) if self.stored else exact)


def adam(options, memory, t, g):
    b1, b2, eps, root = (options[name] for name in ("b1", "b2", "eps", "eps_root"))
    memory["mu"] = b1 * memory["mu"] + (1 - b1) * g
    memory["nu"] = b2 * memory["nu"] + (1 - b2) * g**2
    if options.get("epsilon_hat"):
        c1, c2 = 1 - b1**t, 1 - b2**t
        return math.sqrt(c2) / c1 * memory["mu"] / (np.sqrt(memory["nu"] + c2 * root) + eps)
    return memory["mu"] / (1 - b1**t) / (np.sqrt(memory["nu"] / (1 - b2**t) + root) + eps)


def amsgrad(options, memory, t, g):
    b2 = options["b2"]
    adam(options, memory, t, g)
    of_hat = options["max_of"] == "nu_hat"
    corrected = memory["nu"] / (1 - b2**t) if of_hat else memory["nu"]
    memory["nu_max"] = np.maximum(memory["nu_max"], corrected)
    largest = memory["nu_max"] if of_hat else memory["nu_max"] / (1 - b2**t)
    return memory["mu"] / (1 - options["b1"] ** t) / (np.sqrt(largest + options["eps_root"]) + options["eps"])


def nadam(options, memory, t, g):
    b1, b2, psi = options["b1"], options["b2"], options["momentum_decay"]

    def mu(t):
        return b1 if psi is None else b1 * (1 - 0.96 ** (t * psi) / 2)

    adam(options, memory, t, g)
    product = math.prod(mu(k) for k in range(1, t + 1))
    first = 1 - product if options["shared_correction"] else 1 - product * mu(t + 1)
    ahead = mu(t + 1) * memory["mu"] / first + (1 - mu(t)) * g / (1 - product)
    return ahead / (np.sqrt(memory["nu"] / (1 - b2**t) + options["eps_root"]) + options["eps"])


def momentum(options, memory, t, g):
    memory["trace"] = options["momentum"] * memory["trace"] + g
    return options["momentum"] * memory["trace"] + g if options["nesterov"] else memory["trace"]


def lion(options, memory, t, g):
    """Chen et al., arXiv 2302.06675, Algorithm 2, as `optax.scale_by_lion` has it."""
    direction = np.sign((1 - options["b1"]) * g + options["b1"] * memory["mu"])
    memory["mu"] = options["b2"] * memory["mu"] + (1 - options["b2"]) * g
    return direction


DIRECTIONS = {"adam": adam, "amsgrad": amsgrad, "nadam": nadam, "momentum": momentum, "lion": lion}
MEMORIES = {"adam": ("mu", "nu"), "amsgrad": ("mu", "nu", "nu_max"), "nadam": ("mu", "nu"), "momentum": ("trace",),
            "lion": ("mu",)}  # fmt: skip


# Averages of the weights.

FALLS = {"linear": lambda x: 1 - x, "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2, "sqrt": lambda x: 1 - x**0.5}


@dataclasses.dataclass(frozen=True)
class Averages:
    """What is averaged, by the docstrings of `Ema`, `CycleMean` and `DecayMerge`."""

    kind: str
    left_out: Callable[[str], bool]
    half_life: float | None = None
    start: int = 0
    power: float | None = None
    shape: str = "linear"
    updates: int = 0
    last: float = 0.2

    def share(self, n):
        """Return w of the n-th weights of an exponential average."""
        shares = []
        if self.half_life is not None:
            b = 2 ** (-1 / self.half_life)
            shares.append((1 - b) / (1 - b**n))
        if self.power is not None:
            shares.append(1 - (1 - 1 / n) ** (self.power + 1))
        return max(shares)


class Average:
    """An average of a run's weights."""

    def __init__(self, made):
        self.made, self.n, self.mean, self.track = made, 0, {}, {}

    def update(self, how, before, after, position):
        """Take the weights before and after an update that was not skipped, from a position of the schedule."""
        self.made += 1
        if how.kind == "merge":
            self.track[self.made - 1], self.track[self.made] = before, after
            return
        if how.kind == "ema":
            self.n = self.n + 1 if self.made > how.start else 0
            share = how.share(self.n) if self.n else 0.0
        else:
            ends = how.kind == "ends"
            counts = position.t_cur == position.period - 1 if ends else position.t_cur >= 0
            if counts and not ends and self.n > position.t_cur:  # weights of another cycle
                self.n = 0
            self.n += counts
            share = counts / max(self.n, 1)
        old = self.mean or dict.fromkeys(after, 0.0)
        self.mean = {path: old[path] + share * (p - old[path]) for path, p in after.items()}

    def read(self, how, params):
        """Return the averaged weights; None where they have not begun or are not complete."""
        mean = self.merged(how) if how.kind == "merge" else self.mean if self.n else None
        return mean and {path: p if how.left_out(path) else mean[path] for path, p in params.items()}

    def merged(self, how):
        m = max(round(how.last * how.updates), 1)
        first = how.updates - m
        if self.made < how.updates or first not in self.track:
            return None
        merged = dict(self.track[first])
        for j in range(1, m + 1):
            now, old = self.track[first + j], self.track[first + j - 1]
            merged = {path: p + FALLS[how.shape](j / m) * (now[path] - old[path]) for path, p in merged.items()}
        return merged

    def changed(self, old, new, paths):
        """Go on with another setting: an average of further leaves begins anew."""
        if any(old.left_out(path) and not new.left_out(path) for path in paths):
            self.n, self.track = 0, {}


@dataclasses.dataclass
class Setting:
    """An optimizer with known numbers; functions of a path, or of a path and the count of updates made."""

    group: Callable[[str], str]
    """Which direction a leaf has, by name."""
    directions: Mapping[str, tuple[str, Mapping[str, Any]]]
    alpha: Callable[[int], float]
    schedule: Any
    multiplier: Callable[[str, int], float]
    decay: Callable[[str, int], tuple[float, float]]
    threshold: Callable[[str, int], float]
    coupling: str = "schedule"
    normalize: float | str | None = None
    form: str = "decoupled"
    delta: float = 1.0
    peak: float = 1.0
    normalized: Callable[[str], bool] = lambda path: False
    multiplier_scales_decay: bool = False
    frozen: Callable[[str], bool] = lambda path: False
    held: Callable[[str], bool] = lambda path: False
    steps: bool = False
    spikes: tuple[float, int] | None = None
    every: int | None = None
    narrow: bool = False
    averages: Averages | None = None


class Run:
    """Parameters and state under a setting."""

    def __init__(self, setting, params):
        self.setting = setting
        self.params = {path: np.array(p, np.float64) for path, p in params.items()}
        self.count = 0
        self.position = None if setting.schedule is None else setting.schedule.start()
        self.anchors = copy.deepcopy(self.params)
        self.norms = {path: np.sqrt(np.sum(p**2)) for path, p in self.params.items() if setting.held(path)}
        self.times = dict.fromkeys(setting.directions, 0)
        self.memories = {path: self.blank(path) for path in self.params if not setting.frozen(path)}
        self.known, self.mean, self.variance, self.skipped, self.in_a_row, self.finite = 0, 0.0, 0.0, 0, 0, 0
        self.number, self.seen = 0, {}
        self.average = Average(0)

    def blank(self, path):
        kind = self.setting.directions[self.setting.group(path)][0]
        return Memory({name: np.zeros_like(self.params[path]) for name in MEMORIES[kind]})

    # One update.

    def update(self, gradients):
        setting, before = self.setting, self.params
        gradients = {path: np.asarray(g, np.float64) for path, g in gradients.items()}
        position, is_spike = self.position, bool(setting.spikes) and self.is_spike(gradients)
        updates = {path: np.zeros_like(p) for path, p in before.items()} if is_spike else self.taken(gradients)
        self.params = {path: p + updates[path] for path, p in before.items()}
        if setting.averages and not is_spike:
            self.average.update(setting.averages, before, self.params, position)
        self.observe(before, gradients, updates)

    def taken(self, gradients):
        setting, count = self.setting, self.count
        alpha, eta, period = setting.alpha(count), 1.0, None
        if setting.schedule is not None:
            eta, period = self.eta(), self.position.period
        for group in self.times:
            self.times[group] += 1
        updates = {
            path: np.zeros_like(p) if setting.frozen(path) else self.leaf(path, p, gradients[path], alpha, eta, period)
            for path, p in self.params.items()
        }
        self.count += 1
        if setting.schedule is not None:
            self.position = setting.schedule.advance(self.position)
        return updates

    def eta(self):
        """Return the factor of the next update."""
        given, schedule = self.position.given, self.setting.schedule
        always_own = isinstance(schedule, Plain) and not callable(schedule.function)
        return schedule.eta(self.position) if given is None or always_own else given

    def leaf(self, path, theta, g, alpha, eta, period):
        setting, count = self.setting, self.count
        group = setting.group(path)
        kind, options = setting.directions[group]
        r = setting.multiplier(path, count)
        d = DIRECTIONS[kind](options, self.memories[path], self.times[group], alpha * eta * g if setting.steps else g)
        if r == 0:
            return np.zeros_like(theta)
        u = r * d if setting.steps else alpha * eta * r * d
        factor = self.factor(path, alpha, eta, period) * (r if setting.multiplier_scales_decay else 1.0)
        u = u + factor * self.pull(path, theta, u)
        threshold = factor * setting.threshold(path, count)
        if threshold:
            goal = theta - u
            u = theta - np.sign(goal) * np.maximum(np.abs(goal) - threshold, 0)
        if setting.held(path):
            radius = self.norms[path]
            u = theta - radius * unit(theta - alpha * eta * r * radius * unit(u))
        return -u

    def factor(self, path, alpha, eta, period):
        """c n of a leaf."""
        setting = self.setting
        c = {"schedule": eta, "learning_rate": alpha * eta, "constant": 1.0, "corrected": alpha * eta}[setting.coupling]
        if setting.coupling == "corrected" and setting.normalized(path):
            c = (alpha * eta) ** 2 / setting.peak
        length = {None: 1, "cycle": period}.get(setting.normalize, setting.normalize)
        return c * math.sqrt(1 / length)

    def pull(self, path, theta, u):
        """The decay's term, by its form."""
        l1, l2 = self.setting.decay(path, self.count)
        if self.setting.form == "anchored":
            theta = theta - self.anchors[path]
        grown = np.clip(theta, -self.setting.delta, self.setting.delta) if self.setting.form == "huber" else theta
        term = l1 * np.sign(theta) + l2 * grown
        return np.where(u * theta >= 0, term, 0) if self.setting.form == "cautious" else term

    # What goes around.

    def is_spike(self, gradients):
        """The rule of `skip_spikes`, and its statistics; a multiplier that is traced is not known to be 0."""
        sigma, window = self.setting.spikes
        norm = math.sqrt(sum(np.sum(g**2) for path, g in gradients.items() if not self.setting.frozen(path)))
        if not math.isfinite(norm):
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            return True
        if norm == 0:
            self.in_a_row = self.finite = 0
            return False
        if self.finite >= window:  # a level that changed for good
            self.known, self.mean, self.variance = 0, 0.0, 0.0
        x = math.log(norm)
        spread = max(math.sqrt(self.variance), 1e-3)
        if self.known >= window and x > self.mean + sigma * spread:
            self.skipped, self.in_a_row, self.finite = self.skipped + 1, self.in_a_row + 1, self.finite + 1
            return True
        self.known, self.in_a_row, self.finite = min(self.known + 1, window), 0, 0
        k, difference = self.known, x - self.mean
        self.mean += difference / k
        self.variance = (1 - 1 / k) * (self.variance + difference**2 / k)
        return False

    def observe(self, params, gradients, updates):
        """What `observe` keeps of an update whose number is a multiple of `every`."""
        self.number += 1
        if self.setting.every and self.number % self.setting.every == 0:
            rms = {"weight_rms": params, "gradient_rms": gradients, "step_rms": updates}
            self.seen = {
                path: {name: math.sqrt(np.mean(tree[path] ** 2)) for name, tree in rms.items()} for path in params
            }

    # What edits a state.

    def restart(self, period=None):
        self.position = Position(0, self.position.period if period is None else period, self.position.cycle + 1)

    def set_position(self, t_cur, period=None, cycle=None, eta=None):
        now = self.position
        self.position = Position(
            t_cur, now.period if period is None else period, now.cycle if cycle is None else cycle, eta
        )

    def reschedule(self, setting, count):
        self.setting = setting
        self.position = walked(setting.schedule, count)

    def intervene(self, setting):
        """Go on under a setting with other leaves frozen or held, or another average."""
        if setting.averages and not self.setting.averages:
            self.average = Average(self.count)
        self.carry_over(setting)

    def carry_over(self, setting):
        """Go on under a setting with other leaves frozen or held."""
        if setting.averages and self.setting.averages:
            self.average.changed(self.setting.averages, setting.averages, self.params)
        fresh = Run(setting, self.params)
        whole = {path for path in fresh.memories if path not in self.memories}
        for group, (kind, _) in setting.directions.items():
            mine = {path for path in fresh.memories if setting.group(path) == group}
            if kind == "momentum" and not setting.narrow:  # a velocity in float32 counts no updates
                self.memories |= {path: fresh.memories[path] for path in mine & whole}
            elif mine & whole:  # a leaf without moments, and all share a count: all begin anew
                self.times[group] = 0
                self.memories |= {path: fresh.memories[path] for path in mine}
        self.memories = {path: self.memories[path] for path in fresh.memories}
        self.norms = {path: self.norms.get(path, radius) for path, radius in fresh.norms.items()}
        self.setting = setting


def unit(x):
    """x / |x|, and 0 of 0."""
    norm = np.sqrt(np.sum(x**2))
    return x / norm if norm else x
