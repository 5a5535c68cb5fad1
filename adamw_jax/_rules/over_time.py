"""Values of rules at an update: a schedule among them is a function of the count of updates."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from adamw_jax._rules.checks import floating
from adamw_jax._tree.checks import check_non_negative
from adamw_jax._tree.stage import extra_arg
from adamw_jax._tree.typing import Value


def values_now(name: str, values: Sequence[Value], extra_args: dict[str, Any]) -> list[Any]:
    """Return the values of an argument `name` at an update: schedules at the count that `with_learning_rate` passes.

    Raises:
      ValueError: a schedule outside `with_learning_rate`, or one that returns a number out of range.
      TypeError: a schedule that returns something else than a number.
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
