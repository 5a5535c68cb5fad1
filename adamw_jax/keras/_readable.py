"""An optimizer's transformation and state, as others read them; the average of the weights in the place of them."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.averaged import averaged
from adamw_jax.keras._rates import RATE
from adamw_jax.keras._saving import LoadableOptimizer
from adamw_jax.keras._slots import Trained
from adamw_jax.keras._source import Source


class ReadableState(LoadableOptimizer):
    """An optimizer with a transformation at the current rate, and its state."""

    _source: Source
    _trained: Trained | None = None
    _kept: Any = None
    """The weights, while their average is in their place, and the iterations when it came there."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of `tx`, as given."""
        return {} if self._source.options is None else dict(self._source.options.given)

    def _decay_given(self) -> Any:
        return self.options.get("weight_decay")

    def _transformation(self, learning_rate: Any) -> optax.GradientTransformation:
        factor = None if self._decay_factor is None else self._decay_factor.value
        return self._source.transformation(learning_rate, factor)

    def _given(self, rate: jax.Array) -> dict[str, Any]:
        """Return the values of the leaves that are given at every update."""
        return {RATE: rate}

    def _fitting(self) -> Trained:
        if self._trained is None:
            raise ValueError(
                f"the optimizer {self.name!r} comes from a configuration that does not fit the "
                f"{len(self._trainable_variables)} variables of this model. To train it, call `model.compile` with a "
                f"new optimizer. What does not fit: {self._unfit}"
            )
        return self._trained

    def _built(self, variables: Sequence[Any] | None = None) -> Trained:
        if not self.built:
            if variables is None:
                raise ValueError(f"the optimizer {self.name!r} is not built: give the trainable variables of the model")
            self.build(list(variables))
        return self._fitting()

    def as_optax(self, variables: Sequence[Any] | None = None) -> tuple[optax.GradientTransformation, dict[str, Any]]:
        """Return the transformation at the current learning rate, and its parameters by path: `explain` reads them.

        Args:
          variables: the trainable variables, for which an optimizer is built that is not built yet.

        Raises:
          ValueError: an optimizer that is not built, without variables.
        """
        trained = self._built(variables)
        return self._transformation(jnp.asarray(self._get_current_learning_rate())), trained.parameters()

    def optax_state(self, variables: Sequence[Any] | None = None) -> Any:
        """Return the state as the transformation has it: `adamw_jax.current`, `report` and `averaged` read it.

        Args:
          variables: as in `as_optax`.
        """
        trained = self._built(variables)
        return trained.slots.read(trained.values(self._given(jnp.asarray(self._get_current_learning_rate()))))

    def set_optax_state(self, state: Any) -> None:
        """Take a state, such as `adamw_jax.restart(optimizer.optax_state())` returns."""
        trained = self._built()
        trained.slots.write(state, {id(variable) for variable in trained.variables}, self.assign)

    def swap_in_average(self, missing: str) -> bool:
        """Put the average into the variables, in buffers of its own; return whether it was not there already.

        Args:
          missing: as in `adamw_jax.averaged`.
        """
        if self._kept is not None:
            return False
        trained = self._fitting()
        parameters = trained.parameters()
        average = averaged(self.optax_state(), parameters, missing=missing)
        self._kept = (int(self.iterations), parameters)
        try:
            for key, variable in zip(trained.keys, trained.variables, strict=True):
                variable.assign(jnp.array(average[key], copy=True))
        except BaseException:
            self.swap_back()
            raise
        return True

    def swap_back(self) -> None:
        """Put the weights back, if their average is in their place."""
        if self._kept is None:
            return
        (count, parameters), self._kept = self._kept, None
        if count != int(self.iterations):
            warnings.warn(
                "an evaluation with the average of the weights was cut short, and training went on from the average: "
                "the weights before it are left out",
                stacklevel=2,
            )
            return
        trained = self._fitting()
        for key, variable in zip(trained.keys, trained.variables, strict=True):
            variable.assign(parameters[key])

    def finalize_variable_values(self, var_list: Any) -> None:
        """End training: put the weights back, where an evaluation with their average was cut short."""
        self.swap_back()
        super().finalize_variable_values(var_list)
        if self.use_ema:
            # Keras hands out its average's own buffers, which another `fit` would donate twice.
            for variable in var_list:
                variable.assign(jnp.array(variable.value, copy=True))
