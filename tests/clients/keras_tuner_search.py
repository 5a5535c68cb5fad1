"""KerasTuner searches over the rate and the decay, and its best model is trained on.

Packages: keras-tuner
"""

import os
import tempfile

os.environ["KERAS_BACKEND"] = "jax"
import keras
import keras_tuner
import numpy as np

import adamw_jax as aj
from adamw_jax.keras import OptaxOptimizer


def build(hp):
    rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
    decay = hp.Float("decay", 1e-5, 1e-2, sampling="log")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1, name="head")])
    model.compile(OptaxOptimizer(aj.adamw, rate, options={"weight_decay": {"kernel": decay}}), "mse")
    return model


rng = np.random.default_rng(0)
x = rng.normal(size=(64, 4)).astype(np.float32)
y = x[:, :1]
with tempfile.TemporaryDirectory() as folder:
    tuner = keras_tuner.RandomSearch(build, "val_loss", max_trials=3, seed=0, directory=folder, project_name="trial")
    tuner.search(x, y, epochs=2, validation_data=(x, y), verbose=0)
    best = tuner.get_best_hyperparameters()[0].values
    model = tuner.get_best_models()[0]
given = model.optimizer.options["weight_decay"]["kernel"]
assert given == best["decay"], (given, best)
np.testing.assert_allclose(float(model.optimizer.learning_rate), best["rate"], rtol=1e-6)
model.fit(x, y, verbose=0)
print("KerasTuner: searched over", sorted(best))
