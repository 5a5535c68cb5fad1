"""How moments are stored: formats, rounding, the loop that loads and stores them, conversions."""

from adamw_jax._storage.carry import carry_over as carry_over
from adamw_jax._storage.convert import (
    convert_moments as convert_moments,
    from_optax_adam as from_optax_adam,
    read_moments as read_moments,
)
from adamw_jax._storage.loop import PackedMomentsState as PackedMomentsState
from adamw_jax._storage.params import round_to_params as round_to_params
