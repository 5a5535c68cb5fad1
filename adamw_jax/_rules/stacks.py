"""Values for each layer of a stack: vectors along the stack's axis of a leaf."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from adamw_jax._rules.leaf import REMEDY, Leaf, leaves_of
from adamw_jax._rules.values import Check, Resolved, resolve_rules
from adamw_jax._tree.typing import Rules


def _along(name: str, value: Any, leaf: Leaf) -> Any:
    """Return a vector in a shape that broadcasts against a leaf; a number as it is."""
    if callable(value) or jnp.ndim(value) == 0:
        return value
    axes = "s" * jnp.ndim(value) if leaf.axes is None else leaf.axes
    sizes = tuple(size for size, letter in zip(leaf.shape, axes, strict=False) if letter == "s")
    if jnp.ndim(value) > len(leaf.shape) or not sizes:
        raise ValueError(
            f"`{name}` must give one number to {leaf.path!r} of shape {leaf.shape}, which has no axis of a stack as "
            f"far as is known, got {jnp.shape(value)}: {REMEDY}"
        )
    if jnp.shape(value) != sizes:
        raise ValueError(
            f"`{name}` must have one number for each of the {sizes} layers in the stack {leaf.path!r} of shape "
            f"{leaf.shape}, got {jnp.shape(value)}"
        )
    stack = [letter == "s" for letter in axes] + [False] * (len(leaf.shape) - len(axes))
    return value.reshape([size if is_stack else 1 for size, is_stack in zip(leaf.shape, stack, strict=True)])


def values_of(
    name: str, rules: Rules, params: chex.ArrayTree, check: Check, default: Any, axes: Any = None
) -> list[Any]:
    """Return one checked value per leaf, see `resolve_rules`; arrays in a shape that broadcasts against their leaves.

    The stack's axes are those of `axes`, see `leaves_of`, or of the name, else the first.

    Raises:
      ValueError: an array of another length than the stack, or for a leaf without a stack.

    >>> import numpy as np
    >>> from adamw_jax._rules.values import check_multiplier
    >>> params = {"blocks": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))}}
    >>> rates = values_of("lr_multipliers", {"blocks": np.ones(3)}, params, check_multiplier, 1.0, {"": "sio"})
    >>> [each.shape for each in rates]
    [(3, 1), (3, 1, 1)]
    """
    values = resolve_rules(name, rules, params, check, default)
    different = list({id(value): value for value in values}.values())
    is_array = (not callable(part) and jnp.ndim(part) for part in jax.tree.leaves(different, is_leaf=callable))
    if isinstance(rules, Resolved) or not any(is_array):
        return values
    rows = zip(values, leaves_of(params, axes), strict=True)
    return [
        tuple(_along(name, part, leaf) for part in value) if isinstance(value, tuple) else _along(name, value, leaf)
        for value, leaf in rows
    ]
