"""Weight decay done right for JAX and Keras 3: AdamW, NadamW and SGDW from small transforms in optax's protocol.

Names in the order of the pipeline: gradients -> direction -> alpha -> multipliers -> decay -> eta -> -1 -> updates.
"""

from adamw_jax._host import with_host_state as with_host_state
from adamw_jax.converters import convert_decay as convert_decay
from adamw_jax.explain import explain as explain
from adamw_jax.explaining.explanation import Explanation as Explanation
from adamw_jax.layers import (
    group_multipliers as group_multipliers,
    layerwise_multipliers as layerwise_multipliers,
    width_multipliers as width_multipliers,
)
from adamw_jax.paths import leaf_paths as leaf_paths, values_by_label as values_by_label
from adamw_jax.placement import bytes_per_device as bytes_per_device, placement_report as placement_report
from adamw_jax.presets import adamw as adamw, nadamw as nadamw, sgdw as sgdw
from adamw_jax.schedules import cosine_warm_restarts as cosine_warm_restarts, normalized_decay as normalized_decay
from adamw_jax.sharding import (
    fsdp_shardings as fsdp_shardings,
    init_sharded as init_sharded,
    state_shardings as state_shardings,
)
from adamw_jax.sweep import Sweep as Sweep, sweep as sweep
from adamw_jax.transforms.adam import scale_by_adam as scale_by_adam
from adamw_jax.transforms.amsgrad import (
    PackedAmsgradState as PackedAmsgradState,
    scale_by_amsgrad as scale_by_amsgrad,
)
from adamw_jax.transforms.coupling import (
    Corrected as Corrected,
    add_term as add_term,
    scale_by_correction as scale_by_correction,
)
from adamw_jax.transforms.current import Current as Current, current as current
from adamw_jax.transforms.decay import add_decoupled_decay as add_decoupled_decay
from adamw_jax.transforms.decay_forms import DecayForm as DecayForm
from adamw_jax.transforms.decay_variants import (
    AnchoredDecayState as AnchoredDecayState,
    add_anchored_decay as add_anchored_decay,
    add_cautious_decay as add_cautious_decay,
    add_huber_decay as add_huber_decay,
)
from adamw_jax.transforms.freezing import freeze_where as freeze_where, without_moments as without_moments
from adamw_jax.transforms.momentum import (
    NarrowTraceState as NarrowTraceState,
    scale_by_momentum as scale_by_momentum,
)
from adamw_jax.transforms.multipliers import (
    freeze_where_zero as freeze_where_zero,
    scale_by_multipliers as scale_by_multipliers,
)
from adamw_jax.transforms.nadam import (
    PackedNadamState as PackedNadamState,
    ScaleByNadamState as ScaleByNadamState,
    scale_by_nadam as scale_by_nadam,
)
from adamw_jax.transforms.packed import (
    PackedMomentsState as PackedMomentsState,
    read_moments as read_moments,
    unpack as unpack,
)
from adamw_jax.transforms.position import (
    current_eta as current_eta,
    restart as restart,
    set_position as set_position,
)
from adamw_jax.transforms.proximal import soft_threshold as soft_threshold
from adamw_jax.transforms.rates import (
    LearningRateState as LearningRateState,
    scale_by_alpha as scale_by_alpha,
    with_learning_rate as with_learning_rate,
)
from adamw_jax.transforms.restarts import (
    WarmRestartsState as WarmRestartsState,
    scale_by_eta as scale_by_eta,
    scale_by_warm_restarts as scale_by_warm_restarts,
    with_warm_restarts as with_warm_restarts,
)
from adamw_jax.transforms.rounding import apply_updates as apply_updates
from adamw_jax.warmup import linear_warmup as linear_warmup, warmup_stable_decay as warmup_stable_decay

__version__ = "0.1.0"
