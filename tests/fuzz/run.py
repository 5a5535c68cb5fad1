"""The library against the simulator: random structures, numbers, gradients, and edits of the state in mid-run."""

import argparse
import dataclasses
import functools
import itertools
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from tests.fuzz.simulator import Run
from tests.fuzz.structures import NARROW, SHAPES, draw_average, draw_numbers, draw_structure, flat, nested

STEPS = 5
"""Updates from one edit to the next, in one compiled program."""
EDITS = ("restart", "set_position", "reschedule", "carry_over", "convert_moments")
"""Edits that follow each other in every order; `intervene`, which is made of them, is drawn."""


class Difference(AssertionError):
    """The library and the simulator differ."""


@functools.cache
def program(structure):
    """The compiled program of a structure: its numbers, gradients, state and parameters are arguments."""

    def steps(numbers, state, params, gradients):
        tx = structure.optimizer(numbers)

        def body(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            carry = optax.apply_updates(params, updates), state
            return carry, carry

        return jax.lax.scan(body, (params, state), gradients)

    return jax.jit(steps)


def draw_params(rng):
    return {path: rng.normal(size=shape) + 0.1 for path, shape in SHAPES.items()}


def draw_gradients(rng, structure, params):
    """Gradients over two decades; some zero; where spikes are watched, one that is far above, and one not finite."""
    found = {
        path: rng.normal(size=(STEPS, *p.shape)) * 10 ** rng.uniform(-2, 0, size=(STEPS, *p.shape))
        for path, p in params.items()
    }
    found["head/kernel"][:, 0] = 0.0
    if "spikes" in structure.wrap:
        for at, size in ((rng.integers(STEPS), 1e4), (rng.integers(STEPS), np.nan)):
            for g in found.values():
                g[at] *= size
    return found


class Case:
    """One run of both sides."""

    def __init__(self, rng, structure):
        self.rng, self.structure = rng, structure
        self.narrow = structure.storage in NARROW
        self.dtype = np.float32 if self.narrow else np.float64
        self.numbers = draw_numbers(rng, structure)
        params = draw_params(rng)
        self.params = self.tree(params)
        # The leaves as the library holds them, in float64.
        params = {path: np.asarray(p, np.float64) for path, p in flat(self.params).items()}
        self.state = self.optimizer().init(self.params)
        self.run = Run(structure.setting(self.numbers), params)
        self.compared, self.errors, self.was_float32 = 0, [], False

    def tree(self, leaves):
        return nested({path: jnp.asarray(leaf, self.dtype) for path, leaf in leaves.items()})

    def traced(self):
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype if x.dtype == np.float64 else x.dtype), self.numbers)

    def optimizer(self):
        return self.structure.optimizer(self.traced())

    # Edits, of both.

    def edit(self, name):
        getattr(self, name)()

    def restart(self):
        period = int(self.rng.integers(2, 9)) if self.rng.random() < 0.5 and self.is_cosine() else None
        self.state = aj.restart(self.state, period=period)
        self.run.restart(period)

    def is_cosine(self):
        return self.structure.schedule == "cosine"

    def set_position(self):
        period = int(self.rng.integers(3, 9)) if self.is_cosine() and self.rng.random() < 0.5 else None
        t_cur = int(self.rng.integers(0, period or (self.run.position.period or 5)))
        cycle = int(self.rng.integers(0, 3)) if self.is_cosine() and self.rng.random() < 0.5 else None
        always_own = self.structure.schedule == "number"
        eta = None if always_own or self.rng.random() < 0.5 else float(self.rng.uniform(0.1, 0.9))
        self.state = aj.set_position(self.state, t_cur, period=period, cycle=cycle, eta=eta)
        self.run.set_position(t_cur, period, cycle, eta)

    def reschedule(self):
        new = draw_numbers(self.rng, self.structure)
        names = ("period", "t_mult", "eta_min", "eta_max", "eta_max_decay", "warmup", "eta")
        self.numbers |= {name: new[name] for name in names}
        count = int(self.rng.integers(0, 12))
        schedule = self.structure.factor(self.traced())
        self.state = aj.reschedule(self.state, schedule, count=count)
        self.run.reschedule(self.structure.setting(self.numbers), count)

    def intervene(self):
        """Freeze other leaves, or hold others; and average other leaves, with other numbers, or from now on."""
        old = self.optimizer()
        self.refrozen()
        but = ((), ("bias",), ("kernel",))[self.rng.integers(3)]
        average = self.structure.average or draw_average(lambda *values: values[self.rng.integers(len(values))], None)
        self.structure = dataclasses.replace(self.structure, average=average, but=but)
        new = draw_numbers(self.rng, self.structure)
        self.numbers |= {name: new[name] for name in ("half-life", "power")}
        self.state = aj.intervene(self.state, old, self.optimizer(), self.params).state
        self.run.intervene(self.structure.setting(self.numbers))

    def carry_over(self):
        """Freeze other leaves, or hold others."""
        self.refrozen()
        self.state = aj.carry_over(self.state, self.optimizer().init(self.params))
        self.run.carry_over(self.structure.setting(self.numbers))

    def refrozen(self):
        frozen = ((), ("embed",), ("bias", "scale"))[self.rng.integers(3)]
        held = ()
        if self.structure.held:
            frozen, held = self.structure.frozen, (("body/kernel",), ("head/kernel",))[self.rng.integers(2)]
        self.structure = dataclasses.replace(self.structure, frozen=frozen, held=held)
        self.run.params = {path: np.asarray(p, np.float64) for path, p in flat(self.params).items()}

    def convert_moments(self):
        """Store the moments otherwise: wide as float32 in float64's place and back, or narrow in another form."""
        before = self.structure.storage
        choices = [x for x in (NARROW if self.narrow else (None, "float32", "float64")) if x != before]
        storage = choices[self.rng.integers(len(choices))]
        self.structure = dataclasses.replace(self.structure, storage=storage)
        self.was_float32 = self.was_float32 or storage == "float32"
        old = self.state
        self.state = aj.convert_moments(self.state, self.optimizer().init(self.params))
        if self.narrow:
            before, after = self.moments(old), self.moments(self.state)
            for name, path in itertools.product(before, self.run.memories):
                self.rounded(name, before[name][path], after[name][path], nearest=True)
                dict.__setitem__(self.run.memories[path], name, after[name][path])

    # Updates, of both.

    def advance(self):
        gradients = draw_gradients(self.rng, self.structure, self.run.params)
        given = self.tree(gradients)
        numbers, before = self.traced(), self.params
        (self.params, self.state), every = program(self.structure)(numbers, self.state, self.params, given)
        gradients = {path: np.asarray(g, np.float64) for path, g in flat(given).items()}
        for k in range(STEPS):
            params, state = jax.tree.map(lambda x, k=k: x[k], every)
            if self.narrow:
                self.follow(before, state)
            self.run.update({path: g[k] for path, g in gradients.items()})
            self.compare(params, state)
            before = params

    def follow(self, params, state):
        """Simulate each update from the parameters before it, with moments rounded as by chance they were."""
        self.run.params = {path: np.asarray(p, np.float64) for path, p in flat(params).items()}
        moments = self.moments(state)
        for path, memory in self.run.memories.items():
            memory.stored = lambda name, exact, path=path: self.rounded(name, exact, moments[name][path])

    def rounded(self, name, exact, stored, nearest=False):
        """Return a stored moment, which is a neighbour of the exact one: either by chance, or the nearest."""
        large = np.abs(exact) > 1e-12
        bits = 2 if self.structure.storage == "packed8" and name != "trace" else 7
        spacing = 2.0 ** (np.floor(np.log2(np.abs(exact[large]))) - bits)
        error = (stored[large] - exact[large]) / spacing
        self.compared += error.size
        # float32's own rounding of the exact number, and the zero of eight bits, are below a part in 1000 of a spacing.
        if np.abs(error).max(initial=0) > (0.5 if nearest else 1) + 1e-3:
            raise Difference(f"{name}: rounded by {np.abs(error).max()} spacings\n{self.structure}")
        if not nearest:
            self.errors.append(error)
        return stored

    def moments(self, state):
        kinds = {kind for _, kind, _ in self.structure.directions}
        if kinds <= {"adam", "nadam"}:
            names = dict(zip(("mu", "nu"), aj.read_moments(state), strict=True))
        else:
            names = {"trace": optax.tree.get(state, "trace")}
        return {
            name: {path: np.asarray(x, np.float64) for path, x in flat(tree).items() if path in self.run.memories}
            for name, tree in names.items()
        }

    # Comparisons.

    def compare(self, params, state):
        # float64: rounding errors of 1e-16, a hundredfold over the updates. float32 starts every update anew.
        tolerance = {"rtol": 3e-6, "atol": 3e-6} if self.narrow else {"rtol": 1e-9, "atol": 1e-10}
        if self.was_float32:
            tolerance = {"rtol": 1e-4, "atol": 1e-5}
        for path, p in flat(params).items():
            self.close(path, p, self.run.params[path], **tolerance)
        if self.run.setting.schedule is not None or self.structure.alpha:
            now = aj.current(state)
            self.close("count", now.count, self.run.count, rtol=0, atol=0)
            if self.run.position is not None:
                self.close("t_cur", now.t_cur, self.run.position.t_cur, rtol=0, atol=0)
                self.close("cycle", now.cycle, self.run.position.cycle, rtol=0, atol=0)
                if now.eta >= 0:  # else the update that computes it has yet to be taken
                    self.close("eta", now.eta, self.run.eta(), rtol=1e-6, atol=1e-6)
        if self.structure.average:
            self.compare_averages(params, state, **tolerance)
        if "spikes" in self.structure.wrap:
            self.close("skipped", optax.tree.get(state, "skipped"), self.run.skipped, rtol=0, atol=0)
        if "observe" in self.structure.wrap and self.run.seen:
            for row in aj.report(state).rows:
                for name, value in self.run.seen[row["path"]].items():
                    # Sums in float32, of updates that are differences of parameters near 1.
                    self.close(f"{row['path']} {name}", row[name], value, rtol=1e-3, atol=1e-6)

    def compare_averages(self, params, state, **tolerance):
        wanted = self.run.average.read(self.run.setting.averages, self.run.params)
        try:
            read = flat(aj.averaged(state, params))
        except ValueError:
            read = None
        if (read is None) != (wanted is None):
            raise Difference(f"the average has begun: library {read is not None}\n{self.structure}\n{self.numbers}")
        for path, p in (wanted or {}).items():
            self.close(f"average of {path}", read[path], p, **tolerance)

    def close(self, what, got, expected, **tolerance):
        self.compared += np.size(expected)
        if not np.allclose(got, expected, equal_nan=True, **tolerance):
            raise Difference(
                f"{what}: library {np.asarray(got)}, simulator {expected}\n{self.structure}\n{self.numbers}"
            )


