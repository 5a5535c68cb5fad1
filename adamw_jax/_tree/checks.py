"""Argument checks: every error names the argument, the rule and the value received.

Tracers pass: only their kind is checked, for their numbers are not known.
"""

import math
from collections.abc import Collection
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._tree.typing import Scalar

MAX_COUNT = 2**31 - 1
"""The largest count of updates: counts are int32."""


LONGEST = 200
"""Characters of a value in a message; a whole model would be pages."""


def shown(value: Any) -> str:
    """Return a value as text for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def is_traced(value: Any) -> bool:
    """Return True if `value` is a tracer, whose number is not known yet; JAX documents the class as jax.core.Tracer."""
    return isinstance(value, jax.core.Tracer)


def equals(value: Scalar, number: float) -> bool:
    """Return True if a scalar is known to be `number` while the program is built; a tracer or a schedule is not."""
    return not is_traced(value) and not callable(value) and np.ndim(value) == 0 and float(value) == number


def is_number(value: Any) -> bool:
    """Return True if `value` is a real scalar: a Python or NumPy number, or a JAX scalar, traced or not."""
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (int, float, np.number)):
        return not isinstance(value, np.complexfloating)
    if not isinstance(value, (jax.Array, np.ndarray)) or value.shape != ():
        return False
    return bool(jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating))


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    exact: bool = False,
) -> Scalar:
    """Return `value` if it is a finite real scalar between `low` and `high`; of a tracer, only the kind is checked.

    Args:
      name: of the caller's argument.
      value: the argument.
      low, high: the interval, for the number and for its rounding to the default float width.
      open_low, open_high: whether the interval leaves its end out.
      exact: whether the number is used as it is, unrounded.

    Raises:
      TypeError: `value` is no real scalar. ValueError: it is outside the interval, or not finite.

    >>> check_number("b1", 0.9, low=0, high=1, open_high=True)
    0.9
    >>> check_number("b1", 1.5, low=0, high=1, open_high=True)
    Traceback (most recent call last):
    ValueError: `b1` must be a finite number in [0, 1), got 1.5
    """
    if not is_number(value):
        raise TypeError(f"`{name}` must be a number or a JAX scalar, got {shown(value)} of type {type(value).__name__}")
    if not is_traced(value):
        number = float(value)
        with np.errstate(over="ignore", under="ignore"):
            used = number if exact else float(np.asarray(number, jnp.result_type(float)))

        def holds(x: float) -> bool:
            above, below = x > low or (x == low and not open_low), x < high or (x == high and not open_high)
            return math.isfinite(x) and above and below

        if not (holds(number) and holds(used)):
            rule = f"{'(' if open_low or low == -math.inf else '['}{low:g}, {high:g}"
            rule += ")" if open_high or high == math.inf else "]"
            got = f"{number!r}, which is {used:g} in {jnp.result_type(float).name}" if holds(number) else f"{number:g}"
            raise ValueError(f"`{name}` must be a finite number in {rule}, got {got}")
    scalar: Scalar = value
    return scalar


def check_non_negative(name: str, value: Any) -> Scalar:
    """Return `value` if it is a finite number >= 0."""
    return check_number(name, value, low=0)


def check_count(name: str, value: Any, *, low: int = 1) -> Scalar:
    """Return `value` if it is an integer from `low` to 2^31 - 1.

    >>> check_count("period", 10.5)
    Traceback (most recent call last):
    ValueError: `period` must be an integer from 1 to 2147483647, got 10.5
    """
    check_number(name, value)
    if not is_traced(value) and not (float(value).is_integer() and low <= float(value) <= MAX_COUNT):
        share = ": a count, not a share or a rate" if 0 < float(value) < 1 else ""
        raise ValueError(f"`{name}` must be an integer from {low} to {MAX_COUNT}, got {value}{share}")
    scalar: Scalar = value
    return scalar


def check_choice(name: str, value: Any, choices: Collection[Any], *, others: str | None = None) -> Any:
    """Return `value` if it is one of `choices`; the error lists them, and `others` in words."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        rule = ", ".join(map(repr, choices)) + (f", or {others}" if others else "")
        raise ValueError(f"`{name}` must be one of {rule}, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False; tracers are refused, for a flag decides what the program is."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def check_returned(name: str, value: Any) -> Any:
    """Return what a schedule returned, a scalar.

    >>> check_returned("schedule(count)", None)
    Traceback (most recent call last):
    TypeError: `schedule(count)` must be a number or a JAX scalar, got None of type NoneType
    """
    is_flag = isinstance(value, bool) or (getattr(value, "dtype", None) == np.bool_ and value.shape == ())
    if not is_number(value) and not is_flag:
        raise TypeError(f"`{name}` must be a number or a JAX scalar, got {shown(value)} of type {type(value).__name__}")
    return value


def check_transformation(name: str, value: Any) -> optax.GradientTransformationExtraArgs:
    """Return a transformation as one that takes extra arguments; a preset that was not called is a TypeError."""
    if isinstance(value, type) or not (hasattr(value, "init") and hasattr(value, "update")):
        call = f": call it, as in {getattr(value, '__name__', 'adamw')}(1e-3)" if callable(value) else ""
        raise TypeError(f"`{name}` must be an optax.GradientTransformation, got {shown(value)}{call}")
    return optax.with_extra_args_support(value)


def check_arrays(name: str, tree: chex.ArrayTree) -> None:
    """Raise a TypeError that names the path of the first leaf that is no array, shape of one or number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")) and not isinstance(
            leaf, (bool, int, float, complex)
        ):
            raise TypeError(
                f"`{name}` must have arrays or shapes as leaves, got a {type(leaf).__name__} at {path_text(path)!r}: "
                "filter a model, as with equinox.filter(model, equinox.is_array)"
            )


def path_text(path: tuple[Any, ...]) -> str:
    """Return a key path as it reads in messages, keys joined by "/"."""
    text: str = jax.tree_util.keystr(path, simple=True, separator="/")
    return text


def check_floating(name: str, tree: chex.ArrayTree) -> None:
    """Raise a TypeError that names the path of the first leaf whose dtype is not real floating."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = path_text(path) or "the only leaf"
            raise TypeError(
                f"`{name}` must have real floating leaves, got {dtype.name} at {where!r}: take those that are trained, "
                "as nnx.state(model, nnx.Param) or equinox.filter(model, equinox.is_inexact_array), or freeze it"
            )
