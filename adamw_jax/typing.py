"""The vocabulary: names for the types that appear in signatures."""

from collections.abc import Callable, Mapping

import chex
import optax

Params = optax.Params
Updates = optax.Updates
Scalar = float | int | chex.Numeric
"""A Python number or a JAX scalar, traced or not."""

Schedule = Callable[[chex.Numeric], chex.Numeric]
"""A function from the number of updates made so far to a factor."""

ScalarOrSchedule = Scalar | Schedule

Value = Scalar | tuple[Scalar, Scalar]
"""What a rule gives to a leaf: a number, or for a decay the pair (l1, l2)."""

Rules = Value | Mapping[str, Value] | Callable[[str, chex.Array], Value] | chex.ArrayTree
"""One value per leaf, told as a number, {pattern: value}, (path, leaf) -> value, or a tree of values."""

Labels = chex.ArrayTree
"""A tree with the parameters' structure and a label (a string) at each leaf."""