def check_chance(case):
    """Rounded to one of two neighbours by chance: a quarter is not the nearest, and the mean error is none."""
    errors = np.concatenate(case.errors) if case.errors else np.zeros(0)
    if errors.size < 200:
        return
    far, mean = np.mean(np.abs(errors) > 0.5), np.mean(errors)
    # Six standard deviations of `errors.size` draws.
    if abs(far - 0.25) > 0.05 + 6 * 0.43 / np.sqrt(errors.size) or abs(mean) > 6 * 0.41 / np.sqrt(errors.size):
        raise Difference(f"rounding: {far:.3f} not to the nearest, mean error {mean:.4f} spacings\n{case.structure}")


def run_case(rng, structure, edits):
    case = Case(rng, structure)
    case.advance()
    for name in edits:
        for each in name if isinstance(name, tuple) else (name,):
            case.edit(each)
        case.advance()
    check_chance(case)
    return case.compared


def possible(structure):
    """The edits that a structure's state has something for."""
    found = [] if structure.schedule is None else ["set_position", "reschedule"]
    found += ["restart"] if structure.schedule in ("cosine", "falling") else []
    lion = any(kind == "lion" for _, kind, _ in structure.directions)
    return found + ["carry_over", "intervene"] + ([] if lion or len(structure.directions) > 1 else ["convert_moments"])


