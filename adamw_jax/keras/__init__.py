"""adamw_jax for Keras 3 on JAX: any optax transformation in `Model.fit`, and keras-adamw's three classes."""

from adamw_jax.keras._backend import require_jax

require_jax()

from adamw_jax.keras._adamw import (
    SGDW as SGDW,
    AdamW as AdamW,
    DecoupledOptimizer as DecoupledOptimizer,
    NadamW as NadamW,
    fill_dict_in_order as fill_dict_in_order,
    get_weight_decays as get_weight_decays,
    restore_penalties as restore_penalties,
)
from adamw_jax.keras._adapter import OptaxOptimizer as OptaxOptimizer
from adamw_jax.keras._averages import (
    SwapAveragedWeights as SwapAveragedWeights,
    averaged_weights as averaged_weights,
)
from adamw_jax.keras._callbacks import HyperparameterSetter as HyperparameterSetter, RateLogger as RateLogger
from adamw_jax.keras._step_logger import StepLogger as StepLogger
