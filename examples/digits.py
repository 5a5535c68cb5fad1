"""Train a small convolutional classifier on handwritten digits with AdamW, NadamW and SGDW under warm restarts.

Plain Adam with L2 regularization, where the penalty goes through the moments, runs next to them on the same batches at
the same rate. Prints a table, and writes two pictures to examples/out/.
"""

import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import adamw_jax as aj

BATCH, CYCLE_EPOCHS, CYCLES, T_MULT = 64, 4, 3, 2
OUT = pathlib.Path(__file__).parent / "out"


def load():
    """Return train and test images (n, 8, 8, 1) in [0, 1] and their labels."""
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    images = jnp.asarray(digits.images[order, :, :, None] / 16, jnp.float32)
    labels = jnp.asarray(digits.target[order])
    return (images[:1344], labels[:1344]), (images[1344:], labels[1344:])


def init_params(key):
    """Return He-initialized kernels and zero biases of two convolutions and two dense layers."""
    shapes = {"conv_1": (3, 3, 1, 16), "conv_2": (3, 3, 16, 32), "dense_1": (128, 64), "dense_2": (64, 10)}
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    he = jax.nn.initializers.he_normal()
    return {name: {"kernel": he(keys[name], shape), "bias": jnp.zeros(shape[-1])} for name, shape in shapes.items()}


def logits(params, x):
    for name in ("conv_1", "conv_2"):
        x = jax.lax.conv_general_dilated(
            x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + params[name]["bias"])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    x = jax.nn.relu(x @ params["dense_1"]["kernel"] + params["dense_1"]["bias"])
    return x @ params["dense_2"]["kernel"] + params["dense_2"]["bias"]


def loss_of(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def make_optimizers(schedule):
    """Return the competitors; all decay the kernels alone, and all follow the same schedule."""
    wr = {"schedule": schedule, "normalize_decay": "cycle"}

    def kernels(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return {
        "adamw": aj.adamw(3e-3, weight_decay={"kernel": 0.01}, **wr),
        "nadamw": aj.nadamw(3e-3, weight_decay={"kernel": 0.01}, **wr),
        "sgdw": aj.sgdw(0.05, nesterov=True, weight_decay={"kernel": 0.01}, **wr),
        "adam + L2": optax.chain(
            optax.add_decayed_weights(1e-3, mask=kernels), optax.adam(lambda count: 3e-3 * schedule(count))
        ),
    }


def train(tx, train_set, test_set, epochs, progress):
    """Return test loss and accuracy after every epoch, and the median time of an update in milliseconds."""
    images, labels = train_set
    updates_per_epoch = len(labels) // BATCH

    @jax.jit
    def run_epoch(params, state, key):
        batches = jax.random.permutation(key, len(labels)).reshape(updates_per_epoch, BATCH)

        def update(carry, batch):
            params, state = carry
            grads = jax.grad(loss_of)(params, images[batch], labels[batch])
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(update, (params, state), batches)[0]

    @jax.jit
    def evaluate(params):
        x, y = test_set
        return loss_of(params, x, y), (logits(params, x).argmax(-1) == y).mean()

    params = init_params(jax.random.key(0))
    state = tx.init(params)
    losses, accuracies, times = [], [], []
    for epoch in range(epochs):
        begin = time.perf_counter()
        params, state = jax.block_until_ready(run_epoch(params, state, jax.random.key(epoch)))
        times.append(1e3 * (time.perf_counter() - begin) / updates_per_epoch)
        loss, accuracy = evaluate(params)
        losses.append(float(loss))
        accuracies.append(float(accuracy))
        progress.set_postfix_str(f"test loss {losses[-1]:.4f}")
        progress.update()
    return losses, accuracies, statistics.median(times[1:])


def draw(schedule, updates_per_epoch, epochs, histories):
    """Write the pictures of the schedule's factor and of the test losses."""
    OUT.mkdir(exist_ok=True)
    counts = jnp.arange(epochs * updates_per_epoch)
    starts = np.flatnonzero(np.asarray(schedule.position(counts).t_cur) == 0)

    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(counts, schedule(counts), color="#0072B2")
    axes.plot(starts, np.asarray(schedule(counts))[starts], "o", color="#D55E00", label="(re)start")
    axes.set(xlabel="update", ylabel="factor eta", title="Cosine with warm restarts: each cycle twice as long")
    axes.legend(loc="upper right")
    figure.savefig(OUT / "digits_factor.png", dpi=150)

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    styles = zip(("#0072B2", "#E69F00", "#009E73", "#CC79A7"), ("-", "--", "-.", ":"), strict=True)
    for (name, losses), (color, line) in zip(histories.items(), styles, strict=True):
        axes.plot(np.arange(1, epochs + 1) * updates_per_epoch, losses, line, color=color, label=name, linewidth=2)
    for start in starts[1:]:
        axes.axvline(start, color="0.7", linewidth=1, zorder=0)
    axes.set(xlabel="update", ylabel="test loss (cross-entropy, nats)", yscale="log", title="Handwritten digits")
    axes.legend(title="grey: restarts")
    figure.savefig(OUT / "digits_test_loss.png", dpi=150)
    plt.close("all")


def main():
    train_set, test_set = load()
    updates_per_epoch = len(train_set[1]) // BATCH
    epochs = CYCLE_EPOCHS * sum(T_MULT**i for i in range(CYCLES))
    schedule = aj.cosine_warm_restarts(CYCLE_EPOCHS * updates_per_epoch, t_mult=T_MULT)
    rows, histories = [], {}
    with tqdm(total=4 * epochs, unit="epoch", mininterval=0.5) as progress:
        for name, tx in make_optimizers(schedule).items():
            progress.set_description(f"{name:9}")
            losses, accuracies, step_ms = train(tx, train_set, test_set, epochs, progress)
            histories[name] = losses
            rows.append((name, accuracies[-1], losses[-1], min(losses), step_ms))
    print(f"\n{'optimizer':10} {'test accuracy':>14} {'test loss':>10} {'best loss':>10} {'ms per update':>14}")
    for name, accuracy, loss, best, step_ms in rows:
        print(f"{name:10} {accuracy:>13.2%} {loss:>10.4f} {best:>10.4f} {step_ms:>14.2f}")
    draw(schedule, updates_per_epoch, epochs, histories)
    print(f"\npictures: {OUT / 'digits_factor.png'}, {OUT / 'digits_test_loss.png'}")


if __name__ == "__main__":
    main()
