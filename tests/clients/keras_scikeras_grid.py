"""scikit-learn's grid search over an option, through scikeras.

Packages: scikeras, scikit-learn
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
import keras
import numpy as np
from scikeras.wrappers import KerasRegressor
from sklearn.model_selection import GridSearchCV

import adamw_jax as aj
from adamw_jax.keras import OptaxOptimizer


def build(decay):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")])
    model.compile(OptaxOptimizer(aj.adamw, 0.1, options={"weight_decay": {"head/kernel": decay}}), "mse")
    return model


rng = np.random.default_rng(0)
x = rng.normal(size=(64, 4)).astype(np.float32)
y = x[:, 0]
wrapped = KerasRegressor(model=build, decay=0.0, epochs=8, verbose=0)
search = GridSearchCV(wrapped, {"decay": [0.0, 0.5]}, cv=2).fit(x, y)
assert search.best_params_ == {"decay": 0.0}, search.cv_results_
assert search.best_estimator_.model_.optimizer.options["weight_decay"] == {"head/kernel": 0.0}
print("scikeras: grid search prefers", search.best_params_)
