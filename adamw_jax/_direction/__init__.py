"""d: Adam, AMSGrad, NAdam, momentum, Muon; a direction per path; narrow storage for other packages' directions."""

from adamw_jax._direction.adam import scale_by_adam as scale_by_adam
from adamw_jax._direction.amsgrad import PackedAmsgradState as PackedAmsgradState, scale_by_amsgrad as scale_by_amsgrad
from adamw_jax._direction.momentum import NarrowTraceState as NarrowTraceState, scale_by_momentum as scale_by_momentum
from adamw_jax._direction.muon import ScaleByMuonState as ScaleByMuonState, scale_by_muon as scale_by_muon
from adamw_jax._direction.nadam import (
    PackedNadamState as PackedNadamState,
    ScaleByNadamState as ScaleByNadamState,
    scale_by_nadam as scale_by_nadam,
)
from adamw_jax._direction.narrow import NarrowState as NarrowState, with_narrow_state as with_narrow_state
from adamw_jax._direction.orthogonalize import orthogonalize as orthogonalize
