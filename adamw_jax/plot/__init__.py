"""Pictures of schedules, sweeps and training histories (matplotlib, the extra `plot`)."""

from importlib.util import find_spec as _find_spec

if _find_spec("matplotlib") is None:
    raise ImportError("adamw_jax.plot needs matplotlib: pip install matplotlib")

from adamw_jax.plot._curves import history as history, schedule as schedule
from adamw_jax.plot._maps import heat_map as heat_map, steps as steps
