"""A warning about decays that were meant for another coupling."""

import math
import warnings
from typing import Any

import chex
import numpy as np

from adamw_jax._decay.decay import decays_of
from adamw_jax._decay.factor import normalization, scaled
from adamw_jax._optimizer.plan import Plan
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._rules.freezing import frozen_flags
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths

LARGE = 0.05
"""The share of a weight from which on a decay per update is likely to be another library's number."""


def _known(value: Any) -> float:
    """Return a number that is known now, or 1 for a schedule or a traced number."""
    return 1.0 if value is None or callable(value) or checks.is_traced(value) else float(value)


def warn_of_large_decays(plan: Plan, params: chex.ArrayTree) -> None:
    """Warn where a decay that the learning rate does not multiply takes a large share of a weight per update.

        share = eta n r' l2 >= 0.05,      half-life = log(1/2) / log(1 - share)

    Args:
      plan: the options with resolved rules.
      params: the parameters, or their shapes.
    """
    if plan.factor.c.needs_alpha:
        return
    restarts = plan.schedule if isinstance(plan.schedule, WarmRestarts) else None
    eta = _known(plan.schedule if restarts is None else restarts.eta_max) if plan.factor.c.needs_eta else 1.0
    updates = plan.factor.normalize_decay
    if isinstance(updates, str):
        updates = None if restarts is None else restarts.period
    n = 1.0 if updates is None or checks.is_traced(updates) else float(normalization(updates))
    rows = zip(
        leaf_paths(params),
        decays_of(plan.weight_decay, params),
        multipliers_of(plan.factor.multipliers, params),
        frozen_flags(plan.freeze, params),
        strict=True,
    )
    for path, (_, l2), r, frozen in rows:
        if frozen or any(callable(x) or checks.is_traced(x) for x in (l2, r)):
            continue
        shares = eta * n * np.asarray(scaled(l2, r), np.float64)
        share, decay = float(shares.max()), float(np.max(l2))
        if share < LARGE:
            continue
        half_life = "at once" if share >= 1 else f"in {math.log(0.5) / math.log1p(-share):.2g} updates"
        is_known = not callable(plan.learning_rate) and not checks.is_traced(plan.learning_rate)
        rate = _known(plan.learning_rate)
        there = f"{decay:g} * {rate:g} = {decay * rate:.3g}" if is_known else "it times the learning rate"
        warnings.warn(
            f"`weight_decay` of {decay:g} at {path!r} halves a weight {half_life}, for coupling={plan.factor.c.name!r} "
            f"does not multiply it by the learning rate: the {decay:g} of optax, PyTorch and Keras is {there} here, "
            "see convert_decay; coupling='learning_rate' takes their number as it is",
            stacklevel=2,
        )
        return
