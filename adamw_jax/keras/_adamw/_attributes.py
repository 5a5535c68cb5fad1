"""What can be read from the optimizers and what can be set afterwards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from adamw_jax._tree import checks
from adamw_jax.keras._adamw._rules import WeightRules
from adamw_jax.keras._adapter import OptaxOptimizer
from adamw_jax.keras._hyperparameters import Hyperparameter, hyperparameter, position

_RULES = ("weight_decays", "lr_multipliers")


@dataclass(frozen=True)
class Hyperparameters:
    """The Variables that users set; `total_iterations` is None where no cycle would read it."""

    t_cur: Hyperparameter
    eta_t: Hyperparameter
    eta_min: Hyperparameter
    eta_max: Hyperparameter
    total_iterations: Hyperparameter | None


class ReadableOptimizer(OptaxOptimizer):
    """An optimizer whose arguments are its attributes: hyperparameters can be set, options refuse."""

    settable = ("learning_rate", "lr", "total_iterations")
    _function: Callable[..., optax.GradientTransformation]
    """The preset."""
    _own_names: Mapping[str, str]
    """{option of the class: argument of the preset}."""
    _options: Mapping[str, Any]
    _hyper: Hyperparameters
    _rules: WeightRules
    _excludes = True
    _decays_are_in = "use `weight_decays` or `model` when the optimizer is made"

    t_cur = hyperparameter(
        "t_cur", position, "Position of the next update in its cycle; -1 restarts after the next update."
    )
    eta_t = hyperparameter(
        "eta_t", checks.check_non_negative, "Factor of the next update; computed anew from t_cur after each."
    )
    eta_min = hyperparameter(
        "eta_min", checks.check_non_negative, "Smallest factor, from the next computation of eta_t on."
    )
    eta_max = hyperparameter(
        "eta_max", checks.check_non_negative, "Largest factor, from the next computation of eta_t on."
    )

    @property
    def lr(self) -> Any:
        """The learning rate, as keras-adamw calls it."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self.learning_rate = value

    @property
    def total_iterations(self) -> int:
        """T, updates of the cycles that begin from now on; the decay stays normalized as it was."""
        settable = self._hyper.total_iterations
        return int(self._options["total_iterations"] if settable is None else settable)

    @total_iterations.setter
    def total_iterations(self, value: Any) -> None:
        if self._hyper.total_iterations is None:
            raise ValueError(
                "`total_iterations` can be set under `use_cosine_annealing=True` with `t_mult=1`, where the next cycle "
                f"takes it: make a new optimizer instead. Received: total_iterations={value}"
            )
        self._hyper.total_iterations.assign(checks.check_count("total_iterations", value, low=2))

    @property
    def weight_decays(self) -> Any:
        """The decays as given; those of a model by path, as soon as they are read."""
        return self._rules.given("weight_decays")

    @property
    def lr_multipliers(self) -> Any:
        """The multipliers as given."""
        return self._rules.given("lr_multipliers")

    def __getattr__(self, name: str) -> Any:
        """Return an option."""
        kept = self.__dict__.get("_options")
        if kept is None or name not in kept:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return kept[name]

    def __setattr__(self, name: str, value: Any) -> None:
        kept = self.__dict__.get("_options")
        fixed = name in _RULES or (name != "total_iterations" and kept is not None and name in kept)
        if fixed:
            raise ValueError(
                f"`{name}` cannot be set: it is fixed when the optimizer is made. Make a new one, e.g. by "
                f"{type(self).__name__}.from_config(optimizer.get_config() | {{{name!r}: ...}}), and compile the model "
                f"with it. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)

    def _refuse_unread(self, name: str, value: Any) -> None:
        if name in ("eta_min", "eta_max") and not self.use_cosine_annealing:
            raise ValueError(
                f"`{name}` can be set under `use_cosine_annealing=True` with total_iterations > 1; without, set "
                f"`eta_t`. Received: {name}={value}"
            )

    @property
    def lr_t(self) -> Any:
        """lr c_t eta: the latest update's rate and bias correction with the factor of the next, as in keras-adamw.

        c_t is sqrt(1 - beta_2^t) / (1 - beta_1^t) in AdamW and 1 elsewhere. The layers' multipliers are left out.
        """
        latest = jnp.maximum(self.iterations - 1, 0)
        return self._rate(jnp.asarray(self.learning_rate), latest) * self._correction(latest + 1) * self.eta_t.value

    def _correction(self, count: Any) -> Any:
        return 1.0

    def _rate(self, learning_rate: Any, iterations: Any) -> Any:
        decay = self.decay
        return learning_rate / (1 + decay * iterations) if decay else learning_rate
