"""Does training with narrow moments end where training with float32 moments ends?"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from benchmarks import characters
from benchmarks.problems import digits_mlp, random_like
from benchmarks.report import publish


def _round_to_nearest(rate):
    """Return Adam whose moments are bfloat16 rounded to nearest: what stochastic rounding is there to avoid."""

    def update(updates, state, params=None):
        wide = state._replace(mu=optax.tree.cast(state.mu, jnp.float32), nu=optax.tree.cast(state.nu, jnp.float32))
        directions, new = optax.scale_by_adam().update(updates, wide, params)
        narrow = (optax.tree.cast(new.mu, jnp.bfloat16), optax.tree.cast(new.nu, jnp.bfloat16))
        return directions, new._replace(mu=narrow[0], nu=narrow[1])

    def init(params):
        return optax.scale_by_adam().init(optax.tree.cast(params, jnp.bfloat16))

    return optax.chain(optax.GradientTransformation(init, update), optax.scale(-rate))


KINDS = {
    "float32": lambda rate: aj.adamw(rate),
    "packed": lambda rate: aj.adamw(rate, moment_dtype="packed"),
    "bfloat16": lambda rate: aj.adamw(rate, moment_dtype="bfloat16"),
    "bfloat16, to nearest": _round_to_nearest,
    "packed8": lambda rate: aj.adamw(rate, moment_dtype="packed8"),
}


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)

    def logits(params, x):
        for i in range(3):
            x = x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
            x = jax.nn.relu(x) if i < 2 else x
        return x

    def loss(params, batch):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, images[batch]), labels[batch]).mean()

    def batch(key):
        return jax.random.randint(key, (128,), 0, len(labels))

    return lambda key: random_like(digits_mlp(), key), batch, loss, jnp.arange(len(labels)), 2e-3


def transformer(width=64, context=32):
    text = jnp.asarray(characters.codes(characters.text())[:200_000])

    def loss(params, starts):
        window = text[starts[:, None] + jnp.arange(context + 1)]
        out = characters.logits(params, window[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(out, window[:, 1:]).mean()

    def batch(key):
        return jax.random.randint(key, (16,), 0, len(text) - context - 1)

    everything = jnp.arange(0, len(text) - context - 1, 4 * context)[:256]
    return lambda key: random_like(characters.shapes(width, context), key), batch, loss, everything, 2e-3


PROBLEMS = {"digits": (digits, 600), "transformer": (transformer, 250)}


def training(problem, make, steps):
    """Return (seed, rate) -> the loss on everything after a training by `make(rate)`, compiled once."""
    make_params, batch, loss, everything, _ = problem

    @jax.jit
    def train(seed, rate):
        tx, params = make(rate), make_params(jax.random.key(seed))

        def body(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, batch(key)), state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1000 + seed), steps)
        (params, _), _ = jax.lax.scan(body, (params, tx.init(params)), keys)
        return loss(params, everything)

    return train


def final_losses(problem, kind, seeds, steps):
    train, rate = training(problem, KINDS[kind], steps), problem[-1]
    return np.array([float(train(seed, rate)) for seed in range(seeds)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--problems", default="digits,transformer")
    args = parser.parse_args()
    rows = []
    for name in args.problems.split(","):
        make, steps = PROBLEMS[name]
        problem = make()
        losses = {}
        for kind in KINDS:
            start = time.perf_counter()
            losses[kind] = final_losses(problem, kind, args.seeds, steps)
            mean, spread = losses["float32"].mean(), losses["float32"].std(ddof=1)
            paired = losses[kind] - losses["float32"]
            rows.append(
                {
                    "problem": name,
                    "moments": kind,
                    "final training loss": float(losses[kind].mean()),
                    "standard deviation over seeds": float(losses[kind].std(ddof=1)),
                    "distance from float32 in its standard deviations": float((losses[kind].mean() - mean) / spread),
                    "paired difference": float(paired.mean()),
                    "seeds": args.seeds,
                    "updates": steps,
                }
            )
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    publish("quality", rows)


if __name__ == "__main__":
    main()
