"""A trial of a direction: does it point uphill, as gradients do, or downhill, as an optimizer's updates do?"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamw_jax._tree.checks import is_traced

TRIALS = 32
"""Updates after which a transformation that returns zeros passes: an optimizer's schedule may begin at 0."""


def _least_product(tx: optax.GradientTransformation, gradient: Any) -> float:
    """Return the least <d, g> of a leaf in the first update whose d is not zero, for parameters that are zero."""
    params = jax.tree.map(jnp.zeros_like, gradient)
    state = tx.init(params)
    for _ in range(TRIALS):
        step, state = tx.update(gradient, state, params)
        products = [jnp.vdot(d, g) for d, g in zip(*map(jax.tree.leaves, (step, gradient)), strict=True)]
        if any(map(is_traced, products)):
            return 0.0
        if any(map(float, products)):
            break
    return min(map(float, products))


def points_downhill(tx: optax.GradientTransformation) -> bool:
    """Return True if <d, g> < 0 on one of two small leaves, or on the matrix among them, for a constant gradient g.

    The answer is False, too, for a transformation that needs other shapes or more arguments, or has traced numbers.

    >>> points_downhill(optax.scale_by_lion()), points_downhill(optax.sgd(0.1))
    (False, True)
    """
    with (
        # JAX's defaults: the user's settings are for the training.
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
        jax.ensure_compile_time_eval(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        # Large against the noise that some directions add.
        matrix = jnp.array([[8.0, -16.0], [4.0, 12.0]])
        for gradient in ({"bias": jnp.array([-8.0, 16.0]), "kernel": matrix}, {"kernel": matrix}):
            try:
                return _least_product(tx, gradient) < 0
            except Exception:  # whatever a foreign transformation raises
                continue
    return False
