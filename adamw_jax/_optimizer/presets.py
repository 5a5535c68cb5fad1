"""AdamW, NadamW and SGDW: each a direction, given to `decoupled`."""

from typing import Any

from typing_extensions import Unpack

from adamw_jax._direction import scale_by_adam, scale_by_amsgrad, scale_by_momentum, scale_by_nadam
from adamw_jax._optimizer.chain import decoupled
from adamw_jax._optimizer.optimizer import Optimizer
from adamw_jax._optimizer.options import Options, with_options_of
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Rules, Scalar, ScalarOrSchedule


@with_options_of(decoupled)
def adamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Rules = 1e-8,
    eps_root: Rules = 0.0,
    epsilon_hat: bool = False,
    amsgrad: bool = False,
    moment_dtype: Any = None,
    **options: Unpack[Options],
) -> Optimizer:
    """Return AdamW: Adam with decoupled weight decay, warm restarts and per-leaf rates.

        d = Adam's direction                            lines 5 to 10 of Algorithm 2
        theta <- theta - eta_t (alpha r d + n (l1 sign(theta) + l2 theta))            lines 11 and 12

    Args:
      b1, b2, eps, eps_root, epsilon_hat, moment_dtype: see `scale_by_adam`.
      amsgrad: divide by the largest second moment so far, see `scale_by_amsgrad`.
      learning_rate, **options: see `decoupled`.

    Returns, Raises: as `decoupled`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 2.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}
    >>> tx = adamw(0.1, weight_decay={"kernel": 0.5})
    >>> updates, state = tx.update({"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}, tx.init(params), params)
    >>> print(updates["kernel"], updates["bias"])
    [-0.6] [-0.1]
    """
    maker = scale_by_amsgrad if checks.check_flag("amsgrad", amsgrad) else scale_by_adam
    return decoupled(
        maker(b1, b2, eps, eps_root, epsilon_hat=epsilon_hat, moment_dtype=moment_dtype),
        learning_rate,
        **options,
    )


@with_options_of(decoupled)
def nadamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Rules = 1e-8,
    eps_root: Rules = 0.0,
    momentum_decay: Scalar | None = 0.004,
    moment_dtype: Any = None,
    **options: Unpack[Options],
) -> Optimizer:
    """Return NadamW: `adamw` with NAdam's direction.

    Args:
      b1, b2, eps, eps_root, momentum_decay, moment_dtype: see `scale_by_nadam`.
      learning_rate, **options: see `decoupled`.

    Returns, Raises: as `decoupled`.

    Source: Dozat 2016 for the direction, within arXiv 1711.05101, Algorithm 2.

    >>> import jax.numpy as jnp
    >>> tx = nadamw(0.1)
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> print(updates.round(4))
    [-0.1056]
    """
    return decoupled(
        scale_by_nadam(b1, b2, eps, eps_root, momentum_decay=momentum_decay, moment_dtype=moment_dtype),
        learning_rate,
        **options,
    )


@with_options_of(decoupled)
def sgdw(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    moment_dtype: Any = None,
    **options: Unpack[Options],
) -> Optimizer:
    """Return SGDW: SGD with momentum and decoupled weight decay. The velocity accumulates steps, not gradients:

        v <- momentum v + alpha eta_t g                                                 line 8 of Algorithm 1
        theta <- theta - r v - eta_t n (l1 sign(theta) + l2 theta)                      line 9

    The multiplier r scales the velocity when it is applied, not when it accumulates, so leaves with r = 0 keep a valid
    velocity.

    Args:
      momentum, nesterov, moment_dtype: see `scale_by_momentum`.
      learning_rate, **options: see `decoupled`.

    Returns, Raises: as `decoupled`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 1.

    >>> import jax.numpy as jnp
    >>> tx = sgdw(0.1, weight_decay=0.5)
    >>> params = jnp.array([1.0])
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(params), params)
    >>> print(updates)
    [-0.7]
    """
    return decoupled(
        scale_by_momentum(momentum, nesterov=nesterov, moment_dtype=moment_dtype),
        learning_rate,
        **options,
        accumulate="steps",
    )
