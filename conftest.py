"""Eight virtual devices and Keras on JAX for the whole suite: both are read once, before the first import."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("KERAS_BACKEND", "jax")
