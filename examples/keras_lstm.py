"""keras-adamw's README example on Keras 3: penalties become decays, a rate by layer name, a cosine that restarts.

    python examples/keras_lstm.py

Prints what every weight gets and a table of the epochs; draws the factor eta_t and the rate lr_t over the 72 iterations
into examples/out/keras_lstm.png.
"""

import os

import terminal

os.environ["KERAS_BACKEND"] = "jax"

with terminal.extras():
    import keras
    import matplotlib.pyplot as plt
    import numpy as np
    from keras.layers import LSTM, Dense, Input
    from keras.models import Model
    from keras.regularizers import l1, l1_l2, l2

    from adamw_jax.keras import AdamW

EPOCHS, ITERATIONS, UNITS, QUICK_UNITS = 3, 24, 60, 4


def build(units):
    ipt = Input(shape=(120, 4))
    x = LSTM(units, activation="relu", name="lstm_1", kernel_regularizer=l1(1e-4), recurrent_regularizer=l2(2e-4))(ipt)
    out = Dense(1, activation="sigmoid", kernel_regularizer=l1_l2(1e-4, 2e-4))(x)
    model = Model(ipt, out)
    optimizer = AdamW(
        lr=1e-4, model=model, lr_multipliers={"lstm_1": 0.5}, use_cosine_annealing=True, total_iterations=ITERATIONS
    )
    model.compile(optimizer, loss="binary_crossentropy")
    return model


def train(model):
    """Return the factor and the rate after each iteration, and a row per epoch."""
    rng = np.random.default_rng(0)
    ways, rows = {"eta_t": [], "lr_t": []}, []
    for epoch in range(EPOCHS):
        for _ in range(ITERATIONS):
            x, y = rng.random((10, 120, 4)), rng.integers(0, 2, (10, 1))  # stand-ins for data
            loss = model.train_on_batch(x, y)
            for name, way in ways.items():
                way.append(float(getattr(model.optimizer, name)))
        rows.append([epoch + 1, f"{loss:.3f}", int(model.optimizer.t_cur), ways["eta_t"][-1]])
    return ways, rows


TITLES = {
    "eta_t": "eta_t, the schedule: a cosine that restarts every 24 updates",
    "lr_t": "lr_t = rate x eta_t x sqrt(1 - beta_2^t) / (1 - beta_1^t), Adam's correction for its start",
}


def draw(ways, path):
    figure, axes = plt.subplots(len(ways), 1, figsize=(8, 5), sharex=True, layout="constrained")
    for ax, (name, values) in zip(axes, ways.items(), strict=True):
        ax.plot(range(1, len(values) + 1), values, linewidth=2)
        ax.set_title(TITLES[name], fontsize=11)
        ax.set(ylabel=name, xlim=(0, len(values)), ylim=(0, None))
        for restart in range(ITERATIONS, len(values), ITERATIONS):
            ax.axvline(restart, color="gray", linewidth=0.5)
    axes[-1].set_xlabel("iterations (grey: restarts)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv=None):
    given = terminal.flags(__doc__).parse_args(argv)
    path = terminal.writable(given.out) / "keras_lstm.png"
    keras.utils.set_random_seed(0)
    ways, rows = train(build(QUICK_UNITS if given.quick else UNITS))
    print(f"\n{terminal.table(['epoch', 'loss', 't_cur', 'eta_t'], rows)}")
    draw(ways, path)
    print(f"\npicture: {path}")


if __name__ == "__main__":
    main()
