"""What the factors of the update amount to: over a run, at their peak, and at one moment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._optimizer.plan import Plan
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar, ScalarOrSchedule

SAMPLES = 2**20
"""How many counts of a run a schedule without a known peak is evaluated at, at most."""


class Factors(NamedTuple):
    """Factors of single updates as arrays, or of one as numbers.

    Attributes:
      alpha: the rate.
      eta: the schedule's factor.
      period: T_i, None where the schedule has none.
    """

    alpha: Any
    eta: Any
    period: Any


def counts_of(updates: Scalar | None) -> np.ndarray:
    """Return the counts of a run at which functions are evaluated; the first 100,000 for a run of unknown length."""
    last = 100_000 if updates is None else int(checks.check_count("updates", updates))
    return np.unique(np.linspace(0, last - 1, min(last, SAMPLES)).astype(np.int64))


def values_of(schedule: ScalarOrSchedule | None, counts: np.ndarray) -> np.ndarray:
    """Return what a schedule says at some counts; a number says itself, None says 1."""
    if callable(schedule):
        said = jax.vmap(lambda count: jnp.asarray(schedule(count)))(jnp.asarray(counts, jnp.int32))
        return np.asarray(said, np.float64)
    return np.full(counts.shape, 1.0 if schedule is None else float(schedule))


def factors_of(plan: Plan, counts: np.ndarray) -> Factors:
    """Return the factors of the updates that `counts` updates precede, in a run in which nobody intervenes."""
    period = None
    if isinstance(plan.schedule, WarmRestarts):
        period = np.asarray(plan.schedule.position(jnp.asarray(counts, jnp.int32)).period, np.float64)
    return Factors(values_of(plan.learning_rate, counts), values_of(plan.schedule, counts), period)


def peaks_of(plan: Plan, updates: Scalar | None = None) -> Factors:
    """Return the factors at their peaks: the largest eta, the alpha that makes alpha eta its largest, the first period.

    Args:
      plan: the optimizer's options.
      updates: length of the run, over which schedules are evaluated where only their values tell a peak; None looks at
        the first 100,000.
    """
    has_functions = callable(plan.learning_rate) or callable(plan.schedule)
    counts = counts_of(updates) if has_functions else np.zeros(1, np.int64)
    alpha, eta = values_of(plan.learning_rate, counts), values_of(plan.schedule, counts)
    period = None
    if isinstance(plan.schedule, WarmRestarts):
        period = float(plan.schedule.period)
        if not callable(plan.learning_rate):
            return Factors(float(alpha[0]), float(plan.schedule.eta_max), period)
    peak = float(eta.max())
    return Factors(float((alpha * eta).max()) / peak if peak else float(alpha.max()), peak, period)
