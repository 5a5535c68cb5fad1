"""AdamW, NadamW and SGDW for `keras.Model`, with keras-adamw's arguments."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import keras

from adamw_jax._optimizer import presets
from adamw_jax.keras._adamw._decoupled import DecoupledOptimizer

_register = keras.saving.register_keras_serializable(package="adamw_jax")


@_register
class AdamW(DecoupledOptimizer):
    """AdamW: the step d = sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon).

    Args:
      learning_rate: see `DecoupledOptimizer`.
      beta_1: decay rate of the first moment m, in [0, 1).
      beta_2: decay rate of the second moment v, in [0, 1).
      epsilon: added to the root of the uncorrected v, > 0; None means `keras.backend.epsilon()`.
      amsgrad: whether to divide by the root of the largest v so far.
      name: name of the optimizer; None for a new one.
      **options: the other arguments of `DecoupledOptimizer`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 2, with the epsilon of Keras and the arguments of
    keras-adamw 1.38.

    >>> dense = keras.layers.Dense(1, kernel_regularizer="l2")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> optimizer = AdamW(model=model, total_iterations=24, use_cosine_annealing=True, init_verbose=False)
    >>> model.compile(optimizer, loss="mse")
    >>> int(optimizer.t_cur), float(optimizer.eta_t)
    (0, 1.0)
    """

    _function = staticmethod(partial(presets.adamw, epsilon_hat=True))
    _own_names: Mapping[str, str] = {"beta_1": "b1", "beta_2": "b2", "epsilon": "eps", "amsgrad": "amsgrad"}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = None,
        *,
        amsgrad: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> None:
        own = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "amsgrad": amsgrad}
        super().__init__(learning_rate, own, name=name, **options)

    def _correction(self, count: Any) -> Any:
        return jnp.sqrt(1 - self.beta_2**count) / (1 - self.beta_1**count)


@_register
class NadamW(DecoupledOptimizer):
    """NadamW: AdamW with Dozat's Nesterov momentum, mu_t = beta_1 (1 - 0.96^(t schedule_decay) / 2).

    Args:
      learning_rate: see `DecoupledOptimizer`.
      beta_1: the limit of mu_t, in [0, 1).
      beta_2: decay rate of the second moment, in [0, 1).
      epsilon: added to the root of the corrected second moment, > 0; None means `keras.backend.epsilon()`.
      schedule_decay: psi, how fast mu_t approaches beta_1; `keras.optimizers.Nadam` has 1.
      name: name of the optimizer; None for a new one.
      **options: the other arguments of `DecoupledOptimizer`.

    Source: Dozat 2016, as in keras-adamw's `optimizers.py` and in torch.optim.NAdam.
    """

    _function = staticmethod(presets.nadamw)
    _own_names: Mapping[str, str] = {
        "beta_1": "b1",
        "beta_2": "b2",
        "epsilon": "eps",
        "schedule_decay": "momentum_decay",
    }

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = None,
        *,
        schedule_decay: float = 0.004,
        name: str | None = None,
        **options: Any,
    ) -> None:
        own = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "schedule_decay": schedule_decay}
        super().__init__(learning_rate, own, name=name, **options)


@_register
class SGDW(DecoupledOptimizer):
    """SGDW: v <- momentum v + eta_t lr g; theta <- theta - r v - decay, with Nesterov momentum v + eta_t lr g for v.

    Args:
      learning_rate: see `DecoupledOptimizer`.
      momentum: share of the velocity that is kept, in [0, 1).
      nesterov: whether to look ahead by one more step of the velocity.
      name: name of the optimizer; None for a new one.
      **options: the other arguments of `DecoupledOptimizer`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithm 1, with the arguments of keras-adamw 1.38.
    """

    _function = staticmethod(presets.sgdw)
    _own_names: Mapping[str, str] = {"momentum": "momentum", "nesterov": "nesterov"}

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, {"momentum": momentum, "nesterov": nesterov}, name=name, **options)
