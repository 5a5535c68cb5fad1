"""keras-adamw's dialect: its three classes, with its arguments, names and penalties."""

from adamw_jax.keras._adamw._decays import (
    fill_dict_in_order as fill_dict_in_order,
    get_weight_decays as get_weight_decays,
)
from adamw_jax.keras._adamw._decoupled import DecoupledOptimizer as DecoupledOptimizer
from adamw_jax.keras._adamw._optimizers import SGDW as SGDW, AdamW as AdamW, NadamW as NadamW
from adamw_jax.keras._adamw._penalties import restore_penalties as restore_penalties
