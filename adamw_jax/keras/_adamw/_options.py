"""The options of keras-adamw's classes: how each is checked, and what follows from the others."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import keras

from adamw_jax._decay.coupling import Constant, LearningRate, Schedule
from adamw_jax._storage.formats import storage_of
from adamw_jax._tree import checks


def _share(name: str, value: Any) -> float:
    return float(checks.check_number(name, value, low=0, high=1, open_high=True))


def _non_negative(name: str, value: Any) -> float:
    return float(checks.check_non_negative(name, value))


def _epsilon(name: str, value: Any) -> float:
    value = keras.backend.epsilon() if value is None else value
    return float(checks.check_number(name, value, low=0, open_low=True))


def _t_mult(name: str, value: Any) -> int | float:
    checks.check_number(name, value, low=0, open_low=True)
    return value if isinstance(value, int) else float(value)


def _moment_dtype(name: str, value: Any) -> str | None:
    storage_of(name, value)
    return value if value is None or isinstance(value, str) else str(jnp.dtype(value).name)


def _count(name: str, value: Any) -> int:
    return int(checks.check_count(name, value or 0, low=0))


def _coupling(name: str, value: Any) -> Any:
    return checks.check_choice(name, value, [each.name for each in (LearningRate, Schedule, Constant)])


_flag: Callable[[str, Any], Any] = checks.check_flag

SHARED: dict[str, Any] = {
    "decay": 0.0,
    "zero_penalties": True,
    "total_iterations": None,
    "total_iterations_wd": None,
    "use_cosine_annealing": False,
    "autorestart": None,
    "t_mult": 1,
    "coupling": "schedule",
    "moment_dtype": None,
    "init_verbose": True,
}
"""The options that all three classes have, with their defaults."""

_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "beta_1": _share,
    "beta_2": _share,
    "momentum": _share,
    "epsilon": _epsilon,
    "schedule_decay": _non_negative,
    "decay": _non_negative,
    "t_mult": _t_mult,
    "coupling": _coupling,
    "moment_dtype": _moment_dtype,
    "total_iterations": _count,
    "total_iterations_wd": _count,
}
"""Of the options that are no flags."""


def checked_options(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a class, checked; see `DecoupledOptimizer` for what they mean.

    Args:
      given: all of them.

    Raises:
      ValueError, TypeError: a value outside its range or of another kind, `autorestart` without annealing.
    """
    annealed, restarts = given["use_cosine_annealing"], given["autorestart"]
    given = {**given, "autorestart": annealed if restarts is None else restarts}
    options = {name: _CHECKS.get(name, _flag)(name, value) for name, value in given.items()}
    if options["autorestart"] and not options["use_cosine_annealing"]:
        raise ValueError("`autorestart` needs `use_cosine_annealing=True`. Received: autorestart=True")
    total = options["total_iterations"]
    # With one update there is nothing to anneal over.
    follows = {name: options[name] and total > 1 for name in ("use_cosine_annealing", "autorestart")}
    return MappingProxyType(options | follows | {"total_iterations_wd": options["total_iterations_wd"] or total})
