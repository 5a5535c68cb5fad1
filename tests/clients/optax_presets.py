"""This library's presets under the names and signatures that optax's own tests ask its modules for."""

from typing import Any

import optax
from optax._src import alias as optax_alias, transform as optax_transform

import adamw_jax as aj


class Module:
    """A module of optax in which some functions are this library's."""

    def __init__(self, module: Any, **functions: Any):
        self.__dict__.update(functions, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None):
    return aj.adamw(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, moment_dtype=mu_dtype)


def adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, weight_decay=1e-4):
    return aj.adamw(
        learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, moment_dtype=mu_dtype, weight_decay=weight_decay,
        coupling="learning_rate",
    )  # fmt: skip


def nadamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, weight_decay=1e-4):
    return aj.nadamw(
        learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, momentum_decay=None, weight_decay=weight_decay,
        coupling="learning_rate",
    )  # fmt: skip


def sgd(learning_rate, momentum=0.0, nesterov=False, accumulator_dtype=None):
    return aj.sgdw(learning_rate, momentum=momentum, nesterov=nesterov, moment_dtype=accumulator_dtype)


def amsgrad(learning_rate):
    return aj.adamw(learning_rate, amsgrad=True)


def packed(learning_rate):
    return aj.adamw(learning_rate, moment_dtype="packed")


def by_path(learning_rate):
    return aj.decoupled({"": optax.scale_by_adam()}, learning_rate, weight_decay=1e-4, coupling="learning_rate")


def scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None):
    return aj.scale_by_adam(b1, b2, eps, eps_root, moment_dtype=mu_dtype)


RATES = {"adam": 0.1, "adamw": 0.1, "nadamw": 0.01, "sgd": 1e-3, "amsgrad": 0.1, "packed": 0.1, "by_path": 0.1}
FUNCTIONS = {name: globals()[name] for name in RATES}
alias = Module(optax_alias, **FUNCTIONS)
transform = Module(optax_transform, scale_by_adam=scale_by_adam)

ENTRIES = tuple(
    {"opt_name": name, "opt_kwargs": {"learning_rate": rate} | ({"momentum": 0.9} if name == "sgd" else {})}
    for name, rate in RATES.items()
)
"""What optax's tests of its aliases run over."""

OPTIMIZERS = {name: make(1.0) for name, make in FUNCTIONS.items()}
"""What its tests of shardings run over."""

WRAPPED = [
    ("mechanize", 1e-1, {"weight_decay": 0.0}),
    ("schedule_free", 1e-2, {"learning_rate": 1e-2}),
    ("reduce_on_plateau", 1e-3, {}),
]
CONTRIB = (
    *(entry | {"wrapper_name": None, "wrapper_kwargs": None} for entry in ENTRIES),
    *(
        {
            "opt_name": "sgd",
            "opt_kwargs": {"learning_rate": rate},
            "wrapper_name": wrapper,
            "wrapper_kwargs": options,
        }
        for wrapper, rate, options in WRAPPED
    ),
)
"""What its common tests of `optax.contrib` run over."""
