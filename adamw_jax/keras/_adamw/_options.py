"""What the optimizers are made with and keep: one frozen dataclass per class, whose fields are its configuration."""

from dataclasses import dataclass, fields
from typing import Any

import jax.numpy as jnp
import keras

from adamw_jax._decay.coupling import Constant, LearningRate, Schedule
from adamw_jax._storage.formats import storage_of
from adamw_jax._tree import checks

COUPLINGS = tuple(coupling.name for coupling in (LearningRate, Schedule, Constant))
"""The couplings that need no peak."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of every class, checked; see `DecoupledOptimizer` for what they mean.

    Raises:
      ValueError, TypeError: a value outside its range or of another kind, `autorestart` without annealing.

    >>> Options(total_iterations=24, use_cosine_annealing=True).total_iterations_wd
    24
    """

    decay: float = 0.0
    zero_penalties: bool = True
    total_iterations: int = 0
    total_iterations_wd: int | None = None
    use_cosine_annealing: bool = False
    autorestart: bool | None = None
    t_mult: float = 1
    coupling: str = "schedule"
    moment_dtype: Any = None
    init_verbose: bool = True

    def __post_init__(self) -> None:
        for name, value in self._checked().items():
            object.__setattr__(self, name, value)

    def _checked(self) -> dict[str, Any]:
        annealed = checks.check_flag("use_cosine_annealing", self.use_cosine_annealing)
        autorestart = annealed if self.autorestart is None else checks.check_flag("autorestart", self.autorestart)
        if autorestart and not annealed:
            raise ValueError("`autorestart` needs `use_cosine_annealing=True`. Received: autorestart=True")
        total = int(checks.check_count("total_iterations", self.total_iterations, low=0))
        over = self.total_iterations_wd and checks.check_count("total_iterations_wd", self.total_iterations_wd)
        storage_of("moment_dtype", self.moment_dtype)
        named = self.moment_dtype is None or isinstance(self.moment_dtype, str)
        return {
            "decay": float(checks.check_non_negative("decay", self.decay)),
            "zero_penalties": checks.check_flag("zero_penalties", self.zero_penalties),
            "total_iterations": total,
            "total_iterations_wd": int(over or total),
            # With one update there is nothing to anneal over.
            "use_cosine_annealing": annealed and total > 1,
            "autorestart": autorestart and total > 1,
            "t_mult": _plain(checks.check_number("t_mult", self.t_mult, low=0, open_low=True)),
            "coupling": checks.check_choice("coupling", self.coupling, COUPLINGS),
            "moment_dtype": self.moment_dtype if named else jnp.dtype(self.moment_dtype).name,
            "init_verbose": checks.check_flag("init_verbose", self.init_verbose),
        }


def _plain(number: Any) -> int | float:
    return number if isinstance(number, int) else float(number)


def _share(name: str, value: Any) -> float:
    return float(checks.check_number(name, value, low=0, high=1, open_high=True))


@dataclass(frozen=True, kw_only=True)
class AdamOptions(Options):
    """What AdamW and NadamW share."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float | None = None

    def _checked(self) -> dict[str, Any]:
        epsilon = keras.backend.epsilon() if self.epsilon is None else self.epsilon
        return super()._checked() | {
            "beta_1": _share("beta_1", self.beta_1),
            "beta_2": _share("beta_2", self.beta_2),
            "epsilon": float(checks.check_number("epsilon", epsilon, low=0, open_low=True)),
        }


@dataclass(frozen=True, kw_only=True)
class AdamWOptions(AdamOptions):
    """The options of `AdamW`."""

    amsgrad: bool = False

    def _checked(self) -> dict[str, Any]:
        return super()._checked() | {"amsgrad": checks.check_flag("amsgrad", self.amsgrad)}


@dataclass(frozen=True, kw_only=True)
class NadamWOptions(AdamOptions):
    """The options of `NadamW`."""

    schedule_decay: float = 0.004

    def _checked(self) -> dict[str, Any]:
        decay = float(checks.check_non_negative("schedule_decay", self.schedule_decay))
        return super()._checked() | {"schedule_decay": decay}


@dataclass(frozen=True, kw_only=True)
class SGDWOptions(Options):
    """The options of `SGDW`."""

    momentum: float = 0.0
    nesterov: bool = False

    def _checked(self) -> dict[str, Any]:
        return super()._checked() | {
            "momentum": _share("momentum", self.momentum),
            "nesterov": checks.check_flag("nesterov", self.nesterov),
        }


def names(options: Options) -> tuple[str, ...]:
    """Return the names of all options."""
    return tuple(field.name for field in fields(options))