def narrow_structure(rng):
    """A structure whose moments can be stored narrow and read back."""
    structure = draw_structure(rng, preset=False, alpha="number", coupling="learning_rate", steps=False, wrap="")
    kind, options = (("adam", (("epsilon_hat", False),)), ("momentum", (("nesterov", True),)))[rng.integers(2)]
    return dataclasses.replace(
        structure,
        directions=(("", kind, options),),
        storage=str(rng.choice(NARROW)),
        form="decoupled",
        threshold=None,
        held=(),
        decay=structure.decay,
    )


def crossings(rng):
    """Every edit followed by every other, on one structure and its two storages."""
    structure = draw_structure(
        rng, schedule="cosine", directions=(("kernel", "adam", (("epsilon_hat", False),)), ("", "adam", ())),
        preset=False, held=(), wrap="observe spikes",
    )  # fmt: skip
    structure = dataclasses.replace(structure, directions=(("", "adam", (("epsilon_hat", False),)),))
    return structure, list(itertools.product(EDITS, EDITS))


def fuzz(seed, count, progress=lambda text: None):
    """Run `count` random structures, each with two draws of numbers, and all crossings of edits.

    Returns: structures, crossings, numbers compared.
    """
    rng, compared = np.random.default_rng(seed), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of decays that are strong, and of held leaves
        with jax.enable_x64(True):
            structure, pairs = crossings(rng)
            compared += run_case(rng, structure, pairs)
            progress(f"crossings: {len(pairs)} pairs")
            for index in range(count):
                structure = narrow_structure(rng) if index % 4 == 3 else draw_structure(rng)
                for _ in range(2):
                    edits = rng.choice(possible(structure), size=2)
                    try:
                        compared += run_case(rng, structure, [str(edit) for edit in edits])
                    except Difference as error:
                        raise Difference(f"seed {seed}, structure {index}, edits {edits}: {error}") from error
                progress(f"{index + 1} structures, {compared} numbers")
    return {"structures": count, "crossings": len(pairs), "compared": compared}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    found = fuzz(arguments.seed, arguments.count)
    print(f"seed {arguments.seed}: {found} in {time.perf_counter() - begun:.0f} s, no difference")


if __name__ == "__main__":
    main()
