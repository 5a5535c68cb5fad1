"""Weight decay done right for JAX and Keras 3: decoupled decay for any direction, from small transforms in optax's way.

Names in the order of the formula: theta <- theta - (alpha eta r d + c n r' (l1 sign(theta) + l2 theta)).
"""

from adamw_jax import states as states
from adamw_jax._decay import (
    Anchored as Anchored,
    Brake as Brake,
    Cautious as Cautious,
    Corrected as Corrected,
    DecayFactor as DecayFactor,
    Floor as Floor,
    Held as Held,
    Huber as Huber,
    add_decoupled_decay as add_decoupled_decay,
    convert_decay as convert_decay,
    hold_norm as hold_norm,
    soft_threshold as soft_threshold,
)
from adamw_jax._devices import (
    Sweep as Sweep,
    bytes_per_device as bytes_per_device,
    fsdp_shardings as fsdp_shardings,
    init_sharded as init_sharded,
    placement_report as placement_report,
    state_shardings as state_shardings,
    sweep as sweep,
    with_host_state as with_host_state,
)
from adamw_jax._direction import (
    orthogonalize as orthogonalize,
    scale_by_adam as scale_by_adam,
    scale_by_amsgrad as scale_by_amsgrad,
    scale_by_momentum as scale_by_momentum,
    scale_by_muon as scale_by_muon,
    scale_by_nadam as scale_by_nadam,
    with_narrow_state as with_narrow_state,
)
from adamw_jax._explain import (
    Explanation as Explanation,
    Intervention as Intervention,
    Report as Report,
    explain as explain,
    intervene as intervene,
    report as report,
    scale_invariant as scale_invariant,
)
from adamw_jax._optimizer import (
    CycleMean as CycleMean,
    DecayMerge as DecayMerge,
    Ema as Ema,
    Run as Run,
    Transferred as Transferred,
    adamw as adamw,
    averaged as averaged,
    decoupled as decoupled,
    nadamw as nadamw,
    observe as observe,
    sgdw as sgdw,
    skip_spikes as skip_spikes,
    transfer as transfer,
    with_average as with_average,
)
from adamw_jax._optimizer.options import where_is as _where_is
from adamw_jax._rates import (
    Current as Current,
    cosine as cosine,
    cosine_warm_restarts as cosine_warm_restarts,
    current as current,
    linear as linear,
    linear_warmup as linear_warmup,
    reschedule as reschedule,
    restart as restart,
    scale_by_rates as scale_by_rates,
    set_position as set_position,
    warmup_stable_decay as warmup_stable_decay,
    with_learning_rate as with_learning_rate,
    with_schedule as with_schedule,
)
from adamw_jax._rules import (
    Rule as Rule,
    freeze_where as freeze_where,
    layerwise_multipliers as layerwise_multipliers,
    leaf_paths as leaf_paths,
    matrices as matrices,
    scale_by_multipliers as scale_by_multipliers,
    width_multipliers as width_multipliers,
    without_moments as without_moments,
)
from adamw_jax._storage import (
    carry_over as carry_over,
    convert_moments as convert_moments,
    from_optax_adam as from_optax_adam,
    read_moments as read_moments,
    round_to_params as round_to_params,
)

__version__ = "0.3.0.dev0"


def _no_attribute(name: str) -> None:
    """Say where a thing of that name is, or which names are like it."""
    raise AttributeError(_where_is(name, [known for known in globals() if not known.startswith("_")]), name=name)


globals().update(__getattr__=_no_attribute)
# Set by its name: a type checker takes a __getattr__ that it sees for a promise of any other name.
