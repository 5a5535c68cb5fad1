"""Schedules that know the function and the arguments that made them, so that a file can hold them."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import chex

from adamw_jax._tree.typing import Schedule

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Named:
    """A schedule with the function that made it and its arguments, so that a file can hold it.

    Attributes:
      schedule: count -> factor.
      label: name of the function.
      arguments: name -> value.
    """

    schedule: Schedule
    label: str
    arguments: Mapping[str, Any]

    def __call__(self, count: chex.Numeric) -> chex.Numeric:
        """Return the schedule's factor."""
        return self.schedule(count)

    def __repr__(self) -> str:
        return f"{self.label}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


def named(maker: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """Return the function whose schedules are `Named`."""
    signature, label = inspect.signature(maker), getattr(maker, "__name__", "")

    @functools.wraps(maker)
    def make(*args: P.args, **kwargs: P.kwargs) -> Named:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Named(maker(*args, **kwargs), label, dict(bound.arguments))

    return make
