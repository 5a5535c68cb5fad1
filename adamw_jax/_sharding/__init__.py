"""Where state and parameters live on a mesh, and a report of it."""

from adamw_jax._sharding.host import with_host_state as with_host_state
from adamw_jax._sharding.placement import bytes_per_device as bytes_per_device, placement_report as placement_report
from adamw_jax._sharding.shardings import (
    fsdp_shardings as fsdp_shardings,
    init_sharded as init_sharded,
    state_shardings as state_shardings,
)
