"""The options that an `OptaxOptimizer` gives to its function of the rate, by the names of the model's weights."""

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adamw_jax._decay.coupling import Corrected, coupling_of
from adamw_jax._optimizer.optimizer import plan_of
from adamw_jax._rules.values import check_decay, check_multiplier, resolve_rules
from adamw_jax._tree import checks
from adamw_jax.keras._option_rules import DECAYS, PER_WEIGHT, by_path, by_weight, exactly, paths_of, without_layers
from adamw_jax.keras._weights import Weights
from adamw_jax.keras._written import public_name, written


class Options:
    """What a function of the rate is called with besides the rate.

    Args:
      function: learning_rate -> GradientTransformation, with options.
      given: the options.
      rate: the rate, or the schedule or callable that gives it.

    Attributes:
      given: the options as given.
      decays: whether a decay is among them.
      saved: what `resolved` returned before they were saved: names may have changed since.

    Raises:
      TypeError, ValueError: options that are no mapping, that the function does not take, or with values that it
        refuses.
    """

    def __init__(self, function: Any, given: Any, rate: Any) -> None:
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise TypeError(f"`options` must be a mapping {{name: value}}, got {given!r}")
        self.given = dict(given)
        self._function = function
        self._own = (public_name(function) or ("",))[0] == "adamw_jax"
        self.saved: dict[str, Any] = {}
        self._by_weight: dict[str, list[Any]] = {}
        self.decays = self._own and any(not _is_zero(self.given.get(name)) for name in DECAYS)
        if "learning_rate" in self.given:
            raise TypeError("`options` must not have the learning rate: pass `learning_rate=`, got it among them")
        self._made = {name: _made(value) if name == "direction" else value for name, value in self.given.items()}
        if not self._own:
            try:
                inspect.signature(function).bind_partial(**self.given)
            except TypeError as error:
                raise TypeError(f"`options` must be arguments of {_name_of(function)}: {error}") from error
        else:
            # The core's own checks, as far as they need no weights.
            tx = self._call(rate if checks.is_number(rate) else lambda count: 1.0, without_layers(self._made))
            plan = plan_of(tx)
            if plan is not None and isinstance(plan.factor.coupling, Corrected):
                # The peak is that of the rate which was given, whatever the rate is set to later.
                coupling: Any = coupling_of(self.given["coupling"])
                self._made["coupling"] = replace(coupling, peak=plan.factor.coupling.peak)

    def _call(self, rate: Any, options: Mapping[str, Any]) -> Any:
        by_name = "learning_rate" in inspect.signature(self._function).parameters
        return self._function(learning_rate=rate, **options) if by_name else self._function(rate, **options)

    def resolve(self, weights: Weights, excluded: Sequence[bool]) -> None:
        """Give every rule by name one value per weight.

        Args:
          weights: the trainable variables.
          excluded: whether each has no decay.

        Raises:
          ValueError, TypeError: rules that do not fit the weights.
        """
        if not self._own:
            return
        self._shapes = [list(v.shape) for v in weights.variables]
        for name, value in self.given.items():
            known = self.saved.get(name, {"by": (), "of": None})
            loaded = known["of"] == _text(value) is not None
            if loaded and self.saved["shapes"] == self._shapes:
                by: list[Any] | None = list(known["by"])
            else:
                by = by_weight(name, value, weights, loaded)
            if by is not None:
                self._by_weight[name] = by
                self._made[name] = dict(zip(weights.keys, by, strict=True))
            if by is not None and name not in PER_WEIGHT:
                made = {path: each for key, each in self.given[name].items() for path in paths_of(key)}
                chosen = [key for key in dict.fromkeys(by) if key is not None]
                self._made[name] = {exactly(weights, by, key): _made(made[key]) for key in chosen}
        parameters = {key: v.value for key, v in zip(weights.keys, weights.variables, strict=True)}
        for name in DECAYS:
            if self._made.get(name) is not None:
                check, zero = (check_decay, (0.0, 0.0)) if name == "weight_decay" else (check_multiplier, 0.0)
                values = resolve_rules(name, self._made[name], parameters, check, zero)
                kept = [zero if out else value for value, out in zip(values, excluded, strict=True)]
                self._made[name] = dict(zip(weights.keys, kept, strict=True))

    def transformation(self, rate: Any, factor: Any) -> Any:
        """Return the function's transformation, with all decays multiplied by a factor."""
        options = dict(self._made)
        for name in DECAYS:
            if factor is not None and options.get(name) is not None:
                options[name] = {key: _times(value, factor) for key, value in options[name].items()}
        return self._call(rate, options)

    def config(self) -> dict[str, Any]:
        """Return the options as they are written into a configuration.

        Raises:
          TypeError: one cannot be written; the error tells it.
        """
        config = {}
        for name, value in self.given.items():
            try:
                config[name] = written(by_path(self._made[name] if name == "coupling" else value))
            except TypeError as error:
                raise TypeError(f"with an option that is none of the library's own, {name}={error}") from error
        return config

    def resolved(self) -> dict[str, Any]:
        """Return what the rules by name gave to each weight, for `resolve` after loading."""
        texts = {name: _text(self.given[name]) for name in self._by_weight}
        kept = {name: {"of": text, "by": written(self._by_weight[name])} for name, text in texts.items() if text}
        return {"shapes": self._shapes} | kept if kept else {}


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _is_zero(value: Any) -> bool:
    return value is None or (checks.is_number(value) and checks.equals(value, 0))


def _times(value: Any, factor: Any) -> Any:
    """Return a decay times a factor; what is known to be 0 stays so."""
    if isinstance(value, tuple):
        return tuple(_times(each, factor) for each in value)
    if callable(value):
        return lambda count: factor * value(count)
    return value if checks.equals(value, 0) else factor * value


def _made(value: Any) -> Any:
    """Return the directions that public functions make, alone or by path."""
    if isinstance(value, Mapping):
        return {key: _made(each) for key, each in value.items()}
    return value() if public_name(value.func if isinstance(value, functools.partial) else value) else value


def _text(rules: Any) -> str | None:
    """Return rules as a text that two of them can be compared by; None where they cannot be written."""
    try:
        return json.dumps(written(by_path(rules)))
    except TypeError:
        return None
