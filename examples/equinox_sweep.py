"""Train an Equinox model once per point of a grid of learning rates and decays, as one program, and draw the scores.

    python examples/equinox_sweep.py

Three in ten labels of the few images to train on are wrong, so that what is learnt by heart is wrong, too, and the
decay matters. Prints the best decay of every rate; writes examples/out/equinox_sweep.png.
"""

import dataclasses
import sys

import terminal

with terminal.extras():
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import matplotlib.pyplot as plt
    import numpy as np
    import optax
    from sklearn.datasets import load_digits

    import adamw_jax as aj
    from adamw_jax import plot

WRONG = 0.3


@dataclasses.dataclass(frozen=True)
class Size:
    """How long a run is, how wide its model, and how fine the grid."""

    updates: int = 3000
    width: int = 64
    batch: int = 64
    rates: int = 7
    decays: int = 7


QUICK = Size(updates=20, width=16, batch=32, rates=2, decays=3)


def load():
    """Return 400 images (n, 64) in [0, 1] with labels, three in ten of which are wrong, and the other images."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    x, y = digits.data[order].astype(np.float32) / 16, digits.target[order]
    guessed = np.where(rng.random(400) < WRONG, (y[:400] + rng.integers(1, 10, 400)) % 10, y[:400])
    return (x[:400], guessed), (x[400:], y[400:])


def loss_of(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()


def make_train(size, train_set, test_set):
    """Return the function that `sweep` calls with traced hyperparameters: (rate, decay) -> test loss and error."""
    x, y = map(jnp.asarray, train_set)
    model = eqx.nn.MLP(x.shape[1], 10, size.width, depth=2, key=jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    schedule = aj.cosine_warm_restarts(size.updates, warmup=size.updates // 20)

    def optimizer(rate, decay):
        return aj.adamw(rate, weight_decay=aj.matrices(decay), schedule=schedule)

    def train(rate, decay):
        tx = optimizer(rate, decay)

        def update(carry, key):
            params, state = carry
            batch = jax.random.choice(key, len(y), (size.batch,), replace=False)
            grads = eqx.filter_grad(lambda params: loss_of(eqx.combine(params, rest), x[batch], y[batch]))(params)
            updates, state = tx.update(grads, state, params)
            return (eqx.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1), size.updates)
        trained, _ = jax.lax.scan(update, (params, tx.init(params)), keys)[0]
        trained = eqx.combine(trained, rest)
        wrong = jax.vmap(trained)(test_set[0]).argmax(-1) != test_set[1]
        return {"loss": loss_of(trained, *test_set), "error": 100 * wrong.mean()}

    print(aj.explain(optimizer(1e-3, 1e-3), params, updates=size.updates), flush=True)
    return train


def main(argv=None):
    given = terminal.flags(__doc__).parse_args(argv)
    size = QUICK if given.quick else Size()
    path = terminal.writable(given.out) / "equinox_sweep.png"
    grid = {
        "rate": np.geomspace(1e-4, 2e-2, size.rates).tolist(),
        "decay": [0.0, *np.geomspace(1e-4, 3e-2, size.decays - 1).tolist()],
    }
    # One program for all runs; in chunks, one run per rate, so that the bar has something to tell.
    runs = aj.sweep(make_train(size, *load()), grid, chunk_size=size.decays, progress=sys.stderr.isatty())

    losses, errors = (np.asarray(runs.values[name]) for name in ("loss", "error"))
    best = losses.argmin(axis=1)
    rows = [
        [f"{rate:.2g}", f"{grid['decay'][i]:.2g}", f"{losses[r, i]:.3f}", f"{errors[r, i]:.1f}", f"{losses[r, 0]:.3f}"]
        for r, (rate, i) in enumerate(zip(grid["rate"], best, strict=True))
    ]
    titles = ["learning rate", "best decay", "test loss (nats)", "test error (%)", "test loss without decay"]
    print(f"\n{terminal.table(titles, rows)}\n\nbest of {losses.size} runs: {runs.best(lambda values: values['loss'])}")

    figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    plot.heat_map(runs, lambda values: values["loss"], label="test loss (nats)", ax=ax)
    ax.set(
        title="Digits, three labels in ten wrong; the frame is the best pair",
        xlabel="decay (share of a weight per update)",
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"\npicture: {path}")


if __name__ == "__main__":
    main()
