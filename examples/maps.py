"""Tune the learning rate and the weight decay of a normalized network together: the loss over both, in two forms.

    paper's form    theta <- theta - eta_t (alpha d + lambda theta)         the default of adamw
    coupled form    theta <- theta - eta_t alpha (d + lambda theta)         optax, PyTorch, Keras

The network is scale-invariant: each layer is followed by a normalization, so that the loss ignores how long a weight
is. Each map, seeds included, is one program of `adamw_jax.sweep`. Prints the maps and what they say, and writes the
picture to examples/out/decoupling.png.
"""

import itertools
import sys
import time

try:
    import terminal
except ModuleNotFoundError:  # imported from the folder above
    from examples import terminal

with terminal.extras():
    import jax
    import jax.numpy as jnp
    import matplotlib.pyplot as plt
    import numpy as np
    import optax

    import adamw_jax as aj

SIZES, BATCH, UPDATES, SEEDS = (16, 48, 48, 8), 32, 4000, 3
RATES, DECAYS = np.geomspace(1e-3, 1e-1, 5), np.geomspace(1e-5, 1, 11)
COUPLINGS = {"the paper's form": "schedule", "the coupled form": "learning_rate"}


def teacher(examples=4000, noise=0.0, gain=2.0, seed=0):
    """Return the classes that a random network tells apart, for training and as many as 4000 for validation.

    Args:
      examples: to train on.
      noise: share of the labels that are drawn by lot, in both parts.
      gain: of the teacher's hidden layer; the larger, the harder.
      seed: decides the teacher and the examples.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((examples + 4000, SIZES[0]))
    hidden = np.tanh(gain * x @ rng.standard_normal((SIZES[0], 24)) / SIZES[0] ** 0.5)
    y = (hidden @ rng.standard_normal((24, SIZES[-1]))).argmax(-1)
    y = np.where(rng.random(len(x)) < noise, rng.integers(0, SIZES[-1], len(x)), y)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y)
    return (x[:examples], y[:examples]), (x[examples:], y[examples:])


def init_params(key, sizes=SIZES):
    """Return kernels; biases would only blur the picture."""
    pairs = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, len(pairs))
    return {f"dense_{i}": jax.random.normal(keys[i], pair) / pair[0] ** 0.5 for i, pair in enumerate(pairs)}


def logits(params, x):
    """Return 12 cos(hidden, class): every kernel counts by its direction alone."""
    *hidden, head = params.values()
    for kernel in hidden:
        x = jax.nn.relu(jax.nn.standardize(x @ kernel, epsilon=1e-6))
    x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return 12 * x @ (head / jnp.linalg.norm(head, axis=0))


def loss_of(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def train(tx, seed, training, validation):
    """Return the validation loss after a training; the seed decides the start and the batches."""
    x, y = training
    key = jax.random.key(seed)

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(y))
        updates, state = tx.update(jax.grad(loss_of)(params, x[rows], y[rows]), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = init_params(key)
    keys = jax.random.split(jax.random.fold_in(key, 1), UPDATES)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
    return loss_of(params, *validation)


def loss_map(coupling, progress=False):
    """Return the validation losses (rate, decay, seed), from one program."""
    training, validation = teacher()
    schedule = aj.cosine_warm_restarts(UPDATES, endpoint=False)

    def run(learning_rate, weight_decay, seed):
        tx = aj.adamw(learning_rate, b2=0.99, weight_decay=weight_decay, coupling=coupling, schedule=schedule)
        return train(tx, seed, training, validation)

    axes = {"learning_rate": RATES.tolist(), "weight_decay": DECAYS.tolist(), "seed": list(range(SEEDS))}
    return aj.sweep(run, axes, chunk_size=len(RATES) * len(DECAYS), progress=progress).values


def optimum(axis, losses):
    """Return the logarithm of the place of the smallest loss, between the axis's points by a parabola through three."""
    at = int(np.argmin(losses))
    x = np.log(axis)
    if not 0 < at < len(x) - 1:
        return x[at]
    before, here, after = losses[at - 1 : at + 2]
    bend = before - 2 * here + after
    return x[at] + (x[1] - x[0]) * (0.5 * (before - after) / bend if bend > 0 else 0.0)


