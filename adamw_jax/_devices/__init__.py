"""Where a state lies: shardings, placement, the host's memory; a grid of runs as one program."""

from adamw_jax._devices.host import with_host_state as with_host_state
from adamw_jax._devices.placement import bytes_per_device as bytes_per_device, placement_report as placement_report
from adamw_jax._devices.shardings import (
    fsdp_shardings as fsdp_shardings,
    init_sharded as init_sharded,
    state_shardings as state_shardings,
)
from adamw_jax._devices.sweep import Sweep as Sweep, sweep as sweep
