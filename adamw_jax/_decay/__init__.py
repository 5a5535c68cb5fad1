"""c n r' (l1, l2): the decay's own factor, its forms, the soft threshold, conversions."""

from adamw_jax._decay.convert import convert_decay as convert_decay
from adamw_jax._decay.coupling import Corrected as Corrected
from adamw_jax._decay.decay import add_decoupled_decay as add_decoupled_decay
from adamw_jax._decay.factor import DecayFactor as DecayFactor
from adamw_jax._decay.forms import (
    Anchored as Anchored,
    AnchoredDecayState as AnchoredDecayState,
    Cautious as Cautious,
    Huber as Huber,
)
from adamw_jax._decay.held import Brake as Brake, Floor as Floor, Held as Held
from adamw_jax._decay.norms import HoldNormState as HoldNormState, hold_norm as hold_norm
from adamw_jax._decay.proximal import soft_threshold as soft_threshold
