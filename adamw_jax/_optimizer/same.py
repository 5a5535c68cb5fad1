"""Whether two options are the same, and how one reads in a table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from adamw_jax._direction.direction import about
from adamw_jax._optimizer.factors import values_at
from adamw_jax._tree.checks import is_number, is_traced

COUNTS = np.unique(np.geomspace(1, 100_001, 60).astype(np.int64)) - 1
"""Counts at which functions are compared."""


class NotComparableError(Exception):
    """Two functions that are not functions of the count."""


def is_same(a: Any, b: Any) -> bool:
    """Return True for equal values; functions of the count are equal if they are at `COUNTS`."""
    if a is b or is_traced(a) or is_traced(b):
        return a is b
    if is_number(a) and is_number(b):
        return float(a) == float(b)
    if hasattr(a, "update") and hasattr(b, "update") and not isinstance(a, Mapping):
        a, b = about(a)[:2], about(b)[:2]
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return all(is_same(getattr(a, each.name), getattr(b, each.name)) for each in dataclasses.fields(a))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
    if callable(a) and callable(b) and not isinstance(a, type):
        try:
            return bool(np.array_equal(values_at(a, COUNTS), values_at(b, COUNTS)))
        except Exception as error:  # whatever a function raises that is none of the count
            raise NotComparableError from error
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(is_same, a, b))
    return bool(np.array_equal(a, b)) if isinstance(a, (jax.Array, np.ndarray)) else bool(a == b)


def text_of(value: Any) -> Any:
    """Return a value that a table prints: a function as some of its values."""
    if callable(value) and not dataclasses.is_dataclass(value) and not isinstance(value, type):
        said = ", ".join(f"{each:.3g}" for each in values_at(value, COUNTS[[0, 9, 29, -1]]))
        return f"a function with {said} at counts {', '.join(map(str, COUNTS[[0, 9, 29, -1]]))}"
    if np.ndim(value) and isinstance(value, (jax.Array, np.ndarray)):
        return np.array2string(np.ravel(value), precision=3, threshold=6, max_line_width=10**6)
    plain = is_number(value) or value is None or isinstance(value, (str, bool, tuple))
    return value if plain else " ".join(repr(value).split())
