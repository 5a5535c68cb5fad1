"""By which angle the kernels of a normalized network turn per update once rate and decay have come to an equilibrium.

A gradient of a scale-invariant loss stands at right angles to the weight, so that steps lengthen it and the decay
shortens it. Where both balance, AdamW in the paper's form turns a weight per update by

    sqrt(2 decay (1 - b1) / (1 + b1)),

whatever the rate: the rate sets the length, the decay the angle. In the coupled form, alpha decay stands for the decay.

Source: Kosson, Messmer & Jaggi, arXiv 2305.17212.
"""

import jax
import jax.numpy as jnp
import optax

import adamw_jax as aj
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.grids import now, save
from examples import maps

RATES, DECAYS, DECAY = [1e-3, 10**-2.5, 1e-2, 10**-1.5], [1e-3, 10**-2.5, 1e-2], 10**-2.5


def predicted(decay):
    """Return the angle per update in radians that `explain` tells of AdamW in the paper's form."""
    params = {"kernel": jax.ShapeDtypeStruct((2, 2), float)}
    return aj.explain(aj.adamw(RATES[0], weight_decay=decay), params, scale_invariant="kernel").rows[0]["turn"]


def angle(a, b):
    """Return the angle between two trees of arrays, leaf by leaf."""

    def one(a, b):
        cosine = jnp.sum(a * b) * jax.lax.rsqrt(jnp.sum(a * a) * jnp.sum(b * b))
        # Near 1 the arc cosine loses half of the digits; the chord keeps them.
        chord = jnp.linalg.norm(a / jnp.linalg.norm(a) - b / jnp.linalg.norm(b))
        return jnp.where(cosine > 0.9, 2 * jnp.arcsin(chord / 2), jnp.arccos(cosine))

    return jax.tree.map(one, a, b)


def turning(tx, seed, updates, last, training):
    """Return the mean angle per update and the norm of every kernel, over the last updates of a training."""
    x, y = training
    key = jax.random.key(seed)

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (maps.BATCH,), 0, len(y))
        changes, state = tx.update(jax.grad(maps.loss_of)(params, x[rows], y[rows]), state, params)
        new = optax.apply_updates(params, changes)
        return (new, state), (angle(params, new), jax.tree.map(jnp.linalg.norm, new))

    params = maps.init_params(key)
    _, seen = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.fold_in(key, 1), updates))
    angles, norms = jax.tree.map(lambda values: values[-last:].mean(), seen)
    return {"angle": jnp.stack(list(angles.values())), "norm": jnp.stack(list(norms.values()))}


def measure(updates=4000, last=1000, seeds=5):
    """Measure both forms over the rates, and the paper's over the decays."""
    begin, found = now(), {}
    training, _ = maps.teacher(noise=0.2)
    grids = {
        "AdamW": {"rate": RATES, "decay": DECAYS, "seed": list(range(seeds))},
        "Adam + L2": {"rate": RATES, "decay": [DECAY], "seed": list(range(seeds))},
    }
    for form, axes in grids.items():

        def run(rate, decay, seed, form=form):
            return turning(FORMS[form](rate, decay, lambda count: 1.0, 0.99), seed, updates, last, training)

        values = aj.sweep(run, axes, progress=False).values
        found[form] = axes | {name: each.tolist() for name, each in values.items()}
    save("rotation", "normalized MLP", begin, found)
