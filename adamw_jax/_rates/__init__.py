"""alpha and eta: the owner of the learning rate, the owner of the schedule and its position, schedules."""

from adamw_jax._rates.moves import reschedule as reschedule, restart as restart, set_position as set_position
from adamw_jax._rates.owner import (
    LearningRateState as LearningRateState,
    scale_by_alpha as scale_by_alpha,
    with_learning_rate as with_learning_rate,
)
from adamw_jax._rates.reading import Current as Current, current as current
from adamw_jax._rates.schedule import (
    WarmRestartsState as WarmRestartsState,
    scale_by_eta as scale_by_eta,
    scale_by_warm_restarts as scale_by_warm_restarts,
    with_warm_restarts as with_warm_restarts,
)
from adamw_jax._rates.shapes import (
    cosine_warm_restarts as cosine_warm_restarts,
    linear_warmup as linear_warmup,
    warmup_stable_decay as warmup_stable_decay,
)
