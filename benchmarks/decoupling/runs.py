"""Studies of the time axis: budgets, restarts, fine-tuning, and batches and widths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import adamw_jax as aj
from benchmarks.decoupling.forms import FORMS, kernels
from benchmarks.decoupling.grids import now, save
from benchmarks.decoupling.networks import residual
from benchmarks.decoupling.regimes import REGIMES, SHOWN, mnist_1d, shift, teacher
from benchmarks.decoupling.trainings import Regime, fit, loss_and_error, train
from examples import maps

RATE, DECAY = 1e-2, 10**-2.5
"""Near the best of the normalized networks."""


def budgets(lengths=(500, 1581, 5000), decays=tuple(10 ** (k / 2) for k in range(-8, 0)), seeds=6):
    """Measure AdamW over decays and numbers of updates: the same examples again and again, and fresh ones."""
    base = REGIMES["normalized MLP"]
    fresh = functools.partial(teacher, examples=lengths[-1] * base.batch)
    for title, regime in {
        "one pass": base._replace(problem=fresh, one_pass=True),
        "again and again, 20 % by lot": REGIMES["normalized MLP, 20 % by lot"],
        "again and again": base,
    }.items():
        begin, found = now(), []
        for updates in lengths:
            schedule = aj.cosine_warm_restarts(updates, endpoint=False)

            def run(decay, seed, updates=updates, schedule=schedule, regime=regime):
                return train(regime, FORMS["AdamW"](RATE, decay, schedule, regime.b2), seed, updates)

            axes = {"decay": list(decays), "seed": list(range(seeds))}
            values = aj.sweep(run, axes, progress=False).values
            found.append({name: each.tolist() for name, each in values.items()})
        save("budgets", title, begin, {"lengths": list(lengths), "decays": list(decays), "values": found})


def restarts(shortest=500, every=100, seeds=10):
    """Measure the test error on the way."""
    updates = 7 * shortest
    schedules = {
        "warm restarts": aj.cosine_warm_restarts(shortest, t_mult=2, endpoint=False),
        "one cosine": aj.cosine_warm_restarts(updates, endpoint=False),
        "constant": lambda count: 1.0,
    }
    for title in ("normalized MLP", "normalized MLP, 20 % by lot"):
        begin, found, regime = now(), {}, REGIMES[title]
        for name, schedule in schedules.items():

            def run(seed, schedule=schedule, regime=regime):
                return train(regime, FORMS["AdamW"](RATE, DECAY, schedule, regime.b2), seed, updates, every)

            found[name] = aj.sweep(run, {"seed": list(range(seeds))}, progress=False).values["test error"].tolist()
        save("restarts", title, begin, {"shortest": shortest, "every": every, "test error": found})


def multiplier(before=500, updates=150, shots=10, seeds=10):
    """Pretrain on the digits 0 to 6, fine-tune on a few of 7 to 9, with a rate of its own for the body."""
    begin = now()
    x, y = mnist_1d()
    init, logits = residual("batch")
    regime = Regime(None, init, logits, updates, 32, shift)
    schedule = {n: aj.cosine_warm_restarts(n, endpoint=False) for n in (before, updates)}
    old, new = (np.flatnonzero(known[:SHOWN]) for known in (y[:SHOWN] < 7, y[:SHOWN] >= 7))
    source = jnp.asarray(x[old[:8000]]), jnp.asarray(y[old[:8000]])
    later = SHOWN + np.flatnonzero(y[SHOWN:] >= 7)
    few = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(new)
        few.append(np.concatenate([order[y[order] == digit][:shots] for digit in (7, 8, 9)]))
    shown = jnp.asarray(x[np.stack(few)]), jnp.asarray(y[np.stack(few)] - 7)
    parts = {"validation": later[:600], "test": later[600:]}
    parts = {name: (jnp.asarray(x[rows]), jnp.asarray(y[rows] - 7)) for name, rows in parts.items()}

    def pretrain(seed):
        key = jax.random.key(seed)
        tx = FORMS["AdamW"](RATE, DECAY, schedule[before], 0.999)
        return fit(regime, tx, init(key), source, jax.random.fold_in(key, 1), before)

    grown = aj.sweep(pretrain, {"seed": list(range(seeds))}, chunk_size=1, progress=False).values

    def run(rate, multiplier, pretrained, seed):
        key = jax.random.fold_in(jax.random.key(seed), 2)
        fresh = init(key)
        params = jax.tree.map(lambda a, b: jnp.where(pretrained == 1, jnp.asarray(a)[seed], b), grown, fresh)
        head = {"kernel": fresh["head"]["kernel"][:, :3], "bias": jnp.zeros(3), "scale": jnp.ones(3)}
        params |= {"head": head}
        rule = lambda path, leaf: 1.0 if path.startswith("head") else multiplier  # noqa: E731, as short as a rule reads
        tx = aj.adamw(rate, weight_decay=kernels(DECAY), lr_multipliers=rule, schedule=schedule[updates])
        training = shown[0][seed], shown[1][seed]
        params = fit(regime, tx, params, training, jax.random.fold_in(key, 3), updates)
        found = {}
        for name, part in parts.items():
            loss, error = loss_and_error(regime, params, training[0], part)
            found |= {f"{name} loss": loss, f"{name} error": error}
        return found

    rates = [10 ** (k / 2) for k in range(-6, -1)]
    bodies = {"frozen": (0.0, 1), "0.03": (0.03, 1), "0.1": (0.1, 1), "0.3": (0.3, 1)}
    bodies |= {"full rate": (1.0, 1), "from scratch": (1.0, 0)}
    grid = [
        {"rate": rate, "multiplier": r, "pretrained": pretrained, "seed": seed}
        for r, pretrained in bodies.values()
        for rate in rates
        for seed in range(seeds)
    ]
    values = aj.sweep(run, grid, chunk_size=1, progress=False).values
    rows = {name: {} for name in bodies}
    for score, each in values.items():
        for name, part in zip(bodies, each.reshape(len(bodies), len(rates), seeds).tolist(), strict=True):
            rows[name][score] = part
    save("multiplier", f"{shots} examples of each", begin, {"rates": rates, "values": rows})


def front_page():
    """Measure the maps of the front page."""
    begin, found = now(), {}
    for form, coupling in maps.COUPLINGS.items():
        found[form] = maps.loss_map(coupling).tolist()
    save("maps", "normalized MLP", begin, {"rates": maps.RATES.tolist(), "decays": maps.DECAYS.tolist(), "loss": found})
