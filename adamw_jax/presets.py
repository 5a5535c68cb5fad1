"""AdamW, NadamW and SGDW: each a chain of stages on one screen."""

import dataclasses
from typing import Any, TypeAlias

import optax

from adamw_jax import checks
from adamw_jax.schedules import WarmRestarts
from adamw_jax.transforms.adam import scale_by_adam, scale_by_amsgrad
from adamw_jax.transforms.decay import add_decoupled_decay
from adamw_jax.transforms.leaves import add_branches, in_wide_arithmetic
from adamw_jax.transforms.momentum import scale_by_momentum
from adamw_jax.transforms.multipliers import freeze_where_zero, scale_by_multipliers
from adamw_jax.transforms.nadam import scale_by_nadam
from adamw_jax.transforms.rates import scale_by_alpha, with_learning_rate
from adamw_jax.transforms.restarts import scale_by_eta, with_warm_restarts
from adamw_jax.typing import Rules, Scalar, ScalarOrSchedule

Stage: TypeAlias = optax.GradientTransformation

COUPLINGS = ("learning_rate", "schedule", "constant")
"""What multiplies the decay: alpha and eta, eta, nothing; as an index, how many of (alpha, eta) come before it."""


@dataclasses.dataclass(frozen=True)
class _Stages:
    """The stages that all presets share, made from their common options."""

    learning_rate: ScalarOrSchedule
    weight_decay: Rules
    coupling: str
    normalize_decay: Scalar | str | None
    lr_multipliers: Rules | None
    multiplier_scales_decay: bool
    schedule: ScalarOrSchedule | None

    def __post_init__(self) -> None:
        checks.check_choice("coupling", self.coupling, COUPLINGS)
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
        if callable(self.learning_rate) and self.coupling == "schedule" and not self._without_decay():
            raise ValueError(
                "`learning_rate` must be a number with a decay and coupling='schedule', for only its peak could say "
                f"how much of it is eta, got {self.learning_rate!r}: write learning_rate=peak, schedule=lambda count: "
                "rate(count) / peak to schedule the decay with the step, or coupling='learning_rate' to multiply the "
                "decay by the rate as optax does"
            )

    def _without_decay(self) -> bool:
        return checks.is_number(self.weight_decay) and checks.equals(self.weight_decay, 0)

    def rates(self) -> list[Stage]:
        return [scale_by_alpha()] + ([] if self.schedule is None else [scale_by_eta()])

    def before_decay(self) -> list[Stage]:
        return self.rates()[: COUPLINGS.index(self.coupling)]

    def after_decay(self) -> list[Stage]:
        return self.rates()[COUPLINGS.index(self.coupling) :]

    # Where there is nothing to multiply or to freeze the stage is there all the same: then the state has one structure
    # with and without multipliers, and so has a checkpoint of it.

    def multiply(self) -> list[Stage]:
        return [optax.identity() if self.lr_multipliers is None else scale_by_multipliers(self.lr_multipliers)]

    def decay(self) -> list[Stage]:
        return [add_decoupled_decay(self.weight_decay, normalize=self.normalize_decay)]

    def freeze(self) -> list[Stage]:
        return [optax.identity() if self.lr_multipliers is None else freeze_where_zero(self.lr_multipliers)]

    def run(self, *stages: Stage) -> optax.GradientTransformationExtraArgs:
        """Give the stages their rate and their schedule, and turn what they climb into what descends."""
        inner: Stage = optax.chain(*stages, *self.freeze(), optax.scale(-1.0))
        if self.schedule is not None:
            inner = with_warm_restarts(self.schedule, inner)
        return in_wide_arithmetic(with_learning_rate(self.learning_rate, inner))

    def descend(self, direction: Stage) -> optax.GradientTransformationExtraArgs:
        """Put decay and multipliers at their place between a direction and the updates."""
        pair = self.multiply() + self.decay()
        if self.multiplier_scales_decay:
            pair.reverse()
        return self.run(direction, *self.before_decay(), *pair, *self.after_decay())


def adamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    epsilon_hat: bool = False,
    amsgrad: bool = False,
    weight_decay: Rules = 0.0,
    coupling: str = "schedule",
    normalize_decay: Scalar | str | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    moment_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return AdamW: Adam with decoupled weight decay, warm restarts and per-leaf rates.

        d = Adam's direction                            lines 5 to 10 of Algorithm 2
        theta <- theta - eta_t (alpha r d + n (l1 sign(theta) + l2 theta))            lines 11 and 12

    where the decay's place among the factors is the `coupling`, and n = 1, sqrt(1 / T) or sqrt(1 / T_i).

    Args:
      learning_rate: alpha, >= 0: a number, a JAX scalar (traced or not), or a schedule count -> rate.
      b1, b2, eps, eps_root, epsilon_hat, moment_dtype: see `scale_by_adam`.
      amsgrad: divide by the largest second moment so far, see `scale_by_amsgrad`.
      weight_decay: rules that give l2 or (l1, l2), each >= 0: a number decays every leaf; {pattern: value}, a function
        (path, leaf) -> value or a tree of values decay by leaf. Its scale depends on `coupling`.
      coupling: what multiplies the decay. "schedule": eta_t, the paper's form. "learning_rate": alpha eta_t, the form
        of optax, PyTorch and Keras. "constant": nothing.
      normalize_decay: None; T, the updates of the run, for a decay times sqrt(1 / T); "cycle" for the current T_i.
      lr_multipliers: rules that give r >= 0 per leaf; 1 where no pattern matches. A leaf with r = 0 is frozen.
      multiplier_scales_decay: multiply the decay by r, too.
      schedule: eta_t: from `cosine_warm_restarts`, or any function count -> factor, or a number; None is 1.

    Returns:
      A transformation whose updates are to be added to the parameters (`optax.apply_updates`), in the gradients' shapes
      and dtypes. Its state holds scalars and trees like the parameters; no number changes its structure.

    Raises:
      ValueError, TypeError: an argument of another kind or out of range; a learning-rate schedule together with a
        decay under coupling="schedule", whose eta it would hide. Rules are held against the parameters by `init`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 2.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}
    >>> tx = adamw(0.1, weight_decay={"kernel": 0.5})
    >>> updates, state = tx.update({"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}, tx.init(params), params)
    >>> print(updates["kernel"], updates["bias"])
    [-0.6] [-0.1]
    """
    checks.check_flag("amsgrad", amsgrad)
    options: dict[str, Any] = {"epsilon_hat": epsilon_hat, "moment_dtype": moment_dtype}
    direction = (scale_by_amsgrad if amsgrad else scale_by_adam)(b1, b2, eps, eps_root, **options)
    return _Stages(
        learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule
    ).descend(direction)


def nadamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    momentum_decay: Scalar | None = 0.004,
    weight_decay: Rules = 0.0,
    coupling: str = "schedule",
    normalize_decay: Scalar | str | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    moment_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return NadamW: `adamw` with NAdam's direction.

    Args:
      b1, b2, eps, eps_root, momentum_decay, moment_dtype: see `scale_by_nadam`.
      learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule: see
        `adamw`.

    Returns, Raises: as `adamw`.

    Source: Dozat 2016 for the direction, within arXiv 1711.05101, Algorithm 2.

    >>> import jax.numpy as jnp
    >>> tx = nadamw(0.1)
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> print(updates.round(4))
    [-0.1056]
    """
    direction = scale_by_nadam(b1, b2, eps, eps_root, momentum_decay=momentum_decay, moment_dtype=moment_dtype)
    return _Stages(
        learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule
    ).descend(direction)


def sgdw(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    weight_decay: Rules = 0.0,
    coupling: str = "schedule",
    normalize_decay: Scalar | str | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    moment_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return SGDW: SGD with momentum and decoupled weight decay. The velocity accumulates steps, not gradients:

        v <- momentum v + alpha r eta_t g                                               line 8 of Algorithm 1
        theta <- theta - v - eta_t n (l1 sign(theta) + l2 theta)                        line 9

    Args:
      momentum, nesterov, moment_dtype: see `scale_by_momentum`.
      learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule: see
        `adamw`.

    Returns, Raises: as `adamw`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 1.

    >>> import jax.numpy as jnp
    >>> tx = sgdw(0.1, weight_decay=0.5)
    >>> params = jnp.array([1.0])
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(params), params)
    >>> print(updates)
    [-0.7]
    """
    stages = _Stages(
        learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule
    )
    velocity = scale_by_momentum(momentum, nesterov=nesterov, moment_dtype=moment_dtype)
    step = optax.chain(*stages.rates(), *stages.multiply(), velocity)
    scaled = stages.multiply() if multiplier_scales_decay else [optax.identity()]
    decay = optax.chain(optax.set_to_zero(), *stages.decay(), *scaled, *stages.after_decay())
    return stages.run(add_branches(step, decay))
