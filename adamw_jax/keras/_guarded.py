"""What may be set on an optimizer, so that nothing is set in vain, and what is set is copied."""

from typing import Any

import keras

from adamw_jax._tree import checks
from adamw_jax.keras._exclusions import Exclusions
from adamw_jax.keras._hyperparameters import copied


class GuardedOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose decay is its own, and whose hyperparameters keep their buffers."""

    _rate_refused: str | None = None
    """Why the rate cannot be set."""
    _rate_hidden = False
    """Whether nobody can tell the rate."""
    _decays_are_in = "the decay is in `tx`: OptaxOptimizer(adamw_jax.adamw, rate, options={'weight_decay': ...})"
    _decay_factor: Any = None
    _excludes = False
    """Whether weights can be excluded from the decay."""
    _exclusions = Exclusions()

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras would track a Variable, and a step delete a JAX array, that is given to a hyperparameter.
        of_property = isinstance(getattr(type(self), name, None), property)
        super().__setattr__(name, copied(value) if of_property else value)

    @property
    def learning_rate(self) -> Any:
        """The rate; NaN where `tx` was built with rates of its own, which nobody can see."""
        return float("nan") if self._rate_hidden else self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._rate_refused:
            raise ValueError(
                f"`learning_rate` cannot be set: {self._rate_refused}. Pass a function learning_rate -> "
                f"transformation as `tx` instead. Received: learning_rate={value}"
            )
        if not (isinstance(self._learning_rate, keras.Variable) or callable(value)):
            raise TypeError(
                "`learning_rate` cannot be set to a number: the optimizer was made with a schedule or a function. "
                f"Received: learning_rate={value}"
            )
        self._rate_given, self._rate_hidden = True, False
        setter: Any = keras.optimizers.Optimizer.learning_rate
        setter.fset(self, value)

    @property
    def weight_decay(self) -> Any:
        """The decay as given to `tx` by `options`; None where it has none, or nobody can see it."""
        return self._decay_given()

    @weight_decay.setter
    def weight_decay(self, value: Any) -> None:
        if value is not None:
            raise ValueError(f"`weight_decay` cannot be set: {self._decays_are_in}. Received: weight_decay={value}")

    def _decay_given(self) -> Any:
        return None

    @property
    def decay_factor(self) -> Any:
        """What multiplies all decays of `options`; None without a decay among them."""
        return self._decay_factor

    @decay_factor.setter
    def decay_factor(self, value: Any) -> None:
        if self._decay_factor is None:
            raise ValueError(f"`decay_factor` multiplies a decay among `options`, which are without. Received: {value}")
        self._decay_factor.assign(checks.check_non_negative("decay_factor", value))

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: Keras would decay by `weight_decay` once more."""

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Leave weights without decay, before the optimizer is built.

        Args:
          var_list: Keras Variables, or layers.
          var_names: expressions to be found in the weights' paths, without the outermost model's own name.

        Raises:
          ValueError: the optimizer is built already, or only its transformation knows the decay.
        """
        if not self._excludes:
            raise ValueError(
                "`exclude_from_weight_decay` would have no effect: the decay is in `tx`. Pass it as an option, "
                "OptaxOptimizer(adamw_jax.adamw, rate, options={'weight_decay': adamw_jax.matrices(...)}), or `mask=` "
                f"to optax's transformation. Received: var_list={var_list}, var_names={var_names}"
            )
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay` has to be called before the optimizer is built, which training does. "
                f"Received: var_list={var_list}, var_names={var_names}"
            )
        self._exclusions = Exclusions(var_list or (), var_names or (), self._exclusions.config())
