"""The stages that all presets share, made from their common options and put in order."""

import dataclasses
from typing import TypeAlias

import optax

from adamw_jax import checks
from adamw_jax.cycles import WarmRestarts
from adamw_jax.transforms.coupling import COUPLINGS, Corrected, add_term, scale_by_correction
from adamw_jax.transforms.decay_forms import DecayForm, decay_form
from adamw_jax.transforms.freezing import freeze_where, without_moments
from adamw_jax.transforms.leaves import in_wide_arithmetic
from adamw_jax.transforms.multipliers import freeze_where_zero, scale_by_multipliers
from adamw_jax.transforms.proximal import soft_threshold
from adamw_jax.transforms.rates import negate, scale_by_rates, with_learning_rate
from adamw_jax.transforms.restarts import with_warm_restarts
from adamw_jax.typing import Mask, Rules, Scalar, ScalarOrSchedule

Stage: TypeAlias = optax.GradientTransformation


class Preset(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no types
    """A transformation that remembers the options it was made from, for `explain`.

    Attributes:
      stages: the common options.
    """

    stages: "Stages"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """The common options of the presets, documented at `adamw`, and the stages that they stand for.

    Where there is nothing to multiply, to shrink or to freeze, the stage is there all the same: then the state has one
    structure with and without it, and so has a checkpoint.
    """

    learning_rate: ScalarOrSchedule
    weight_decay: Rules
    coupling: str | Corrected
    normalize_decay: Scalar | str | None
    lr_multipliers: Rules | None
    multiplier_scales_decay: bool
    schedule: ScalarOrSchedule | None
    decay_form: str | DecayForm
    proximal_l1: Rules | None
    frozen: Mask | None

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, Corrected):
            checks.check_choice("coupling", self.coupling, (*COUPLINGS, "corrected"))
        decay_form(self.decay_form)
        checks.check_flag("multiplier_scales_decay", self.multiplier_scales_decay)
        if isinstance(self.normalize_decay, str) and self.normalize_decay != "cycle":
            raise ValueError(f"`normalize_decay` must be None, a number or 'cycle', got {self.normalize_decay!r}")
        if self.normalize_decay is not None and not isinstance(self.normalize_decay, str):
            checks.check_number("normalize_decay", self.normalize_decay, low=1)
        if self.normalize_decay == "cycle" and not isinstance(self.schedule, WarmRestarts):
            raise ValueError(
                "`normalize_decay` must not be 'cycle' unless `schedule` is from cosine_warm_restarts, "
                f"got schedule={self.schedule!r}"
            )
        if callable(self.learning_rate) and self.coupling == "schedule" and not self.without_decay():
            raise ValueError(
                "`learning_rate` must be a number with a decay and coupling='schedule', for only its peak could say "
                f"how much of it is eta, got {self.learning_rate!r}: write learning_rate=peak, schedule=lambda count: "
                "rate(count) / peak to schedule the decay with the step, or coupling='learning_rate' to multiply the "
                "decay by the rate as optax does"
            )
        if self.corrected is not None:
            self.peak()

    def without_decay(self) -> bool:
        """Tell whether no leaf decays, as far as single numbers say."""
        return self.proximal_l1 is None and checks.is_number(self.weight_decay) and checks.equals(self.weight_decay, 0)

    @property
    def corrected(self) -> Corrected | None:
        """The corrected coupling, where it is that."""
        if isinstance(self.coupling, Corrected):
            return self.coupling
        return Corrected() if self.coupling == "corrected" else None

    def peak(self) -> Scalar:
        """Return the largest alpha eta of the run, for the corrected coupling."""
        if self.corrected is not None and self.corrected.peak is not None:
            return self.corrected.peak
        schedule = self.schedule.eta_max if isinstance(self.schedule, WarmRestarts) else self.schedule
        if callable(self.learning_rate) or callable(schedule):
            raise ValueError(
                "`coupling` must be Corrected(peak=...) where a function gives the learning rate or the schedule, for "
                f"their largest product is not known, got {self.coupling!r}"
            )
        return self.learning_rate if schedule is None else self.learning_rate * schedule

    def rates(self) -> tuple[str, ...]:
        """Return the names of the factors of a step: alpha, and eta with a schedule."""
        return ("alpha",) if self.schedule is None else ("alpha", "eta")

    def _factors_before_decay(self) -> int:
        return 0 if self.corrected is not None else COUPLINGS.index(self.coupling)

    def before_decay(self) -> Stage:
        """Return the factors that the decay does not get."""
        return scale_by_rates(*self.rates()[: self._factors_before_decay()])

    def after_decay(self) -> Stage:
        """Return the factors that the decay gets."""
        return scale_by_rates(*self.rates()[self._factors_before_decay() :])

    def multiply(self) -> list[Stage]:
        """Return the multipliers r."""
        return [optax.identity() if self.lr_multipliers is None else scale_by_multipliers(self.lr_multipliers)]

    def decay(self) -> list[Stage]:
        """Return the decay, with what the corrected coupling does to it."""
        decay = decay_form(self.decay_form).build(self.weight_decay, self.normalize_decay)
        if self.corrected is None:
            return [decay]
        return [add_term(decay, scale_by_correction(self.corrected, self.peak()))]

    def with_moments(self, direction: Stage) -> Stage:
        """Let the stage that has moments have none for frozen leaves."""
        return direction if self.frozen is None else without_moments(self.frozen, direction)

    def shrink(self) -> list[Stage]:
        """Return the soft threshold."""
        if self.proximal_l1 is None:
            return [optax.identity()]
        return [
            soft_threshold(
                self.proximal_l1,
                coupling=self.coupling if self.corrected is None else self.corrected,
                peak=1.0 if self.corrected is None else self.peak(),
                normalize=self.normalize_decay,
                multipliers=1.0
                if self.lr_multipliers is None or not self.multiplier_scales_decay
                else self.lr_multipliers,
            )
        ]

    def freeze(self) -> list[Stage]:
        """Return what keeps frozen leaves still."""
        return [
            optax.identity() if self.lr_multipliers is None else freeze_where_zero(self.lr_multipliers),
            optax.identity() if self.frozen is None else freeze_where(self.frozen),
        ]

    def run(self, *stages: Stage) -> Preset:
        """Give the stages their rate and their schedule, and turn what they climb into what descends."""
        inner: Stage = optax.chain(*stages, *self.shrink(), *self.freeze(), negate())
        if self.schedule is not None:
            inner = with_warm_restarts(self.schedule, inner)
        preset = Preset(*in_wide_arithmetic(with_learning_rate(self.learning_rate, inner)))
        preset.stages = self
        return preset

    def descend(self, direction: Stage) -> Preset:
        """Put decay and multipliers at their place between a direction and the updates."""
        pair = self.multiply() + self.decay()
        if self.multiplier_scales_decay:
            pair.reverse()
        return self.run(self.with_moments(direction), self.before_decay(), *pair, self.after_decay())
