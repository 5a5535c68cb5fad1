"""A model's penalties as decoupled weight decays, by name."""

import warnings
from collections.abc import Sequence
from typing import Any

from adamw_jax.keras._adamw import _penalties as penalties
from adamw_jax.keras._paths import typed_paths, unique_paths


def get_weight_decays(model: Any, zero_penalties: bool = False) -> dict[str, tuple[float, float]]:
    """Return the penalties of a model's trainable weights, as the decays of the same coefficients.

    A penalty l1 |w| + l2 w^2 becomes the decay l1 sign(w) + l2 w. (The gradient of l2 w^2 is 2 l2 w; keras-adamw's
    decay has no factor 2, and neither has this one.)

    Args:
      model: a built `keras.Model` or `keras.Layer`.
      zero_penalties: whether to zero the penalties in the loss, after they are read.

    Returns:
      Pairs (l1, l2) by path, in the order of `model.trainable_variables`, for every weight whose regularizer is `L1`,
      `L2` or `L1L2`, those with coefficients 0 included. Penalties that were zeroed before are found again. Where a
      path repeats, its weights are told apart by "#1", "#2", ...

    Raises:
      ValueError: the model is not built.

    Source: keras-adamw 1.38, `utils.py`.
    """
    if not model.built:
        raise ValueError(f"`model` must be built before its decays can be read. Received: model={model.name!r}")
    variables = model.trainable_variables
    decays: dict[str, tuple[float, float]] = {}
    for path, variable in zip(typed_paths(unique_paths(variables)), variables, strict=True):
        decay = penalties.decay_of(variable)
        if decay is not None:
            decays[path] = decay
        elif getattr(variable, "regularizer", None) is not None:
            kind = type(variable.regularizer).__name__
            warnings.warn(
                f"the regularizer {kind} of {path!r} is not l1, l2 or l1_l2: it stays in the loss", stacklevel=2
            )
    if zero_penalties:
        penalties.zero_penalties(model)
    return decays


def fill_dict_in_order(dictionary: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Set the values of a dictionary in the order of its keys.

    Args:
      dictionary: what `get_weight_decays` returned.
      values: as many values as there are keys, e.g. (l1, l2) pairs.

    Returns:
      The same dictionary.

    Raises:
      ValueError: the lengths differ.

    >>> fill_dict_in_order({"dense/kernel": (0.0, 0.0), "dense_1/kernel": (0.0, 0.0)}, [(0, 1e-3), (1e-4, 2e-4)])
    {'dense/kernel': (0, 0.001), 'dense_1/kernel': (0.0001, 0.0002)}
    """
    if len(values) != len(dictionary):
        raise ValueError(f"`values` must have one value per key ({len(dictionary)}). Received: {len(values)} values")
    dictionary.update(zip(list(dictionary), values, strict=True))
    return dictionary
