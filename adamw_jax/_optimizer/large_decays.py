"""Warnings about numbers of another unit: a decay for another coupling, learning rates as a schedule."""

import math
import warnings
from typing import Any

import chex
import jax
import numpy as np

from adamw_jax._decay.decay import decays_of
from adamw_jax._decay.factor import normalization
from adamw_jax._decay.forms import Anchored
from adamw_jax._decay.proximal import thresholds_of
from adamw_jax._optimizer.factors import values_at
from adamw_jax._optimizer.plan import Plan
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._rates.shapes import Named
from adamw_jax._rules.freezing import frozen_flags
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths

COUNTS = np.array([0, *(step * 10**power for power in range(6) for step in (1, 3))])
"""Counts at which a schedule is looked at: half a decade from one to the next."""

SMALL = 0.02
"""A schedule that is no larger at any of `COUNTS` is likely to be one of learning rates."""

LARGE = 0.05
"""The share of a weight from which on a decay per update is likely to be another library's number."""


def _known(value: Any) -> float:
    """Return a number that is known now, or 1 for a schedule or a traced number."""
    return 1.0 if value is None or callable(value) or checks.is_traced(value) else float(value)


def warn_of_rates(schedule: Any) -> None:
    """Warn where a function that is the schedule has the size of learning rates, at some counts of a long run."""
    if not callable(schedule) or isinstance(schedule, (Named, WarmRestarts)):
        return
    try:
        with jax.ensure_compile_time_eval():
            peak = float(values_at(schedule, COUNTS).max())
    except (TypeError, ValueError):  # a function of traced numbers, or one that takes plain integers only
        return
    if 0 < peak <= SMALL:
        warnings.warn(
            f"`schedule` is at most {peak:.3g} and multiplies the learning rate: a schedule of learning rates is "
            "`learning_rate`, or `schedule` after a division by its peak",
            stacklevel=2,
        )


@jax.ensure_compile_time_eval()
def warn_of_large_decays(plan: Plan, params: chex.ArrayTree) -> None:
    """Warn where a decay takes a large share of a weight per update, or an l1 as much from a weight of any size.

        share = c n r' l2 >= 0.05,      half-life = log(1/2) / log(1 - share)

    JAX scalars that are known stay known in a trace, such as that of `explain`.

    Args:
      plan: the options with resolved rules.
      params: the parameters, or their shapes.
    """
    is_known = not callable(plan.learning_rate) and not checks.is_traced(plan.learning_rate)
    rate, by_rate = _known(plan.learning_rate), plan.factor.c.needs_alpha
    if (by_rate and not is_known) or isinstance(plan.form, Anchored):  # a pull to the start loses no weight
        return
    restarts = plan.schedule if isinstance(plan.schedule, WarmRestarts) else None
    eta = _known(plan.schedule if restarts is None else restarts.eta_max) if plan.factor.c.needs_eta else 1.0
    updates = plan.factor.normalize_decay
    if isinstance(updates, str):
        updates = None if restarts is None else restarts.period
    n = 1.0 if updates is None or checks.is_traced(updates) else float(normalization(float(updates)))
    rows = zip(
        leaf_paths(params),
        decays_of(plan.weight_decay, params),
        thresholds_of(plan.proximal_l1, params),
        multipliers_of(plan.factor.multipliers, params),
        frozen_flags(plan.freeze, params),
        strict=True,
    )
    for path, (l1, l2), threshold, r, frozen in rows:
        if frozen or any(callable(x) or checks.is_traced(x) for x in (l1, l2, threshold, r)):
            continue
        c = eta * rate if by_rate else eta
        # NumPy's numbers: those of JAX become traced where `init` is, as in `explain`.
        l1, l2, threshold, r = map(np.float64, (l1, l2, threshold, r))
        subtracted, shrunk, share = (float(np.max(c * n * x * r)) for x in (l1, threshold, l2))
        decay = float(np.max(l2))
        if max(subtracted, shrunk) >= LARGE:
            name = "`weight_decay` of l1" if subtracted >= LARGE else "`proximal_l1` of"
            warnings.warn(
                f"{name} {float(np.max(l1 if subtracted >= LARGE else threshold)):g} at {path!r} moves every weight by "
                f"{max(subtracted, shrunk):.2g} towards 0 in an update, whatever its size: a pair of weight_decay is "
                "(l1, l2)",
                stacklevel=2,
            )
            return
        if share < LARGE:
            continue
        half_life = "at once" if share >= 1 else f"in {math.log(0.5) / math.log1p(-share):.2g} updates"
        there = f"{decay:g} * {rate:g} = {decay * rate:.3g}" if is_known else "it times the learning rate"
        why = f"at a learning rate of {rate:g}, which multiplies it"
        if not by_rate:
            why = (
                f"for coupling={plan.factor.c.name!r} does not multiply it by the learning rate: the {decay:g} of "
                f"optax, PyTorch and Keras is {there} here, see convert_decay; coupling='learning_rate' takes their "
                "number as it is"
            )
        warnings.warn(f"`weight_decay` of {decay:g} at {path!r} halves a weight {half_life}, {why}", stacklevel=2)
        return
