"""Numbers of a traced loop: constants of its program, or its arguments, which may change without a compilation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._tree.checks import is_traced
from adamw_jax._tree.width import is_floating


def is_passed(number: Any) -> bool:
    """Return True if a number is an argument of an eager call, so that a new value compiles nothing."""
    return isinstance(number, (jax.Array, np.ndarray)) or float(number) not in (0.0, 1.0)


def is_argument(number: Any) -> bool:
    """Return True if a number is an argument of a group's program while another program is traced."""
    return is_traced(number) or jnp.ndim(number) > 0


def is_array(number: Any) -> bool:
    """Return True if a scalar that all leaves share is an argument while a program is traced: a JAX array."""
    return isinstance(number, jax.Array)


def split(value: Any, is_unknown: Callable[[Any], bool]) -> tuple[Any, list[Any]]:
    """Split a value into the program's constants, hashable, and the numbers that are its arguments."""
    numbers, structure = jax.tree.flatten(value)
    unknown = [is_unknown(number) for number in numbers]
    known = tuple(None if passed else float(number) for number, passed in zip(numbers, unknown, strict=True))
    return (structure, known), [number for number, passed in zip(numbers, unknown, strict=True) if passed]


def join(known: Any, unknown: Sequence[Any], dtype: Any) -> Any:
    """Return the value that `split` took apart, with its constants in a dtype."""
    structure, numbers = known
    rest = iter(unknown)
    return structure.unflatten([next(rest) if number is None else np.asarray(number, dtype)[()] for number in numbers])


def in_dtype(number: Any, dtype: Any) -> Any:
    """Return a number, or an array of them, in a dtype."""
    return jax.lax.convert_element_type(number, dtype) if isinstance(number, jax.Array) else np.asarray(number, dtype)


def is_seed(scalar: Any) -> bool:
    """Return True for the integers among the scalars, which kernels use as bits; in the rules integers are numbers."""
    return isinstance(scalar, jax.Array) and not is_floating(scalar)
