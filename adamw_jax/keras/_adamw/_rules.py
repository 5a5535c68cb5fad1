"""Which decay and which multiplier each weight gets: from a model, from names, by position."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from adamw_jax._tree.table import to_text
from adamw_jax.keras._adamw._decays import get_weight_decays
from adamw_jax.keras._adamw._penalties import decay_of, drop_zero_penalties, uncarried
from adamw_jax.keras._layer_names import places_of
from adamw_jax.keras._paths import (
    Decay,
    check_decay,
    check_multiplier,
    match_decays,
    match_multipliers,
    typed_paths,
    unique_paths,
)


class WeightRules:
    """One decay and one multiplier per trainable variable, once `resolve` has seen the variables.

    Args:
      model: a `keras.Model` whose penalties are the decays, or None.
      zero_penalties: whether they are zeroed in the loss.
      decays: {name: (l1, l2)}, or one pair per trainable variable, or None; without a model.
      multipliers: {name: number}, or one number per trainable variable, or None.

    Raises:
      TypeError: `decays` or `multipliers` of another kind.
    """

    def __init__(self, model: Any, zero_penalties: bool, decays: Any, multipliers: Any) -> None:
        self.decays = check_kind("weight_decays", decays, "pairs (l1, l2)")
        self.multipliers = check_kind("lr_multipliers", multipliers, "numbers")
        self._given = {"weight_decays": self.decays, "lr_multipliers": self.multipliers}
        self._model, self._zero_penalties = model, zero_penalties
        self._penalized: list[Any] | None = None
        if model is not None and model.built:
            self._read_model()

    def _read_model(self) -> None:
        decays = get_weight_decays(self._model, zero_penalties=self._zero_penalties)
        self._given["weight_decays"] = decays
        self._penalized = [v for v in self._model.trainable_variables if any(decay_of(v) or ())]
        lost = [path for path, decay in decays.items() if not any(decay)]
        if lost:
            warnings.warn(
                f"`model` gives no decay to {lost}: their regularizers have coefficients 0, as in a model that was "
                "saved or cloned after they were zeroed. Pass `weight_decays` instead",
                stacklevel=5,
            )
        if unread := uncarried(self._model):
            warnings.warn(
                f"`model` gives no decay for {unread}: set after the layer was built, they belong to no weight, and "
                "the loss has no such penalty. Pass `weight_decays`, or rebuild the model from its configuration",
                stacklevel=5,
            )

    def given(self, name: str) -> Any:
        """Return `weight_decays` or `lr_multipliers` as given; decays of a model by path, as soon as they are read."""
        return self._given[name]

    def resolve(self, variables: Sequence[Any], is_excluded: Any) -> None:
        """Set `decays` and `multipliers` to one value per variable.

        Args:
          variables: the trainable variables.
          is_excluded: tells for a variable whether its decay is left out.

        Raises:
          ValueError: a name that means no weight, or several; a sequence of another length.
        """
        paths = unique_paths(variables)

        def places() -> list[list[str]]:
            return places_of(variables)

        if self._model is not None:
            if self._penalized is None:
                self._read_model()
            known = {id(v) for v in variables}
            lost = [v.path for v in self._penalized or () if id(v) not in known]
            if lost and self._zero_penalties:
                warnings.warn(f"penalty zeroed, but no decay, for weights that are not trained: {lost}", stacklevel=5)
            decays = _decays_of(variables)
        elif isinstance(self.decays, Mapping):
            decays = match_decays(self.decays, paths, places)
        else:
            decays = _by_position("weight_decays", self.decays, paths, check_decay, (0.0, 0.0))
        if isinstance(self.multipliers, Mapping):
            multipliers = match_multipliers(self.multipliers, paths, places)
        else:
            multipliers = _by_position("lr_multipliers", self.multipliers, paths, check_multiplier, 1.0)
        decays = [(0.0, 0.0) if is_excluded(v) else decay for v, decay in zip(variables, decays, strict=True)]
        drop_zero_penalties(variables)
        if self._model is not None:
            self._given["weight_decays"] = dict(zip(typed_paths(paths), decays, strict=True))
        self.paths, self.decays, self.multipliers, self._model = paths, decays, multipliers, None

    def config(self) -> dict[str, Any]:
        """Return both, as far as they are known now; None where they change nothing."""
        known = self._model is not None and self._model.built
        decays = _decays_of(self._model.trainable_variables) if known else self.decays
        multipliers = self.multipliers
        if isinstance(decays, list) and not decays_something(decays):
            decays = None
        if isinstance(multipliers, list) and all(r == 1 for r in multipliers):
            multipliers = None
        return {"weight_decays": _write_schedules(decays), "lr_multipliers": _write_schedules(multipliers)}

    def table(self, variables: Sequence[Any], n: float) -> str:
        """Return the lines "path, shape, multiplier, l1, l2", one per variable, with decays times n."""
        columns = {"weight": "weight", "shape": "shape", "r": "rate x", "l1": "l1", "l2": "l2"}
        paths = typed_paths(unique_paths(variables))
        rows = [
            {"weight": path, "shape": tuple(v.shape), "r": _cell(r, 1.0), "l1": _cell(l1, n), "l2": _cell(l2, n)}
            for path, v, r, (l1, l2) in zip(paths, variables, self.multipliers, self.decays, strict=True)
        ]
        return to_text(columns, rows)


def _cell(value: Any, factor: float) -> Any:
    return "over time" if callable(value) else factor * value


def _write_schedules(rules: Any) -> Any:
    """Return rules as they are written into a configuration: schedules by Keras."""
    if isinstance(rules, dict):
        return {key: _write_schedules(value) for key, value in rules.items()}
    if isinstance(rules, (list, tuple)):
        return type(rules)(map(_write_schedules, rules))
    return keras.saving.serialize_keras_object(rules) if callable(rules) else rules


def read_schedules(rules: Any, custom_objects: Any = None) -> Any:
    """Return rules as they are read from a configuration."""
    if isinstance(rules, dict) and "class_name" in rules:
        return keras.saving.deserialize_keras_object(rules, custom_objects=custom_objects)
    if isinstance(rules, dict):
        return {key: read_schedules(value, custom_objects) for key, value in rules.items()}
    if isinstance(rules, (list, tuple)):
        return type(rules)(read_schedules(each, custom_objects) for each in rules)
    return rules


def check_kind(name: str, values: Any, of: str) -> Any:
    """Return a mapping as it is, and one value per variable as a list; raise a TypeError for another kind."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, (list, tuple, np.ndarray)):
        return list(values.tolist() if isinstance(values, np.ndarray) else values)
    raise TypeError(
        f"`{name}` must be a dictionary, by the names of weights, or a list of {of}, one per trainable variable. "
        f"Received: {values!r}"
    )


def decays_something(decays: Any) -> bool:
    """Return whether some of `weight_decays` is not 0, as far as they are known; True for one that is malformed."""
    if decays is None or isinstance(decays, Mapping):
        return bool(decays)
    return any(not isinstance(pair, (tuple, list)) or any(pair) for pair in decays)


def _by_position(name: str, values: Any, paths: Sequence[str], check: Any, default: Any) -> list[Any]:
    if values is None:
        return [default] * len(paths)
    if len(values) != len(paths):
        raise ValueError(f"`{name}` must have one value per trainable variable ({len(paths)}). Received: {len(values)}")
    return [check(f"{name}[{i}]", value) for i, value in enumerate(values)]


def _decays_of(variables: Sequence[Any]) -> list[Decay]:
    return [decay_of(v) or (0.0, 0.0) for v in variables]
