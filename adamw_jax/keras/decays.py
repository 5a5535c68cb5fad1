"""Loss penalties of a Keras model as decoupled weight decays: read, zeroed, restored."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import keras.ops as ops

from adamw_jax.keras.paths import Decay, unique_paths

_KINDS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


class ZeroedPenalty(keras.regularizers.Regularizer):
    """The penalty 0 in the place of `original`, at no cost in the compiled step."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, x: Any) -> Any:
        """0, in the dtype of x."""
        return ops.zeros((), dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Nothing: a variable's regularizer is never written into a model's configuration."""
        return {}


def decay_of(variable: Any) -> Decay | None:
    """(l1, l2) of a variable's regularizer, zeroed or not; None if it has none or one of another kind."""
    regularizer = _original(getattr(variable, "regularizer", None))
    if type(regularizer) not in _KINDS:
        return None
    # L1 keeps a float32 array: its shortest decimal form is the number that was typed.
    l1, l2 = (getattr(regularizer, name, 0.0) for name in ("l1", "l2"))
    return float(f"{float(l1):.7g}"), float(l2)


def get_weight_decays(model: Any, zero_penalties: bool = False) -> dict[str, Decay]:
    """The penalties of a model's trainable weights, as the decays of the same coefficients.

    A penalty l1 |w| + l2 w^2 becomes the decay l1 sign(w) + l2 w. (The gradient of l2 w^2 is 2 l2 w; keras-adamw's
    decay has no factor 2, and neither has this one.)

    Args:
        model: a built `keras.Model` or `keras.Layer`.
        zero_penalties: whether to zero the penalties in the loss, after they are read.

    Returns:
        Pairs (l1, l2) by path, in the order of `model.trainable_variables`, for every weight whose regularizer is
        `L1`, `L2` or `L1L2`, those with coefficients 0 included. Penalties that were zeroed before are found again.

    Raises:
        ValueError: if the model is not built.
    """
    if not model.built:
        raise ValueError(f"`model` must be built before its decays can be read. Received: model={model.name!r}")
    variables = model.trainable_variables
    decays: dict[str, Decay] = {}
    for path, variable in zip(unique_paths(variables), variables, strict=True):
        decay = decay_of(variable)
        if decay is not None:
            decays[path] = decay
        elif getattr(variable, "regularizer", None) is not None:
            kind = type(variable.regularizer).__name__
            warnings.warn(
                f"the regularizer {kind} of {path!r} is not l1, l2 or l1_l2: it stays in the loss", stacklevel=2
            )
    if zero_penalties:
        set_penalties(model, zero=True)
    return decays


def drop_zero_penalties(variables: Sequence[Any]) -> None:
    """Takes penalties with coefficients 0 out of the compiled step, which would compute 0 * sum(w^2) and its gradient.

    A loaded model has them where decays were; with them, its update would be compiled with other roundings.
    """
    for variable in variables:
        if decay_of(variable) == (0.0, 0.0):
            variable.regularizer = ZeroedPenalty(_original(variable.regularizer))


def restore_penalties(model: Any) -> None:
    """Puts the zeroed penalties back into the loss (from the next `compile` on)."""
    set_penalties(model, zero=False)


def set_penalties(model: Any, *, zero: bool) -> None:
    """Zeroes or restores the L1, L2 and L1L2 penalties of a model's trainable weights.

    The regularizer objects are replaced and never changed: one object may serve several weights, models, or an activity
    penalty. The loss reads the variable's regularizer, the configuration the layer's: the layer gets the same class
    with coefficients 0, so that a model loaded from the configuration carries no penalty either.

    Args:
        model: a built `keras.Model` or `keras.Layer`.
        zero: True to zero, False to restore.
    """
    for variable in model.trainable_variables:
        if decay_of(variable) is not None:
            original = _original(variable.regularizer)
            variable.regularizer = ZeroedPenalty(original) if zero else original
    for layer, name, regularizer in _layer_regularizers(model):
        original = _original(regularizer)
        if type(original) in _KINDS:
            setattr(layer, name, _zeroed(original) if zero else original)


def fill_dict_in_order(dictionary: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Sets the values of a dictionary in the order of its keys.

    Args:
        dictionary: what `get_weight_decays` returned.
        values: as many values as there are keys, e.g. (l1, l2) pairs.

    Returns:
        The same dictionary.

    Raises:
        ValueError: if the lengths differ.

    Examples:
        >>> fill_dict_in_order({"dense/kernel": (0.0, 0.0), "dense_1/kernel": (0.0, 0.0)}, [(0, 1e-3), (1e-4, 2e-4)])
        {'dense/kernel': (0, 0.001), 'dense_1/kernel': (0.0001, 0.0002)}
    """
    if len(values) != len(dictionary):
        raise ValueError(f"`values` must have one value per key ({len(dictionary)}). Received: {len(values)} values")
    dictionary.update(zip(list(dictionary), values, strict=True))
    return dictionary


def _original(regularizer: Any) -> Any:
    return getattr(regularizer, "original", regularizer)


def _zeroed(original: Any) -> Any:
    copy = type(original)(0.0)
    copy.original = original
    return copy


def _layer_regularizers(model: Any) -> Iterator[tuple[Any, str, Any]]:
    for layer in model._flatten_layers():
        for name, value in list(vars(layer).items()):
            if name.endswith("regularizer") and not name.endswith("activity_regularizer") and value is not None:
                yield layer, name, value
