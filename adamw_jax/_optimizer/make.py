"""Which optimizers make states of one form, so that the form is worked out once for all of them."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from adamw_jax._decay.forms import Decoupled
from adamw_jax._direction.direction import about
from adamw_jax._optimizer.plan import Plan
from adamw_jax._tree import checks


def _mark(value: Any) -> Any:
    """Return a flag, a name or a dtype, on which a state may depend; a number, which changes no state, as its type."""
    if checks.is_number(value):
        return float
    if value is None or isinstance(value, (str, bool, type, np.dtype)):
        return value
    raise TypeError


def make_of(plan: Plan) -> Any:
    """Return equal keys for optimizers whose states differ in numbers only; None where options are functions or trees.

    `optax.inject_hyperparams` builds the optimizer anew in every update: all of them have one key.
    """
    if type(plan.form).__module__ != Decoupled.__module__:
        return None  # a user's form, whose fields may decide about its state
    single = not isinstance(plan.direction, Mapping)
    try:
        rows = []
        for pattern, direction in [("", plan.direction)] if single else plan.direction.items():
            arguments = cast(Mapping[str, Any], about(direction).arguments)
            rows.append((pattern, about(direction).name, *arguments, *map(_mark, arguments.values())))
        options = plan.freeze, plan.hold_norm, plan.axes, getattr(plan.form, "anchors", None), plan.accumulate
        return single, *rows, *map(_mark, options), type(plan.form), plan.schedule is None
    except (AttributeError, TypeError):
        return None
