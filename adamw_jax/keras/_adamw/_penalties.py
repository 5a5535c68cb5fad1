"""Loss penalties of a Keras model: what they decay, zeroed and restored."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import keras.ops as ops

from adamw_jax._tree.checks import is_traced

_KINDS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


class ZeroedPenalty(keras.regularizers.Regularizer):
    """The penalty 0 in the place of `original`, at no cost in the compiled step, until its replacement is not 0.

    Args:
      original: the regularizer whose coefficients are decays now.
      replacement: what the layer has instead. A coefficient of it that is raised later counts.
    """

    def __init__(self, original: Any, replacement: Any) -> None:
        self.original = original
        self.replacement = replacement

    def __call__(self, x: Any) -> Any:
        """Return the replacement's penalty, or 0, in the dtype of x."""
        return self.replacement(x) if _is_raised(self.replacement) else ops.zeros((), dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return nothing: a variable's regularizer is never written into a model's configuration."""
        return {}


def _is_raised(regularizer: Any) -> bool:
    coefficients = (getattr(regularizer, name, 0.0) for name in ("l1", "l2"))
    return any(isinstance(each, keras.Variable) or is_traced(each) or float(each) != 0 for each in coefficients)


def decay_of(variable: Any) -> tuple[float, float] | None:
    """Return (l1, l2) of a variable's regularizer, zeroed or not; None if it has none or one of another kind."""
    return _coefficients(getattr(variable, "regularizer", None))


def _coefficients(regularizer: Any) -> tuple[float, float] | None:
    original = _original(regularizer)
    if type(original) not in _KINDS:
        return None
    # L1 keeps a float32 array: its shortest decimal form is the number that was typed.
    l1, l2 = (getattr(original, name, 0.0) for name in ("l1", "l2"))
    return float(f"{float(l1):.7g}"), float(l2)


def zero_penalties(model: Any) -> None:
    """Zero the L1, L2 and L1L2 penalties of a model's trainable weights.

    The regularizer objects are replaced and never changed: one object may serve several weights, models, or an activity
    penalty. The loss reads the variable's regularizer, the configuration the layer's: where all weights of a layer that
    carry one are zeroed, the layer gets the same class with coefficients 0, so that a model loaded from the
    configuration carries no penalty either. The penalties of weights that are not trained stay in both.

    Args:
      model: a built `keras.Model` or `keras.Layer`.
    """
    zeroed = {id(v): v for v in model.trainable_variables if any(decay_of(v) or ())}
    replacements: dict[int, Any] = {}
    for layer, name, regularizer in list(_layer_regularizers(model)):
        carriers = _carriers(layer, regularizer)
        if carriers and all(id(v) in zeroed for v in carriers):
            copy = _zero_like(_original(regularizer))
            replacements |= {id(v): copy for v in carriers}
            setattr(layer, name, copy)
    for variable in zeroed.values():
        original = _original(variable.regularizer)
        variable.regularizer = ZeroedPenalty(original, replacements.get(id(variable)))


def restore_penalties(model: Any) -> None:
    """Put the zeroed penalties back into the loss (from the next `compile` on)."""
    for variable in model.variables:
        if decay_of(variable) is not None:
            variable.regularizer = _original(variable.regularizer)
    for layer, name, regularizer in _layer_regularizers(model):
        setattr(layer, name, _original(regularizer))


def drop_zero_penalties(variables: Sequence[Any]) -> None:
    """Take penalties with coefficients 0 out of the compiled step, which would compute 0 * sum(w^2) and its gradient.

    A loaded model has them where decays were; with them, its update would be compiled with other roundings.

    Args:
      variables: those whose penalties were taken over before the model was saved.
    """
    for variable in variables:
        if decay_of(variable) == (0.0, 0.0) and not isinstance(variable.regularizer, ZeroedPenalty):
            variable.regularizer = ZeroedPenalty(_original(variable.regularizer), variable.regularizer)


def uncarried(model: Any) -> list[str]:
    """Return the regularizers of trained layers that no weight has, as when they are set after the layer was built."""
    return [
        f"{layer.name}.{name}"
        for layer, name, regularizer in _layer_regularizers(model)
        if any(_coefficients(regularizer) or ()) and not _carriers(layer, regularizer)
        # A layer without bias may have a regularizer for one.
        if any(v.name.startswith(name.strip("_").removesuffix("_regularizer")) for v in layer.trainable_variables)
    ]


def _carriers(layer: Any, regularizer: Any) -> list[Any]:
    """Return a layer's weights with this regularizer; where a layer gives its parts copies, with its coefficients."""
    original = _original(regularizer)
    same = [v for v in layer.weights if _original(getattr(v, "regularizer", None)) is original]
    return same or [v for v in layer.weights if decay_of(v) is not None and decay_of(v) == _coefficients(original)]


def _original(regularizer: Any) -> Any:
    """Return the regularizer whose coefficients count: a zeroed one's original, or what was raised since."""
    now = getattr(regularizer, "replacement", regularizer)
    return now if _is_raised(now) else getattr(regularizer, "original", regularizer)


def _zero_like(original: Any) -> Any:
    copy = type(original)(0.0)
    copy.original = original
    return copy


def _layer_regularizers(model: Any) -> Iterator[tuple[Any, str, Any]]:
    for layer in model._flatten_layers():
        for name, value in list(vars(layer).items()):
            of_weights = name.endswith("regularizer") and not name.endswith("activity_regularizer")
            if of_weights and type(_original(value)) in _KINDS:
                yield layer, name, value
