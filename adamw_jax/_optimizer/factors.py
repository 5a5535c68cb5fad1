"""The scalars alpha, eta, T_i and c n of updates: over a run, at their peaks, and at one moment."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._decay.factor import DecayFactor
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar, ScalarOrSchedule

RUN = 100_000
"""Updates of a run of unknown length at which functions are evaluated."""

SAMPLES = 2**20
"""The largest number of updates of a run at which functions are evaluated."""


def values_at(value: ScalarOrSchedule | None, counts: np.ndarray) -> np.ndarray:
    """Return the values at some counts of a schedule, or of a number (of an array, its largest); None is 1.

    >>> values_at(lambda count: jnp.minimum(count, 2), np.array([0, 3]))
    array([0., 2.])
    """
    if callable(value):
        values = jax.vmap(lambda count: jnp.asarray(value(count)))(jnp.asarray(counts, jnp.int32))
        return np.asarray(values, np.float64)
    number: Any = value
    return np.full(counts.shape, 1.0 if number is None else float(np.max(number)))


def counts_of(updates: Scalar | None) -> np.ndarray:
    """Return the counts of a run, at most `SAMPLES`; the first `RUN` for a run of unknown length."""
    last = RUN if updates is None else int(checks.check_count("updates", updates))
    return np.unique(np.linspace(0, last - 1, min(last, SAMPLES)).astype(np.int64))


def largest_at(value: ScalarOrSchedule, counts: np.ndarray) -> float:
    """Return a number, or the largest value of a schedule at some counts."""
    return float(values_at(value, counts).max())


@dataclasses.dataclass(frozen=True)
class Factors:
    """The scalars of the updates after some counts, in a run without moves of the position by hand.

    Attributes:
      counts: updates made before.
      alpha, eta, period: the learning rate, the schedule's factor and T_i (None without cycles), one per count.
      factor: c n as a function of the others.
    """

    counts: np.ndarray
    alpha: np.ndarray
    eta: np.ndarray
    period: np.ndarray | None
    factor: DecayFactor

    @property
    def rate(self) -> np.ndarray:
        """Return alpha eta."""
        return np.asarray(self.alpha * self.eta)

    @property
    def norm(self) -> np.ndarray:
        """Return n."""
        return np.broadcast_to(np.asarray(self.factor.norm(self.period), np.float64), self.counts.shape)

    def decay(self, normalized: bool = False) -> np.ndarray:
        """Return c n, for layers that a normalization follows or for others."""
        of: Any = self.factor.of(alpha=self.alpha, eta=self.eta, period=self.period, normalized=normalized)
        return np.broadcast_to(np.asarray(of, np.float64), self.counts.shape)


def factors_of(
    learning_rate: ScalarOrSchedule, schedule: ScalarOrSchedule | None, factor: DecayFactor, counts: np.ndarray
) -> Factors:
    """Return the scalars at some counts."""
    period = None
    if isinstance(schedule, WarmRestarts):
        period = np.asarray(schedule.position(jnp.asarray(counts, jnp.int32)).period, np.float64)
    return Factors(counts, values_at(learning_rate, counts), values_at(schedule, counts), period, factor)


def restarts_of(schedule: Any, updates: int) -> list[int]:
    """Return the counts of a run at which a new cycle begins, without the first cycle."""
    if not isinstance(schedule, WarmRestarts):
        return []
    cycle = np.asarray(schedule.position(jnp.arange(updates)).cycle)
    return [int(count) + 1 for count in np.flatnonzero(np.diff(cycle))]


def grows(schedule: ScalarOrSchedule | None) -> bool:
    """Return True if the peaks of a schedule are known to grow from cycle to cycle."""
    if not isinstance(schedule, WarmRestarts) or checks.is_traced(schedule.eta_max_decay):
        return False
    return schedule.autorestart and float(schedule.eta_max_decay) > 1


def factors_of_run(
    learning_rate: ScalarOrSchedule, schedule: ScalarOrSchedule | None, factor: DecayFactor, updates: Scalar | None
) -> Factors:
    """Return the scalars at counts of a run that contain the peak of each scalar."""
    counts = counts_of(updates)
    restarts = schedule if isinstance(schedule, WarmRestarts) else None
    if restarts is not None and not callable(learning_rate):
        shrinks = factor.normalize_decay == "cycle" and restarts.autorestart and float(restarts.t_mult) < 1
        if int(restarts.warmup) > counts[-1] or shrinks or grows(restarts):
            counts = restarts.peaks(int(counts[-1]) + 1)
        else:
            alpha, eta, period = (np.array([float(x)]) for x in (learning_rate, restarts.eta_max, restarts.period))
            return Factors(np.array([int(restarts.warmup)]), alpha, eta, period, factor)
    if not callable(learning_rate) and not callable(schedule):
        counts = counts[:1]
    return factors_of(learning_rate, schedule, factor, counts)


def largest_rate(learning_rate: ScalarOrSchedule, schedule: ScalarOrSchedule | None, coupling: Any) -> Scalar:
    """Return the largest alpha eta of a run of any length.

    Raises:
      ValueError: a function gives the rate or the schedule, or the peaks of the schedule grow; it names `coupling`.
    """
    largest = schedule.eta_max if isinstance(schedule, WarmRestarts) else schedule
    if grows(schedule) or callable(learning_rate) or callable(largest):
        why = (
            "the peaks of the schedule grow"
            if grows(schedule)
            else "a function gives the learning rate or the schedule"
        )
        raise ValueError(
            f"`coupling` must be Corrected(peak=...) where {why}, for their largest product is not known, "
            f"got {coupling!r}"
        )
    return learning_rate if largest is None else learning_rate * largest
