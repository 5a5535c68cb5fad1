"""Two virtual devices: data and model parallel runs take the steps of one device.

Packages: keras
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import keras
import numpy as np

import adamw_jax as aj
from adamw_jax.keras import OptaxOptimizer

OPTIONS = {"weight_decay": aj.matrices(1e-2), "lr_multipliers": {"head": 0.5}}


def trained(distribution=None):
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(distribution)
    hidden, head = keras.layers.Dense(8, "tanh", name="hidden"), keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((4,)), hidden, head])
    model.compile(OptaxOptimizer(aj.adamw, 1e-2, options=OPTIONS), "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    model.fit(x, x[:, :1], batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model


devices = keras.distribution.list_devices()
assert len(devices) == 2, devices
mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout[".*hidden.*kernel"] = (None, "model")
one = [v.numpy() for v in trained().trainable_variables]
for distribution in (
    keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False),
    keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
):
    model = trained(distribution)
    for expected, variable in zip(one, model.trainable_variables, strict=True):
        # Sums over the batch, or over the features, are split in two.
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-3, atol=1e-4)
    print("two devices:", type(distribution).__name__, "takes the steps of one")
moments = [v for v in model.optimizer.variables if "hidden_kernel" in v.path]
assert moments, "no moments"
assert not any(v.value.sharding.is_fully_replicated for v in moments), "moments lie as their weights do"
