"""Scalars of an optimizer that callbacks and users set between updates: Variables that never share a buffer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras

from adamw_jax._tree import checks


class Hyperparameter(keras.Variable):
    """A scalar Variable; assigning another Variable copies its value."""

    def assign(self, value: Any) -> Any:
        """Set the value: a number, an array or another Variable."""
        return super().assign(copied(value) if isinstance(value, keras.Variable) else value)


def copied(value: Any) -> Any:
    """Return a Variable's or an array's value in a buffer of its own, anything else as it is.

    A training step deletes the buffers of the optimizer's state: none may be shared, or be the user's.
    """
    value = value.value if isinstance(value, keras.Variable) else value
    return jnp.array(value, copy=True) if isinstance(value, jax.Array) else value


def add_hyperparameter(optimizer: Any, name: str, value: Any, *, tracked: bool = True) -> Hyperparameter:
    """Return a new scalar Variable of an optimizer, on every device of the distribution in use.

    Args:
      optimizer: a `keras.optimizers.Optimizer`.
      name: of the Variable.
      value: its first value, which gives the dtype.
      tracked: whether it is part of the optimizer's state.
    """
    value = jnp.array(value, copy=True)
    distribution = keras.distribution.distribution()
    layout = distribution and keras.distribution.TensorLayout([], distribution.device_mesh)
    with keras.name_scope(optimizer.name, caller=optimizer):
        variable = Hyperparameter(
            lambda shape, dtype: value,
            shape=(),
            dtype=str(value.dtype),
            trainable=False,
            aggregation="only_first_replica",
            layout=layout,
            name=name,
        )
    if tracked:
        optimizer._track_variable(variable)
    return variable


def hyperparameter(name: str, check: Callable[[str, Any], Any], doc: str) -> property:
    """Return a property that reads the Variable `name` of an optimizer's `_hyper` and sets its value.

    Args:
      name: of the hyperparameter.
      check: called with the name and a value to be set; raises where it is none.
      doc: what the property is.
    """

    def read(optimizer: Any) -> Any:
        return getattr(optimizer._hyper, name)

    def write(optimizer: Any, value: Any) -> None:
        optimizer._refuse_unread(name, value)
        read(optimizer).assign(check(name, value))

    return property(read, write, doc=doc)


def position(name: str, value: Any) -> Any:
    """Return `value` if it is an integer, as updates made in a cycle are; negative ones lie before it."""
    return checks.check_count(name, value, low=-checks.MAX_COUNT)
