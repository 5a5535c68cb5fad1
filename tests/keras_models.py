"""Small Keras models and data for the tests."""

import keras
import numpy as np
from keras import layers
from keras.regularizers import L1, L1L2, L2


def data(batches=4, batch=8, features=4, seed=0):
    rng = np.random.RandomState(seed)
    x = rng.randn(batches * batch, features).astype(np.float32)
    return x, (x[:, :1] - 0.5 * x[:, 1:2]).astype(np.float32)


def sequences(batches=4, batch=4, steps=5, features=3, seed=0):
    rng = np.random.RandomState(seed)
    return rng.randn(batches * batch, steps, features).astype(np.float32), rng.randn(batches * batch, 1).astype(
        np.float32
    )


def dense(units=3, seed=0, regularizer=None, **first):
    """Input 4 -> Dense -> Dense 1: four variables."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = layers.Dense(units, activation="tanh", name="hidden", kernel_regularizer=regularizer, **first)(inputs)
    return keras.Model(inputs, layers.Dense(1, name="out")(x))


def recurrent(seed=0, regularized=True):
    """GRU and Dense with L1, L2 and L1L2 penalties."""
    keras.utils.set_random_seed(seed)
    l1, l2, l1l2 = (L1(1e-2), L2(2e-2), L1L2(1e-2, 3e-2)) if regularized else (None,) * 3
    inputs = keras.Input((5, 3))
    x = layers.GRU(2, kernel_regularizer=l1, recurrent_regularizer=l2, bias_regularizer=l2, name="gru_1")(inputs)
    return keras.Model(inputs, layers.Dense(1, kernel_regularizer=l1l2, name="dense_1")(x))


def values(model):
    return [np.asarray(v.value) for v in model.trainable_variables]


def states(optimizer):
    return [np.asarray(v.value) for v in optimizer.variables]


def same(first, second):
    """Whether two lists of arrays are equal bit for bit."""
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def close(first, second, **tolerances):
    return all(np.allclose(a, b, **tolerances) for a, b in zip(first, second, strict=True))
