"""What an optimizer was made from, kept for those who explain and draw it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import optax

from adamw_jax._decay.coupling import Schedule
from adamw_jax._decay.factor import DecayFactor
from adamw_jax._decay.forms import Decoupled
from adamw_jax._direction.direction import about
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._tree import checks
from adamw_jax._tree.noted import Noted, facts_of
from adamw_jax._tree.typing import Directions, Mask, Rules, Scalar, ScalarOrSchedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The options of an optimizer, documented at `decoupled`, checked against each other."""

    direction: Directions
    learning_rate: ScalarOrSchedule
    weight_decay: Rules
    form: Decoupled
    factor: DecayFactor
    proximal_l1: Rules | None
    lr_multipliers: Rules | None
    schedule: ScalarOrSchedule | None
    freeze: Mask | None
    hold_norm: Mask | None

    def __post_init__(self) -> None:
        if self.factor.normalize_decay == "cycle" and not isinstance(self.schedule, WarmRestarts):
            raise ValueError(
                "`normalize_decay` must not be 'cycle' unless `schedule` is from cosine_warm_restarts, "
                f"got schedule={self.schedule!r}"
            )
        if callable(self.learning_rate) and self._only_eta_scales_the_decay() and not self._is_without_decay():
            raise ValueError(
                "`learning_rate` must be a number with a decay and coupling='schedule', for only its peak could say "
                f"how much of it is eta, got {self.learning_rate!r}: write learning_rate=peak, schedule=lambda count: "
                "rate(count) / peak to schedule the decay with the step, or coupling='learning_rate' to multiply the "
                "decay by the rate as optax does"
            )

    def _only_eta_scales_the_decay(self) -> bool:
        return self.factor.c.needs_eta and not self.factor.c.needs_alpha

    def _is_without_decay(self) -> bool:
        """Return True if every decay is known to be zero."""
        decay = self.weight_decay
        return self.proximal_l1 is None and checks.is_number(decay) and checks.equals(decay, 0)


def largest_rate(
    learning_rate: ScalarOrSchedule, schedule: ScalarOrSchedule | None, coupling: str | Schedule
) -> Scalar:
    """Return the largest alpha eta of a run of any length.

    Raises:
      ValueError: a function gives the rate or the schedule, or the peaks of the schedule grow; it names `coupling`.
    """
    grows = False
    if isinstance(schedule, WarmRestarts):
        decay = schedule.eta_max_decay
        grows = schedule.autorestart and not checks.is_traced(decay) and float(decay) > 1
        schedule = schedule.eta_max
    if grows or callable(learning_rate) or callable(schedule):
        why = "`eta_max_decay` is above 1" if grows else "a function gives the learning rate or the schedule"
        raise ValueError(
            f"`coupling` must be Corrected(peak=...) where {why}, for the largest product of rate and schedule is not "
            f"known, got {coupling!r}"
        )
    return learning_rate if schedule is None else learning_rate * schedule


class Optimizer(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no types
    """A transformation with `plan`, the options that it was made from."""

    @classmethod
    def made_from(cls, plan: Plan, transformation: optax.GradientTransformation) -> "Optimizer":
        """Return the transformation with its plan."""
        init, update = transformation
        return cls(init, Noted(update, plan))

    @property
    def plan(self) -> Plan:
        """The options."""
        return cast(Plan, plan_of(self))

    def _replace(self, **functions: Any) -> "Optimizer":
        """Return an optimizer with another `init` or `update`, and the same plan."""
        return Optimizer.made_from(self.plan, super()._replace(**functions))

    def __repr__(self) -> str:
        direction = "by path" if isinstance(self.plan.direction, Mapping) else about(self.plan.direction).name
        return f"<adamw_jax optimizer, direction {direction}; in Keras it goes into adamw_jax.keras.OptaxOptimizer>"


def plan_of(transformation: Any) -> Plan | None:
    """Return the options that a transformation was made from; None for one of another package."""
    return facts_of(transformation, Plan)


def with_plan_of(inner: optax.GradientTransformation, outer: optax.GradientTransformation) -> Any:
    """Copy the inner optimizer's plan to the wrapper, if it has one, so that `explain` works on it."""
    plan = plan_of(inner)
    return outer if plan is None else Optimizer.made_from(plan, outer)