def coupling_slope(rates, decays, losses, within=1.1):
    """Return d log(best decay) / d log(rate): 0 where the two can be tuned apart, -1 where only their product counts.

    A least-squares line through the optima of those rates whose smallest loss is at most `within` times the grid's and
    lies between the ends of the decays.

    Args:
      rates, decays: the axes.
      losses: (rate, decay).
      within: >= 1.

    Returns:
      The slope; nan where fewer than two rates count.
    """
    losses = np.asarray(losses)
    smallest, at = losses.min(axis=1), losses.argmin(axis=1)
    useful = (smallest <= within * smallest.min()) & (at > 0) & (at < len(decays) - 1)
    if useful.sum() < 2:
        return np.nan
    optima = [optimum(decays, row) for row in losses[useful]]
    return float(np.polyfit(np.log(np.asarray(rates)[useful]), optima, 1)[0])


def draw(maps, path):
    """Write the picture of {title: mean losses (rate, decay)}; a ring marks the best decay of every rate.

    A question mark in it says that it lies at the end of the decays, so that a better one may lie beyond.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(11, 4.2), sharey=True, layout="constrained")
    best = min(losses.min() for losses in maps.values())
    worst = np.percentile(np.concatenate([losses.ravel() for losses in maps.values()]), 95)
    last = len(DECAYS) - 1
    for ax, (title, losses) in zip(axes, maps.items(), strict=True):
        image = ax.imshow(losses, cmap="viridis", vmin=best, vmax=worst, aspect="auto", origin="lower")
        at, rows = losses.argmin(axis=1), np.arange(len(RATES))
        ax.plot(at, rows, "o-", color="white", markerfacecolor="none", markersize=20, linewidth=1.5)
        for row in rows[(at == 0) | (at == last)]:
            ax.annotate("?", (at[row], row), ha="center", va="center", color="white", weight="bold", fontsize=14)
        ax.set_xticks(range(0, last + 1, 2), [f"{decay:g}" for decay in DECAYS[::2]])
        ax.set_xlabel("weight decay")
        ax.set_title(title, fontsize=12)
    axes[0].set_yticks(range(len(RATES)), [f"{rate:.2g}" for rate in RATES])
    axes[0].set_ylabel("learning rate")
    figure.colorbar(image, ax=axes, label="validation loss (dark is good)", extend="max")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def titles(maps):
    """Return the maps by what stands above them in the picture."""
    words = {
        "the paper's form": "AdamW here, as in the paper:\nthe best decay (rings) is the same at every rate",
        "the coupled form": "AdamW in optax, PyTorch, Keras (decay x rate):\nit moves with the rate (?: or beyond)",
    }
    return {words[form]: losses for form, losses in maps.items()}


def main(argv=None):
    path = terminal.writable(terminal.flags(__doc__, quick=False).parse_args(argv).out) / "decoupling.png"
    maps = {}
    for form, coupling in COUPLINGS.items():
        begin = time.perf_counter()
        losses = maps[form] = loss_map(coupling, progress=sys.stderr.isatty()).mean(-1)
        print(f"validation loss, {form}: {losses.size * SEEDS} trainings in {time.perf_counter() - begin:.0f} s")
        print("rate \\ decay" + "".join(f"{decay:8.0e}" for decay in DECAYS))
        for rate, row in zip(RATES, losses, strict=True):
            marks = "".join(f"{loss:7.3f}" + ("*" if loss == row.min() else " ") for loss in row)
            print(f"{rate:12.4f} {marks}")
    print("\n* best decay of a rate.")
    for form, losses in maps.items():
        slope = coupling_slope(RATES, DECAYS, losses)
        print(f"{form}: ten times the rate wants {10**slope:.2g} times the decay (slope {slope:+.2f})")
    draw(titles(maps), path)
    print(f"\npicture: {path}")


if __name__ == "__main__":
    main()
