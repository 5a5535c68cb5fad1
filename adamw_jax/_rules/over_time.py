"""Values of rules at an update: a schedule among them is a function of the count of updates."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._tree.checks import check_non_negative, is_traced
from adamw_jax._tree.loop import extra_arg
from adamw_jax._tree.typing import Value


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


def values_now(name: str, values: Sequence[Value], extra_args: dict[str, Any]) -> list[Any]:
    """Return the values of an update: each schedule's at the count that `with_learning_rate` passes.

    Args:
      name: of the caller's argument, for the errors.
      values: from `resolve_rules`.
      extra_args: of the stage that asks.

    Raises:
      ValueError: a schedule outside `with_learning_rate`, or one that returns a number out of range.
      TypeError: one that returns something else than a number.
    """
    known: dict[int, Any] = {}

    def now(value: Any) -> Any:
        if not callable(value):
            return value
        if extra_args.get("count") is None:
            raise ValueError(
                f"`{name}` must not have a schedule as a value outside of with_learning_rate, which counts the "
                f"updates: put the stage inside it, got {value!r}"
            )
        if id(value) not in known:
            number = check_non_negative(f"{name}(count)", value(extra_arg("count", extra_args)))
            known[id(value)] = floating(number)
        return known[id(value)]

    return [tuple(map(now, value)) if isinstance(value, tuple) else now(value) for value in values]


def check_start(name: str, values: Sequence[Value]) -> None:
    """Check what the schedules among some values return for the first update."""
    values_now(name, values, {"count": np.zeros([], np.int32)})
