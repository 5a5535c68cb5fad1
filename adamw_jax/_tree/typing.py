"""The vocabulary: names for the types that appear in signatures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import chex
import optax

Params: TypeAlias = optax.Params
Updates: TypeAlias = optax.Updates
Scalar: TypeAlias = float | int | chex.Numeric
"""A Python number or a JAX scalar, traced or not."""

Schedule: TypeAlias = Callable[[chex.Numeric], chex.Numeric]
"""A function from the number of updates made so far to a factor."""

ScalarOrSchedule: TypeAlias = Scalar | Schedule

Value: TypeAlias = ScalarOrSchedule | tuple[ScalarOrSchedule, ScalarOrSchedule]
"""What a rule gives to a leaf: a number or a schedule, or for a decay the pair (l1, l2) of them."""

Rules: TypeAlias = Value | Mapping[str, Value] | Callable[[str, chex.Array], Value] | chex.ArrayTree
"""One value per leaf: a number, {pattern: value}, (path, leaf) -> value, or a tree of values."""

Mask: TypeAlias = str | Sequence[str] | Mapping[str, bool] | Callable[[str, chex.Array], bool] | chex.ArrayTree
"""Which leaves: patterns, {pattern: flag}, (path, leaf) -> flag, or a tree of flags."""

Directions: TypeAlias = optax.GradientTransformation | Mapping[str, optax.GradientTransformation]
"""A transformation that points uphill, or {pattern: transformation}."""

Scalars: TypeAlias = Sequence[chex.Array]
"""What a kernel has for all leaves: arrays of no axes, or NumPy scalars."""

Moments: TypeAlias = Sequence[chex.Array]
"""A leaf's moments, each of the leaf's shape."""

MomentDtype: TypeAlias = Any
"""How moments are stored: None, "packed", "packed8", or a floating dtype."""
