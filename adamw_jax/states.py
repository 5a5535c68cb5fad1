"""The types of the states, for those who look into one: every field is a scalar, or a tree like the parameters."""

from adamw_jax._decay import AnchoredDecayState as AnchoredDecayState, HoldNormState as HoldNormState
from adamw_jax._direction import (
    NarrowState as NarrowState,
    NarrowTraceState as NarrowTraceState,
    PackedAmsgradState as PackedAmsgradState,
    PackedNadamState as PackedNadamState,
    ScaleByMuonState as ScaleByMuonState,
    ScaleByNadamState as ScaleByNadamState,
)
from adamw_jax._optimizer import (
    AverageState as AverageState,
    ObserveState as ObserveState,
    SkipSpikesState as SkipSpikesState,
)
from adamw_jax._rates import LearningRateState as LearningRateState, ScheduleState as ScheduleState
from adamw_jax._storage import PackedMomentsState as PackedMomentsState
