"""What do a few spiked gradients cost a training, and what does skipping them save?"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from benchmarks.quality import characters
from benchmarks.report import publish

SHARE, FACTOR = 0.01, 1000.0
"""Share of the batches whose gradients are spiked, and by what they are multiplied."""

GUARDS = {
    "none": lambda tx: tx,
    "skip_spikes": aj.skip_spikes,
    "skip_spikes(window=20)": lambda tx: aj.skip_spikes(tx, window=20),
    "clip_by_global_norm(1)": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "apply_if_finite(10)": lambda tx: optax.apply_if_finite(tx, 10),
}


def factors(spikes, seed, updates):
    """Return what the gradients of every update are multiplied by: the same for all guards."""
    rng = np.random.default_rng(seed)
    spiked, lost = rng.random(updates) < SHARE, rng.random(updates) < 0.2
    if spikes == "no spikes":
        return np.ones(updates)
    sizes = np.where(lost & (spikes == "times 1000 or NaN"), np.nan, FACTOR)
    return np.where(spiked, sizes, 1.0)


def trainer(problem, tx):
    make_params, batch, loss, everything, _ = problem

    @jax.jit
    def train(seed, factors):
        params = make_params(jax.random.key(seed))

        def body(carry, x):
            key, factor = x
            params, state = carry
            grads = jax.tree.map(lambda g: factor * g, jax.grad(loss)(params, batch(key)))
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1000 + seed), len(factors))
        (params, state), _ = jax.lax.scan(body, (params, tx.init(params)), (keys, factors))
        skipped = optax.tree.get(state, "skipped", optax.tree.get(state, "total_notfinite", 0))
        return loss(params, everything), skipped, params

    return train


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=400)
    args = parser.parse_args()
    problem, rows, unguarded = characters(), [], {}
    for guard, wrap in GUARDS.items():
        train = trainer(problem, wrap(aj.adamw(problem[-1], weight_decay=1e-4)))
        for spikes in ("no spikes", "times 1000", "times 1000 or NaN"):
            start = time.perf_counter()
            losses, skipped, spiked, same = [], [], [], []
            for seed in range(args.seeds):
                sizes = factors(spikes, seed, args.updates)
                loss, left_out, params = train(seed, jnp.asarray(sizes, jnp.float32))
                losses.append(float(loss))
                skipped.append(int(left_out))
                spiked.append(int((sizes != 1).sum()))
                if spikes == "no spikes":
                    leaves = list(map(np.asarray, jax.tree.leaves(params)))
                    first = unguarded.setdefault(seed, leaves)
                    same.append(all(map(np.array_equal, leaves, first)))
            finite = [loss for loss in losses if np.isfinite(loss)]
            rows.append(
                {
                    "guard": guard,
                    "gradients": spikes,
                    "final training loss": float(np.mean(finite)) if finite else "not finite",
                    "standard deviation over seeds": float(np.std(finite, ddof=1)) if len(finite) > 1 else "",
                    "runs lost": len(losses) - len(finite),
                    "spiked updates": sum(spiked),
                    "left out": sum(skipped),
                    "bits of the unguarded run": ("yes" if all(same) else "no") if same else "",
                    "seeds": args.seeds,
                    "updates": args.updates,
                }
            )
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    publish("spikes", rows)


if __name__ == "__main__":
    main()
