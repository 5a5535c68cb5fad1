"""Does an average in bfloat16 stay where it should? A noisy walk of 100,000 updates, over 20 seeds."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from benchmarks.report import publish

HALF_LIFE = 500
ELEMENTS = 64
STORES = {"float32": None, "bfloat16, stochastically rounded": "bfloat16"}
NEAREST = "bfloat16, rounded to nearest"


def run(key, updates):
    """Return weights and averages of a run at 1000 of its updates: (1000, number, elements).

    The weights are near 1: a walk that is pulled back, and noise from update to update on top of it.
    """
    averages = [aj.with_average(optax.sgd(1.0), aj.Ema(HALF_LIFE), store=store) for store in STORES.values()]
    begin = jnp.ones(ELEMENTS)

    def step(carry, k):
        walk, params, states, nearest = carry
        steps, noise = jax.random.normal(jax.random.fold_in(key, k), (2, ELEMENTS))
        walk = walk + 1e-4 * (1 - walk) + 1e-3 * steps
        gradients = params - (walk + 0.02 * noise)
        results = [tx.update(gradients, state, params) for tx, state in zip(averages, states, strict=True)]
        params = optax.apply_updates(params, results[0][0])
        share, _ = aj.Ema(HALF_LIFE).share(k + 1, k, None)
        nearest = (nearest + share * (params - nearest)).astype(jnp.bfloat16)
        states = [state for _, state in results]
        return (walk, params, states, nearest), None

    def block(carry, ks):
        carry, _ = jax.lax.scan(step, carry, ks)
        _, params, states, nearest = carry
        return carry, jnp.stack([params, *(aj.averaged(s, params, missing="params") for s in states), nearest])

    carry = (begin, begin, [tx.init(begin) for tx in averages], jnp.zeros(ELEMENTS, jnp.bfloat16))
    return jax.lax.scan(block, carry, jnp.arange(updates).reshape(1000, -1))[1]


def draw(found, updates):
    """Draw one element of the first run, and the errors of all at the end."""
    import matplotlib.pyplot as plt

    from adamw_jax.plot._curves import COLORS

    names = ("weight", *STORES, NEAREST)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    count = np.linspace(updates / 1000, updates, 1000)
    colors = ("0.85", "black", COLORS[0], COLORS[1])
    for i, name in enumerate(names):
        left.plot(count, found[0, :, i, 0], color=colors[i], linewidth=0.8 if i == 0 else 1.2, label=name)
    left.set(xlabel="updates", ylabel="one weight and its average", title=f"half-life {HALF_LIFE}")
    left.legend(fontsize=8)
    errors = 100 * (found[:, -1, 2:] / found[:, -1, 1:2] - 1)
    for i, name in enumerate(names[2:]):
        right.hist(errors[:, i].ravel(), bins=40, range=(-12, 12), alpha=0.7, color=colors[i + 2], label=name)
    right.set(xlabel="distance from the float32 average, %", ylabel="elements", title="at the end, 20 runs")
    right.legend(fontsize=8)
    figure.savefig("docs/pictures/average.png", dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    keys = jax.random.split(jax.random.key(0), args.seeds)
    found = np.asarray(jax.jit(jax.vmap(lambda key: run(key, args.updates)))(keys), np.float64)
    rows = []
    for i, name in enumerate((*list(STORES)[1:], NEAREST)):
        errors = found[:, -1, 2 + i] / found[:, -1, 1] - 1
        drift = errors.mean(axis=1)
        rows.append(
            {
                "store": name,
                "drift, mean over seeds, %": 100 * drift.mean(),
                "standard error, %": 100 * drift.std(ddof=1) / np.sqrt(args.seeds),
                "noise of an element, rms, %": 100 * np.sqrt(np.mean(errors**2)),
                "2^-8, %": 100 * 2**-8,
                "updates": args.updates,
                "seeds": args.seeds,
            }
        )
    publish("average", rows)
    draw(found, args.updates)


if __name__ == "__main__":
    main()
