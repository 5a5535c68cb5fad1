"""Rules by the names of weights, or by their position, as keras-adamw's arguments are."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adamw_jax.keras._weights import Weights


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


def decays_something(rules: Any) -> bool:
    """Return whether some of `weight_decays` is not 0, as far as they are known; True for one that is malformed."""
    if rules is None:
        return False
    return any(map(decays_of_pair, rules.values() if isinstance(rules, Mapping) else rules))


def decays_of_pair(decay: Any) -> bool:
    """Return whether a pair, or one of its parts over time, is not 0."""
    parts = decay if isinstance(decay, (tuple, list)) else [decay]
    return any(callable(each) or each != 0 for each in parts)


def resolved(
    name: str, rules: Any, weights: Weights, every: Sequence[Any], default: Any, check: Any, find: Any
) -> list[Any]:
    """Return one checked value per weight: of a mapping by name, of a sequence by position.

    Args:
      name: of the argument, for errors.
      rules: {key: value}, one value per trainable variable, or None.
      weights: the variables that are trained.
      every: all trainable variables, those that are overwritten included.
      default: for a weight that no key means.
      check: returns a value in its normal form, or raises.
      find: (name, key) -> the positions of the weights that a key means.
    """
    if rules is None:
        return [default] * len(weights.variables)
    if isinstance(rules, Mapping):
        return weights.values(name, {k: _plain(check(f"{name}[{k!r}]", v)) for k, v in rules.items()}, default, find)
    if len(rules) == len(every) > len(weights.variables):
        ids = {id(v) for v in weights.variables}
        rules = [value for value, variable in zip(rules, every, strict=True) if id(variable) in ids]
    if len(rules) != len(weights.variables):
        overwritten = len(every) - len(weights.variables)
        also = f", or with the {overwritten} that are overwritten ({len(every)})" if overwritten else ""
        raise ValueError(
            f"`{name}` must have one value per trainable variable ({len(weights.variables)}){also}. "
            f"Received: {len(rules)}"
        )
    return [_plain(check(f"{name}[{i}]", value)) for i, value in enumerate(rules)]


def _plain(value: Any) -> Any:
    """Return checked numbers as Python's."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value if callable(value) else float(value)


def substring(weights: Weights, name: str, key: Any) -> list[int]:
    """Return the weights in whose path a key is, as in keras-adamw; or those of a layer."""
    if isinstance(key, str) and (hits := weights.search(name, key, re.compile(re.escape(key.removesuffix(":0"))))):
        return hits
    try:
        return weights.find(name, key)
    except ValueError as error:
        raise ValueError(f"`{name}`: the key {key!r} is part of no path; {error}") from error
