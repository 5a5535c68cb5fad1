"""Rules among the options: one value per weight, by the names of the model's layers and weights."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from adamw_jax.keras._weights import Weights

DECAYS = ("weight_decay", "proximal_l1")
_RULES = {"lr_multipliers": 1.0, "weight_decay": 0.0, "proximal_l1": 0.0}
_MASKS = ("freeze", "hold_norm")
PER_WEIGHT = (*_RULES, *_MASKS)


def by_weight(name: str, value: Any, weights: Weights, loaded: bool) -> list[Any] | None:
    """Return one value per weight, for rules by name; None for others, which are the core's affair.

    Of options that are no rules of values, as directions by path, it is the key that decides.

    Args:
      name: of the option.
      value: as given.
      weights: the trainable variables.
      loaded: whether the names are those of a file, some of whose weights may be quantized or frozen by now.
    """
    shown = f"options[{name!r}]"
    find = _find_or_warn(weights) if loaded else weights.find
    if isinstance(value, Mapping) and name not in PER_WEIGHT:
        paths = [path for key in value for path in paths_of(key)]
        by = weights.values(shown, {path: path for path in paths}, None, find)
        if name == "direction" and None in by:
            raise ValueError(
                f'`{shown}` must have a key for every weight ("" as the last one takes what the others leave), got '
                f"none for {weights.keys[by.index(None)]!r}"
            )
        return by
    if isinstance(value, Mapping):
        return weights.values(shown, value, _RULES.get(name, False), find)
    keys = value if isinstance(value, (list, tuple)) else [value]
    if name in _MASKS and all(isinstance(k, (keras.Layer, keras.Variable)) or (isinstance(k, str) and k) for k in keys):
        found = {position for key in keys for position in find(shown, key)}
        return [position in found for position in range(len(weights.keys))]
    for pattern in _patterns_in(value):
        find(shown, pattern)
    return None


def _patterns_in(rule: Any) -> Iterator[str]:
    """Return the patterns that a rule of this library has: the core searches them where the model's own name may be."""
    given = getattr(rule, "arguments", None) or getattr(rule, "__dict__", {})
    for name in ("but", "mask", "layers"):
        value = given.get(name)
        yield from (each for each in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(each, str))


def _find_or_warn(weights: Weights) -> Any:
    def find(name: str, key: Any) -> list[int]:
        try:
            return weights.find(name, key)
        except ValueError as error:
            warnings.warn(f"a key of the saved optimizer means no weight that is trained: {error}", stacklevel=2)
            return []

    return find


def exactly(weights: Weights, by: Sequence[Any], key: Any) -> str:
    """Return the pattern of the weights that have a key, and of no others."""
    names = [re.escape(path) for path, own in zip(weights.keys, by, strict=True) if own == key]
    return f"^({'|'.join(names)})$"


def by_path(value: Any) -> Any:
    """Return rules with the paths of layers' and Variables' weights in the place of them."""
    if isinstance(value, Mapping):
        return {name: by_path(each) for key, each in value.items() for name in paths_of(key)}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(by_path(name) for each in value for name in paths_of(each))
    return paths_of(value) if isinstance(value, (keras.Layer, keras.Variable)) else value


def without_layers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without keys that only the model's weights explain."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key if isinstance(key, str) else key.name: each for key, each in value.items()}
        parts = value if isinstance(value, (list, tuple)) else [value]
        return "weights" if any(isinstance(each, (keras.Layer, keras.Variable)) for each in parts) else value

    return {name: plain(value) for name, value in options.items()}


def paths_of(key: Any) -> list[Any]:
    """Return the paths of a layer's or a Variable's weights, and a string as it is."""
    if isinstance(key, keras.Layer):
        return [variable.path for variable in key.variables]
    return [key.path] if isinstance(key, keras.Variable) else [key]
