"""Which decay and which multiplier each weight gets: from a model, from names, by position."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from adamw_jax.keras.decays import decay_of, drop_zero_penalties, get_weight_decays
from adamw_jax.keras.paths import Decay, match_decays, match_multipliers, unique_paths


class WeightRules:
    """One decay and one multiplier per trainable variable, once `resolve` has seen the variables.

    Args:
        model: a `keras.Model` whose penalties are the decays, or None.
        zero_penalties: whether they are zeroed in the loss.
        decays: {name: (l1, l2)}, or one pair per trainable variable, or None; without a model.
        multipliers: {part of a path: number}, or one number per trainable variable, or None.
    """

    def __init__(self, model: Any, zero_penalties: bool, decays: Any, multipliers: Any) -> None:
        self.decays, self.multipliers = decays, multipliers
        self._model, self._zero_penalties = model, zero_penalties
        self._penalized: list[Any] | None = None
        if model is not None and model.built:
            self._read_model()

    def _read_model(self) -> None:
        get_weight_decays(self._model, zero_penalties=self._zero_penalties)
        self._penalized = [v for v in self._model.trainable_variables if any(decay_of(v) or ())]

    def resolve(self, variables: Sequence[Any]) -> None:
        """Sets `decays` and `multipliers` to one value per variable.

        Raises:
            ValueError: for a name that means no weight, or several; for a sequence of another length.
        """
        paths = unique_paths(variables)
        if self._model is not None:
            if self._penalized is None:
                self._read_model()
            known = {id(v) for v in variables}
            lost = [v.path for v in self._penalized or () if id(v) not in known]
            if lost and self._zero_penalties:
                warnings.warn(f"penalty zeroed, but no decay, for weights that are not trained: {lost}", stacklevel=5)
            self.decays, self._model = _decays_of(variables), None
        elif self.decays is None or isinstance(self.decays, Mapping):
            self.decays = match_decays(self.decays or {}, paths)
        if self.multipliers is None or isinstance(self.multipliers, Mapping):
            self.multipliers = match_multipliers(self.multipliers or {}, paths)
        for name, values in (("weight_decays", self.decays), ("lr_multipliers", self.multipliers)):
            if len(values) != len(paths):
                raise ValueError(
                    f"`{name}` must have one value per trainable variable ({len(paths)}). Received: {len(values)}"
                )
        drop_zero_penalties(variables)
        self.decays = [(float(l1), float(l2)) for l1, l2 in self.decays]
        self.multipliers = [float(r) for r in self.multipliers]

    def config(self) -> dict[str, Any]:
        """Both, as far as they are known now."""
        known = self._model is not None and self._model.built
        decays = _decays_of(self._model.trainable_variables) if known else self.decays
        return {"weight_decays": decays, "lr_multipliers": self.multipliers}


def _decays_of(variables: Sequence[Any]) -> list[Decay]:
    return [decay_of(v) or (0.0, 0.0) for v in variables]
