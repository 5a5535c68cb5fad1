"""Values of rules: checks of multipliers, positive numbers and decays; resolved values; zeros."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from adamw_jax._rules.over_time import check_vector, floating
from adamw_jax._rules.trees import is_single
from adamw_jax._tree.checks import check_non_negative, check_number, equals
from adamw_jax._tree.typing import Value

Check = Callable[[str, Any], Any]
"""(name, value) -> the value in its normal form; raises for a value of another kind or out of range."""


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Rules that are resolved already, for stages that are made for one tree: `resolve_rules` returns their values.

    Attributes:
      values: one checked value per leaf, in the order of `jax.tree.leaves`.
    """

    values: list[Any]


def check_multiplier(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number >= 0, or an array of them, as floats; or a schedule."""
    if callable(value):
        return value
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim:
        return check_vector(name, value)
    if isinstance(value, (tuple, list)):
        raise TypeError(
            f"`{name}` must be a number or a JAX scalar, got {value!r} of type {type(value).__name__}: a pair (l1, l2) "
            "is a decay's; give one number per leaf, or a tree of numbers in the parameters' structure"
        )
    return floating(check_non_negative(name, value))


def check_positive(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number > 0."""
    return check_number(name, value, low=0, open_low=True)


def check_decay(name: str, value: Any) -> Value:
    """Return the pair (l1, l2) for a pair, or for a number or schedule, which is l2."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2 or hasattr(value, "_fields"):
            raise ValueError(f"`{name}` must be a number l2 or a pair (l1, l2), got {value!r}")
        return check_multiplier(f"{name} l1", value[0]), check_multiplier(f"{name} l2", value[1])
    return 0.0, check_multiplier(name, value)


def is_zero(rules: Any) -> bool:
    """Return True if rules are known to give 0 to every leaf: a number, pairs, patterns or a tree of zeros."""
    values = rules.values if isinstance(rules, Resolved) else jax.tree.leaves(getattr(rules, "value", rules))
    return all(is_single(value) and equals(value, 0) for value in jax.tree.leaves(values))
