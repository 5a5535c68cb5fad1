"""Keras 3 on the JAX backend."""
