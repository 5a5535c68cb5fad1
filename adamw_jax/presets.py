"""AdamW, NadamW and SGDW: each a chain of stages on one screen."""

from typing import Any

import optax

from adamw_jax import checks
from adamw_jax.stages import Stages
from adamw_jax.transforms.adam import scale_by_adam
from adamw_jax.transforms.amsgrad import scale_by_amsgrad
from adamw_jax.transforms.coupling import Corrected, add_term
from adamw_jax.transforms.decay_forms import DecayForm
from adamw_jax.transforms.momentum import scale_by_momentum
from adamw_jax.transforms.nadam import scale_by_nadam
from adamw_jax.transforms.rates import scale_by_rates
from adamw_jax.typing import Mask, Rules, Scalar, ScalarOrSchedule


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
    coupling: str | Corrected = "schedule",
    normalize_decay: Scalar | str | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    decay: str | DecayForm = "decoupled",
    proximal_l1: Rules | None = None,
    freeze: Mask | None = None,
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
        of optax, PyTorch and Keras. "constant": nothing. "corrected": alpha eta_t, and (alpha eta_t)^2 / max(alpha eta)
        on layers that a normalization follows, see `Corrected`.
      normalize_decay: None; T, the updates of the run, for a decay times sqrt(1 / T); "cycle" for the current T_i.
      lr_multipliers: rules that give r >= 0 per leaf; 1 where no pattern matches. A leaf with r = 0 is frozen.
      multiplier_scales_decay: multiply the decay by r, too.
      schedule: eta_t: from `cosine_warm_restarts`, or any function count -> factor, or a number; None is 1.
      decay: its form, see the stages: "decoupled", "cautious", "anchored" (to the parameters given to `init`), or a
        `DecayForm` for those with arguments, as in DecayForm(add_huber_decay, delta=1.0).
      proximal_l1: rules for an l1 >= 0 per leaf that sets weights to exact zeros, see `soft_threshold`; None is none.
      freeze: the leaves that are not trained and have no moments, see `without_moments`; None trains all.

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
    return Stages(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        coupling=coupling,
        normalize_decay=normalize_decay,
        lr_multipliers=lr_multipliers,
        multiplier_scales_decay=multiplier_scales_decay,
        schedule=schedule,
        decay_form=decay,
        proximal_l1=proximal_l1,
        frozen=freeze,
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
    coupling: str | Corrected = "schedule",
    normalize_decay: Scalar | str | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    decay: str | DecayForm = "decoupled",
    proximal_l1: Rules | None = None,
    freeze: Mask | None = None,
    moment_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return NadamW: `adamw` with NAdam's direction.

    Args:
      b1, b2, eps, eps_root, momentum_decay, moment_dtype: see `scale_by_nadam`.
      learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule, decay,
        proximal_l1, freeze: see `adamw`.

    Returns, Raises: as `adamw`.

    Source: Dozat 2016 for the direction, within arXiv 1711.05101, Algorithm 2.

    >>> import jax.numpy as jnp
    >>> tx = nadamw(0.1)
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> print(updates.round(4))
    [-0.1056]
    """
    direction = scale_by_nadam(b1, b2, eps, eps_root, momentum_decay=momentum_decay, moment_dtype=moment_dtype)
    return Stages(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        coupling=coupling,
        normalize_decay=normalize_decay,
        lr_multipliers=lr_multipliers,
        multiplier_scales_decay=multiplier_scales_decay,
        schedule=schedule,
        decay_form=decay,
        proximal_l1=proximal_l1,
        frozen=freeze,
    ).descend(direction)


def sgdw(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    weight_decay: Rules = 0.0,
    coupling: str | Corrected = "schedule",
    normalize_decay: Scalar | str | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    decay: str | DecayForm = "decoupled",
    proximal_l1: Rules | None = None,
    freeze: Mask | None = None,
    moment_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return SGDW: SGD with momentum and decoupled weight decay. The velocity accumulates steps, not gradients:

        v <- momentum v + alpha r eta_t g                                               line 8 of Algorithm 1
        theta <- theta - v - eta_t n (l1 sign(theta) + l2 theta)                        line 9

    Args:
      momentum, nesterov, moment_dtype: see `scale_by_momentum`.
      learning_rate, weight_decay, coupling, normalize_decay, lr_multipliers, multiplier_scales_decay, schedule, decay,
        proximal_l1, freeze: see `adamw`.

    Returns, Raises: as `adamw`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 1.

    >>> import jax.numpy as jnp
    >>> tx = sgdw(0.1, weight_decay=0.5)
    >>> params = jnp.array([1.0])
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(params), params)
    >>> print(updates)
    [-0.7]
    """
    stages = Stages(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        coupling=coupling,
        normalize_decay=normalize_decay,
        lr_multipliers=lr_multipliers,
        multiplier_scales_decay=multiplier_scales_decay,
        schedule=schedule,
        decay_form=decay,
        proximal_l1=proximal_l1,
        frozen=freeze,
    )
    velocity = scale_by_momentum(momentum, nesterov=nesterov, moment_dtype=moment_dtype)
    scaled = stages.multiply() if multiplier_scales_decay else [optax.identity()]
    return stages.run(
        scale_by_rates(*stages.rates()),
        *stages.multiply(),
        stages.with_moments(velocity),
        add_term(*stages.decay(), *scaled, stages.after_decay()),
    )
