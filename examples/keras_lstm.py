"""keras-adamw's README example on Keras 3, and pictures of the factor eta_t and the rate lr_t over its 72 iterations.

KERAS_BACKEND=jax python examples/keras_lstm.py [folder for the pictures, default examples/out]
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras.layers import LSTM, Dense, Input
from keras.models import Model
from keras.regularizers import l1, l1_l2, l2

from adamw_jax.keras import AdamW

EPOCHS, ITERATIONS = 3, 24


def build():
    ipt = Input(shape=(120, 4))
    x = LSTM(60, activation="relu", name="lstm_1", kernel_regularizer=l1(1e-4), recurrent_regularizer=l2(2e-4))(ipt)
    out = Dense(1, activation="sigmoid", kernel_regularizer=l1_l2(1e-4, 2e-4))(x)
    model = Model(ipt, out)
    optimizer = AdamW(
        lr=1e-4, model=model, lr_multipliers={"lstm_1": 0.5}, use_cosine_annealing=True, total_iterations=ITERATIONS
    )
    model.compile(optimizer, loss="binary_crossentropy")
    return model


def train(model):
    """The factor and the rate after each iteration."""
    rng = np.random.default_rng(0)
    eta_t, lr_t = [], []
    for epoch in range(EPOCHS):
        for _ in range(ITERATIONS):
            x, y = rng.random((10, 120, 4)), rng.integers(0, 2, (10, 1))  # stand-ins for data
            loss = model.train_on_batch(x, y)
            eta_t.append(float(model.optimizer.eta_t))
            lr_t.append(float(model.optimizer.lr_t))
        print(f"epoch {epoch + 1}: loss {loss:.3f}, t_cur {int(model.optimizer.t_cur)}")
    return {"eta_t": eta_t, "lr_t": lr_t}


def picture(name, values, folder):
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(range(1, len(values) + 1), values, linewidth=2)
    axes.set(xlabel="iterations", ylabel=name, xlim=(0, len(values)), ylim=(0, None))
    for restart in range(ITERATIONS, len(values), ITERATIONS):
        axes.axvline(restart, color="gray", linewidth=0.5)
    figure.savefig(folder / f"keras_lstm_{name}.png", dpi=120)
    plt.close(figure)


def main():
    keras.utils.set_random_seed(0)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "out")
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in train(build()).items():
        picture(name, values, folder)
    print(f"pictures in {folder}")


if __name__ == "__main__":
    main()
