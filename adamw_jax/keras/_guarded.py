"""What may be set on an optimizer, so that nothing is set in vain, and what is set is copied."""

from typing import Any

import keras

from adamw_jax.keras._hyperparameters import copied


class GuardedOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose decay is its own, and whose hyperparameters keep their buffers."""

    _rate_refused = False
    _decays_are_in = "the decay is in `tx`, e.g. optax.adamw(rate, weight_decay=...)"

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras would track a Variable, and a step delete a JAX array, that is given to a hyperparameter.
        of_property = isinstance(getattr(type(self), name, None), property)
        super().__setattr__(name, copied(value) if of_property else value)

    @property
    def learning_rate(self) -> Any:
        """The rate; NaN where `tx` was built with a rate of its own, which nobody can see."""
        return float("nan") if self._rate_is_hidden() else self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._rate_refused:
            raise ValueError(
                "`learning_rate` cannot be set: `tx` was built with a rate of its own. Pass a function "
                f"learning_rate -> transformation instead. Received: learning_rate={value}"
            )
        if not (isinstance(self._learning_rate, keras.Variable) or callable(value)):
            raise TypeError(
                "`learning_rate` cannot be set to a number: the optimizer was made with a schedule or a function. "
                f"Received: learning_rate={value}"
            )
        self._rate_given = True
        setter: Any = keras.optimizers.Optimizer.learning_rate
        setter.fset(self, value)

    def _rate_is_hidden(self) -> bool:
        """Return whether nobody can tell the rate."""
        return self._rate_refused

    @property
    def weight_decay(self) -> None:
        """None: a decay belongs into the transformation; Keras's is coupled with the rate."""

    @weight_decay.setter
    def weight_decay(self, value: Any) -> None:
        if value is not None:
            raise ValueError(f"`weight_decay` cannot be set: {self._decays_are_in}. Received: weight_decay={value}")

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Refuse: only the transformation knows its decay.

        Raises:
          ValueError: always.
        """
        raise ValueError(
            "`exclude_from_weight_decay` would have no effect: the decay is in `tx`. Pass `mask=` to the "
            "transformation, e.g. optax.adamw(rate, weight_decay=..., mask=lambda tree: {path: "
            f"path.endswith('kernel') for path in tree}}). Received: var_list={var_list}, var_names={var_names}"
        )
