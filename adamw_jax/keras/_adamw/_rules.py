"""Which decay and which multiplier each weight gets: from a model, from names, by position."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from adamw_jax._rules.values import check_decay, check_multiplier
from adamw_jax._tree.table import to_text
from adamw_jax.keras._adamw._by_name import check_kind, decays_of_pair, decays_something, resolved, substring
from adamw_jax.keras._adamw._decays import get_weight_decays
from adamw_jax.keras._adamw._penalties import decay_of, drop_zero_penalties, uncarried
from adamw_jax.keras._option_rules import by_path
from adamw_jax.keras._paths import typed_paths
from adamw_jax.keras._weights import Weights
from adamw_jax.keras._written import written

Decay = tuple[Any, Any]
"""The pair (l1, l2)."""

NONE: Decay = (0.0, 0.0)


class WeightRules:
    """One decay and one multiplier per trainable variable, once `resolve` has seen the variables.

    Args:
      model: a `keras.Model` whose penalties are the decays, or None.
      zero_penalties: whether they are zeroed in the loss.
      decays: {key: (l1, l2)}, or one pair per trainable variable, or None; without a model.
      multipliers: {key: number}, or one number per trainable variable, or None.

    Raises:
      TypeError: `decays` or `multipliers` of another kind.
    """

    def __init__(self, model: Any, zero_penalties: bool, decays: Any, multipliers: Any) -> None:
        self.decays = check_kind("weight_decays", decays, "pairs (l1, l2)")
        self.multipliers = check_kind("lr_multipliers", multipliers, "numbers")
        self._given = {"weight_decays": self.decays, "lr_multipliers": self.multipliers}
        self.model, self._zero_penalties = model, zero_penalties
        self._penalized: list[Any] | None = None
        if model is not None and model.built:
            self._read_model()

    def _read_model(self) -> None:
        decays = get_weight_decays(self.model, zero_penalties=self._zero_penalties)
        self._given["weight_decays"] = decays
        self._penalized = [v for v in self.model.trainable_variables if any(decay_of(v) or ())]
        lost = [path for path, decay in decays.items() if not any(decay)]
        if lost:
            warnings.warn(
                f"`model` gives no decay to {lost}: their regularizers have coefficients 0, as in a model that was "
                "saved or cloned after they were zeroed. Pass `weight_decays` instead",
                stacklevel=5,
            )
        if unread := uncarried(self.model):
            warnings.warn(
                f"`model` gives no decay for {unread}: set after the layer was built, they belong to no weight, and "
                "the loss has no such penalty. Pass `weight_decays`, or rebuild the model from its configuration",
                stacklevel=5,
            )

    def given(self, name: str) -> Any:
        """Return `weight_decays` or `lr_multipliers` as given; those of a model or a file by path, once it is built."""
        return self._given[name]

    def resolve(self, weights: Weights, every: Sequence[Any], excluded: Sequence[bool], loaded: bool) -> None:
        """Set `decays` and `multipliers` to one value per weight.

        Args:
          weights: the variables that are trained.
          every: all trainable variables, those that are overwritten included.
          excluded: whether the decay of each weight is left out.
          loaded: whether the rules come from a configuration.

        Raises:
          ValueError, TypeError: a key that means no weight; a sequence of another length; a value that is none.
        """
        variables = weights.variables
        if self.model is not None:
            if self._penalized is None:
                self._read_model()
            known = {id(v) for v in variables}
            lost = [v.path for v in self._penalized or () if id(v) not in known]
            if lost and self._zero_penalties:
                warnings.warn(f"penalty zeroed, but no decay, for weights that are not trained: {lost}", stacklevel=5)
            decays = _decays_of(variables)
        else:
            decays = resolved("weight_decays", self.decays, weights, every, NONE, check_decay, weights.find)
        decays = [NONE if out else decay for out, decay in zip(excluded, decays, strict=True)]
        multipliers = resolved(
            "lr_multipliers", self.multipliers, weights, every, 1.0, check_multiplier, partial(substring, weights)
        )
        names = typed_paths(weights.paths)
        if self.model is not None:
            self._given["weight_decays"] = dict(zip(names, decays, strict=True))
        elif loaded:
            # What a file has by position reads by name.
            for rule, values, without in (("weight_decays", decays, NONE), ("lr_multipliers", multipliers, 1.0)):
                if isinstance(self._given[rule], list):
                    pairs = zip(names, values, strict=True)
                    self._given[rule] = {name: value for name, value in pairs if callable(value) or value != without}
            if self._zero_penalties:
                drop_zero_penalties([v for v, decay in zip(variables, decays, strict=True) if decays_of_pair(decay)])
        self.keys, self.decays, self.multipliers, self.model = weights.keys, decays, multipliers, None

    def by_key(self, decaying: bool) -> tuple[dict[str, Decay] | float, dict[str, Any] | None]:
        """Return both as the core takes them: one value per weight, or what changes nothing."""
        decays = dict(zip(self.keys, self.decays, strict=True))
        multipliers = dict(zip(self.keys, self.multipliers, strict=True))
        return (
            decays if decaying and decays_something(self.decays) else 0.0,
            multipliers if any(callable(r) or r != 1 for r in self.multipliers) else None,
        )

    def config(self) -> dict[str, Any]:
        """Return both, as far as they are known now; None where they change nothing."""
        known = self.model is not None and self.model.built
        decays = _decays_of(self.model.trainable_variables) if known else self.decays
        multipliers = self.multipliers
        if isinstance(decays, list) and not decays_something(decays):
            decays = None
        if isinstance(multipliers, list) and all(not callable(r) and r == 1 for r in multipliers):
            multipliers = None
        return {"weight_decays": _writable(by_path(decays)), "lr_multipliers": _writable(by_path(multipliers))}

    def table(self, weights: Weights, n: float) -> str:
        """Return the lines "path, shape, multiplier, l1, l2", one per weight, with decays times n."""
        columns = {"weight": "weight", "shape": "shape", "r": "rate x", "l1": "l1", "l2": "l2"}
        paths = typed_paths(weights.paths)
        rows = [
            {"weight": path, "shape": tuple(v.shape), "r": _cell(r, 1.0), "l1": _cell(l1, n), "l2": _cell(l2, n)}
            for path, v, r, (l1, l2) in zip(paths, weights.variables, self.multipliers, self.decays, strict=True)
        ]
        return to_text(columns, rows)


def _cell(value: Any, factor: float) -> Any:
    return "over time" if callable(value) else factor * float(value)


def _writable(rules: Any) -> Any:
    """Return rules as they are written into a configuration, pairs as pairs."""
    if isinstance(rules, (list, tuple)):
        return type(rules)(map(_writable, rules))
    if isinstance(rules, dict):
        return {key: _writable(value) for key, value in rules.items()}
    return written(rules)


def _decays_of(variables: Sequence[Any]) -> list[Decay]:
    return [decay_of(v) or NONE for v in variables]
