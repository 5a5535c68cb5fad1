"""A function with facts about it, which stay where only the function is kept."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Facts = TypeVar("Facts")


class Noted:
    """A function with facts about it.

    A transformation is a tuple of functions, and `jax.tree.map` and Equinox's `filter_jit` build a new tuple from them:
    attributes of the tuple are lost, the functions stay.

    Attributes:
      facts: what is known about the function.
    """

    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], facts: Any) -> None:
        functools.update_wrapper(self, function)
        self.facts = facts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)


def facts_of(transformation: Any, kind: type[Facts]) -> Facts | None:
    """Return the facts of a type that are noted at the `update` of a transformation; None where there are none."""
    facts = getattr(getattr(transformation, "update", None), "facts", None)
    return facts if isinstance(facts, kind) else None
