"""What the factors of the update amount to: over a run, and at their peak."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax import checks
from adamw_jax.cycles import WarmRestarts
from adamw_jax.stages import Stages
from adamw_jax.typing import Scalar, ScalarOrSchedule

SAMPLES = 2**20
"""How many counts of a run a schedule without a known peak is evaluated at, at most."""


class Peaks(NamedTuple):
    """Factors at their peaks.

    Attributes:
      rate: the largest alpha eta.
      eta: the largest eta.
      norm: n, the decay's normalization; of the first cycle where it is per cycle.
      decay_factor: what multiplies n l2 at its largest, on leaves that the corrected coupling does not touch.
      corrected_factor: the same on the leaves that it does.
    """

    rate: float
    eta: float
    norm: float
    decay_factor: float
    corrected_factor: float


class Factors(NamedTuple):
    """Factors of single updates, an array each, with the names of `Peaks`."""

    rate: np.ndarray
    eta: np.ndarray
    norm: np.ndarray
    decay_factor: np.ndarray
    corrected_factor: np.ndarray


def _values(schedule: ScalarOrSchedule | None, counts: np.ndarray) -> np.ndarray:
    if callable(schedule):
        return np.asarray(jax.vmap(schedule)(jnp.asarray(counts, jnp.int32)), np.float64)
    return np.full(counts.shape, 1.0 if schedule is None else float(schedule))


def _decay_factors(stages: Stages, rate: Any, eta: Any) -> tuple[Any, Any]:
    if stages.corrected is not None:
        peak = float(stages.peak())
        return rate, rate**2 / peak if peak else rate
    factor = {"learning_rate": rate, "schedule": eta, "constant": eta**0}[str(stages.coupling)]
    return factor, factor


def factors_of(stages: Stages, counts: np.ndarray) -> Factors:
    """Return the factors of the updates that `counts` updates precede, in a run in which nobody intervenes."""
    alpha, eta = _values(stages.learning_rate, counts), _values(stages.schedule, counts)
    interval = stages.normalize_decay
    if isinstance(interval, str) and isinstance(stages.schedule, WarmRestarts):
        interval = np.asarray(stages.schedule.position(jnp.asarray(counts, jnp.int32)).period, np.float64)
    norm = np.broadcast_to(1.0 if interval is None else np.asarray(interval, np.float64) ** -0.5, counts.shape)
    return Factors(alpha * eta, eta, norm, *_decay_factors(stages, alpha * eta, eta))


def peaks_of(stages: Stages, updates: Scalar | None = None) -> Peaks:
    """Return the peaks of a preset's factors.

    Args:
      stages: the preset's options.
      updates: length of the run, over which schedules are evaluated where only their values tell a peak; None looks at
        the first 100,000.
    """
    last = 100_000 if updates is None else int(checks.check_count("updates", updates))
    needs_samples = callable(stages.learning_rate) or callable(stages.schedule)
    counts = np.unique(np.linspace(0, last - 1, min(last, SAMPLES)).astype(np.int64)) if needs_samples else np.zeros(1)
    alpha, eta = _values(stages.learning_rate, counts), _values(stages.schedule, counts)
    rate, eta_peak = float((alpha * eta).max()), float(eta.max())
    if isinstance(stages.schedule, WarmRestarts) and not callable(stages.learning_rate):
        eta_peak = float(stages.schedule.eta_max)
        rate = float(stages.learning_rate) * eta_peak
    interval = stages.normalize_decay
    if isinstance(interval, str) and isinstance(stages.schedule, WarmRestarts):
        interval = stages.schedule.period
    norm = 1.0 if interval is None or isinstance(interval, str) else float(interval) ** -0.5
    return Peaks(rate, eta_peak, norm, *_decay_factors(stages, rate, eta_peak))
