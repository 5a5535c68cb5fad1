"""alpha and eta: the owners of the learning rate and of the schedule's position, schedules, moves of the position."""

from adamw_jax._rates.moves import reschedule as reschedule, restart as restart, set_position as set_position
from adamw_jax._rates.owner import (
    LearningRateState as LearningRateState,
    ScheduleState as ScheduleState,
    with_learning_rate as with_learning_rate,
    with_schedule as with_schedule,
)
from adamw_jax._rates.readout import Current as Current, current as current
from adamw_jax._rates.restarts import cosine_warm_restarts as cosine_warm_restarts
from adamw_jax._rates.scale import scale_by_rates as scale_by_rates
from adamw_jax._rates.shapes import (
    cosine as cosine,
    linear as linear,
    linear_warmup as linear_warmup,
    warmup_stable_decay as warmup_stable_decay,
)
