"""Fine-tune in Keras: a backbone that knows the digits 0 to 5 learns 6 to 9 from a few images, in six ways.

    python examples/fine_tuning.py

From scratch, at the full rate, with a frozen backbone, at a tenth of the rate, thawed over time, and pulled back to
where it was by anchored decay: only the optimizer differs. Prints a table of what was learnt and of what the old head
still knows; writes examples/out/fine_tuning.png.
"""

import dataclasses
import os

import terminal

os.environ["KERAS_BACKEND"] = "jax"

with terminal.extras():
    import jax.numpy as jnp
    import keras
    import matplotlib.pyplot as plt
    import numpy as np
    from keras import layers
    from sklearn.datasets import load_digits
    from tqdm import tqdm

    import adamw_jax as aj
    from adamw_jax import plot
    from adamw_jax.keras import AdamW, OptaxOptimizer

OLD, RATE = 6, 3e-3


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is trained."""

    pretraining: int = 20
    epochs: int = 60
    every: int = 5
    images: int = 5
    seeds: int = 3
    width: int = 16


QUICK = Size(pretraining=1, epochs=4, every=2, images=2, seeds=1, width=4)


def load():
    """Return images (n, 8, 8, 1) in [0, 1] and labels: of the old digits, and of the new ones, counted from 0."""
    digits = load_digits()
    images, labels = digits.images[..., None].astype(np.float32) / 16, digits.target
    old = labels < OLD
    return (images[old], labels[old]), (images[~old], labels[~old] - OLD)


def split(data, number, seed):
    """Return `number` examples of each class, and all others."""
    x, y = data
    order = np.random.default_rng(seed).permutation(len(y))
    taken = np.concatenate([order[y[order] == label][:number] for label in np.unique(y)])
    rest = np.setdiff1d(order, taken)
    return (x[taken], y[taken]), (x[rest], y[rest])


def make_backbone(size):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(size.width, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * size.width, 3, padding="same", activation="relu", name="conv_2"),
            layers.Flatten(),
            layers.Dense(4 * size.width, activation="relu", name="features"),
        ],
        name="backbone",
    )


def with_head(backbone, classes, optimizer):
    """Return the backbone under a new head."""
    head = layers.Dense(classes, name=f"head_of_{classes}")
    model = keras.Sequential([keras.Input((8, 8, 1)), backbone, head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def thaw(updates):
    """Return a schedule that is 0 for a third of the run, and grows to 0.3 over the next third."""
    return lambda count: 0.3 * jnp.clip(3 * count / updates - 1, 0, 1)


def make_optimizers(size):
    """Return {way: function -> optimizer}; there is one update an epoch."""

    def by_name(**rules):
        return lambda: AdamW(RATE, init_verbose=False, **rules)

    def anchored(rate):
        # The anchors are the weights that the model has when training begins.
        return aj.adamw(rate, decay="anchored", weight_decay={"conv|features": 0.05})

    return {
        "from scratch": by_name(),
        "full rate": by_name(),
        "frozen backbone": by_name(lr_multipliers={"backbone": 0.0}),
        "a tenth of the rate": by_name(lr_multipliers={"backbone": 0.1}),
        "thawed over time": by_name(lr_multipliers={"backbone": thaw(size.epochs)}),
        "anchored decay": lambda: OptaxOptimizer(anchored, learning_rate=RATE),
    }


def pretrain(size, data):
    """Return the model that knows the old digits, and the examples that it has not seen."""
    keras.utils.set_random_seed(0)
    train, held_out = split(data, 120 if size.pretraining > 1 else 20, seed=0)
    model = with_head(make_backbone(size), OLD, AdamW(RATE, init_verbose=False))
    model.fit(*train, batch_size=32, epochs=size.pretraining, verbose=0)
    return model, held_out


def fine_tune(size, make_optimizer, backbone, new, seed):
    """Return the test accuracies (%) along the run: the first is that of a new head that has learnt nothing."""
    keras.utils.set_random_seed(seed)
    train, test = split(new, size.images, seed)
    model = with_head(backbone, 10 - OLD, make_optimizer())
    history = model.fit(
        *train,
        batch_size=len(train[1]),
        epochs=size.epochs,
        validation_data=test,
        validation_batch_size=len(test[1]),
        validation_freq=size.every,
        verbose=0,
    )
    return [100 * accuracy for accuracy in history.history["val_accuracy"]]


def compare(size, old_data, new_data):
    """Return per way of training: the test accuracies (seeds, records), and those of the old head (seeds)."""
    old_model, held_out = pretrain(size, old_data)
    backbone = old_model.get_layer("backbone")
    keras.utils.set_random_seed(1)
    pretrained, fresh = backbone.get_weights(), make_backbone(size).get_weights()
    ways = make_optimizers(size)

    def kept():
        return 100 * old_model.evaluate(*held_out, batch_size=len(held_out[1]), verbose=0)[1]

    before, learnt, knows = kept(), {way: [] for way in ways}, {way: [] for way in ways}
    with tqdm(total=len(ways) * size.seeds, unit="run", disable=None) as progress:
        for way, make_optimizer in ways.items():
            progress.set_description(f"{way:19}")
            for seed in range(size.seeds):
                backbone.set_weights(fresh if way == "from scratch" else pretrained)
                learnt[way].append(fine_tune(size, make_optimizer, backbone, new_data, seed))
                knows[way].append(kept())
                progress.update()
    return before, {way: np.array(values) for way, values in learnt.items()}, knows


def draw(size, before, learnt, knows, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    tuned = {way: accuracies for way, accuracies in learnt.items() if way != "from scratch"}
    plot.history(tuned, ylabel="test accuracy on the new digits (%)", first=size.every, step=size.every, ax=right)
    colors = {line.get_label(): line.get_color() for line in right.get_lines()}
    for way, accuracies in tuned.items():
        new, old, color = accuracies[:, -1], knows[way], colors[way]
        left.errorbar(np.mean(old), new.mean(), new.std(), np.std(old), "o", color=color, markersize=9, label=way)
    left.axvline(before, color="0.6", linewidth=1, zorder=0, label="old digits before")
    for ax, label in ((left, "from scratch: no old digits"), (right, "from scratch")):
        ax.axhline(learnt["from scratch"][:, -1].mean(), color="0.4", linestyle=":", zorder=0, label=label)
    left.set(xlabel="old digits, 0 to 5: what the old head still knows (%)", ylabel="new digits, 6 to 9 (%)")
    left.set_title("Smaller rates for the backbone keep what it knew")
    left.legend(fontsize="small", loc="lower left")
    right.set_title(f"The new digits, from {size.images} images of each")
    right.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def spread(values):
    return f"{np.mean(values):.1f} +- {np.std(values):.1f}"


def main(argv=None):
    given = terminal.flags(__doc__).parse_args(argv)
    size = QUICK if given.quick else Size()
    path = terminal.writable(given.out) / "fine_tuning.png"
    before, learnt, knows = compare(size, *load())
    rows = [
        [way, spread(new[:, -1]), "-" if way == "from scratch" else spread(knows[way])] for way, new in learnt.items()
    ]
    print(terminal.table(["backbone", "new digits (%)", "old digits, old head (%)"], rows))
    print(f"\n{size.seeds} seeds; the old head before: {before:.1f} %")
    draw(size, before, learnt, knows, path)
    print(f"\npicture: {path}")


if __name__ == "__main__":
    main()
