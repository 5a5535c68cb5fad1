"""Values of rules: checks of multipliers, positive numbers and decays; resolved values; zeros."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rules.trees import is_single
from adamw_jax._tree.checks import check_non_negative, check_number, equals, is_traced
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


def floating(number: Any) -> Any:
    """Return an array, or a JAX or NumPy number, in the default float width, or wider; Python numbers as they are."""
    if not isinstance(number, (jax.Array, np.ndarray, np.number)):
        return number
    default: Any = jnp.result_type(float)
    is_wide = jnp.issubdtype(number.dtype, jnp.floating) and number.dtype.itemsize >= default.itemsize
    return number if is_wide and (isinstance(number, jax.Array) or not np.ndim(number)) else number.astype(default)


def check_vector(name: str, value: Any) -> Any:
    """Return an array of numbers >= 0, as floats.

    Raises:
      ValueError: a number that is negative or not finite. TypeError: other elements.
    """
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"`{name}` must have real numbers, one per layer, got {value.dtype.name}")
    if not is_traced(value) and not (np.isfinite(np.asarray(value, np.float64)) & (np.asarray(value) >= 0)).all():
        raise ValueError(f"`{name}` must have finite numbers in [0, inf), one per layer, got {value!r}")
    return floating(value)


def check_multiplier(name: str, value: Any) -> Value:
    """Return `value` if it is a finite number >= 0, or an array of them, as floats; or a schedule."""
    if callable(value):
        return value
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim:
        return check_vector(name, value)
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"`{name}` must be a number, got {value}: a mask says which leaves and not how much; give "
            "jax.tree.map(lambda flag: number * flag, mask), or {pattern: number}"
        )
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


def check_function(name: str, function: Any, schedules: bool = True) -> None:
    """Raise a TypeError for a function that does not require the two arguments of a rule, path and leaf."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function without a signature
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(each.kind in positional and each.default is each.empty for each in parameters)
    takes_all = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    if required == 2 or (takes_all and required < 2) or hasattr(function, "check_paths"):
        return
    if getattr(function, "__module__", "").startswith("adamw_jax."):
        its_name = getattr(function, "__name__", "it")
        raise TypeError(f"`{name}` must be a rule where it is a function, got {its_name} itself: call {its_name}(...)")
    schedule = 'a schedule count -> value is written {"": schedule}; ' if schedules else ""
    raise TypeError(
        f"`{name}` must be a rule (path, leaf) -> value where it is a function, got {function!r}, which requires "
        f"{required} argument{'' if required == 1 else 's'}: {schedule}a rule requires path and leaf; in the place of "
        "a mask params -> tree give the tree, mask(params)"
    )
