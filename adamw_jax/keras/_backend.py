"""The Keras backend: JAX, or one error that says how to get it."""

import os


def require_jax() -> None:
    """Import Keras and check that it runs on JAX.

    Raises:
      ImportError: Keras is missing, or runs on another backend.
    """
    fix = "set the environment variable KERAS_BACKEND=jax before the first import of keras"
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise ImportError("adamw_jax.keras needs Keras 3: pip install keras") from error
        chosen = os.environ.get("KERAS_BACKEND", "tensorflow (Keras's default)")
        raise ImportError(
            f"adamw_jax.keras needs Keras's JAX backend; the backend {chosen} does not import: {fix}"
        ) from error
    if keras.backend.backend() != "jax":
        raise ImportError(f"adamw_jax.keras needs Keras's JAX backend, not {keras.backend.backend()!r}: {fix}")
