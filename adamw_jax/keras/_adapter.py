"""Any optax transformation as a Keras optimizer."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax
from jax.experimental.sparse import JAXSparse

from adamw_jax._tree import checks
from adamw_jax._tree.loop import map_leaves
from adamw_jax.keras._hyperparameters import add_hyperparameter
from adamw_jax.keras._paths import unique_paths
from adamw_jax.keras._saving import LoadableOptimizer
from adamw_jax.keras._slots import Trained, add_slots

_RATE = "learning_rate"


@dataclass(frozen=True)
class _Source:
    """What an optimizer was given: a transformation, or a function of the rate that returns one."""

    tx: Any
    ready: bool


@keras.saving.register_keras_serializable(package="adamw_jax")
class OptaxOptimizer(LoadableOptimizer):
    """Update theta <- theta + u, where (u, state) = tx.update(gradients, state, theta), inside `keras.Model.fit`.

    The whole tree of parameters is updated at once. Its leaves are named by the variables' paths, so masks and labels
    given as functions of the tree see `{"dense/kernel": array, ...}`. Each leaf of the state is one `keras.Variable`,
    stored by position and never by name. What belongs to `keras.optimizers.Optimizer` works unchanged: the three clips,
    `use_ema`, `gradient_accumulation_steps`, `loss_scale_factor`, constraints, saving.

    Args:
      tx: a `GradientTransformation`, or a function learning_rate -> GradientTransformation, which is called while the
        update is traced with the current rate, so that schedules and callbacks need no recompilation.
      learning_rate: a number, a Keras schedule or a callable, for a function `tx` and for a `tx` made by
        `optax.inject_hyperparams` (whose `learning_rate` is then this optimizer's). Any other ready `tx` holds a rate
        that nobody can see: leave None; `learning_rate` then reads NaN and refuses to be set.
      name: name of the optimizer.
      **kwargs: arguments of `keras.optimizers.Optimizer`, except `weight_decay`, which belongs into `tx`.

    Raises:
      TypeError: `tx` is neither; or, at an update, it needs an argument that Keras does not pass (the loss).
      ValueError: `learning_rate` is missing for a function, or would have no effect; at an update, the optimizer comes
        from a configuration that does not fit the variables.

    >>> import optax
    >>> optimizer = OptaxOptimizer(optax.lion, learning_rate=1e-3, global_clipnorm=1.0)
    >>> float(optimizer.learning_rate)
    0.001...
    """

    settable: tuple[str, ...] = (_RATE,)
    """What callbacks may try to set, besides Variables."""

    _trained: Trained | None = None

    def __init__(
        self,
        tx: optax.GradientTransformation | Callable[..., optax.GradientTransformation],
        learning_rate: Any = None,
        *,
        name: str = "optax",
        **kwargs: Any,
    ) -> None:
        ready = hasattr(tx, "init") and hasattr(tx, "update")
        if not ready and not callable(tx):
            raise TypeError(
                "`tx` must be an optax.GradientTransformation (an object with init and update) or a function "
                f"learning_rate -> GradientTransformation. Received: tx={tx!r}"
            )
        if not ready and learning_rate is None:
            raise ValueError("`learning_rate` is needed when `tx` is a function. Received: learning_rate=None")
        if kwargs.pop("weight_decay", None) is not None:
            raise ValueError("`weight_decay` belongs into `tx`, e.g. optax.adamw(rate, weight_decay=...)")
        rate = 1.0 if learning_rate is None else learning_rate
        super().__init__(learning_rate=float(rate) if checks.is_number(rate) else rate, name=name, **kwargs)
        plain: Any = self._learning_rate
        if isinstance(plain, keras.Variable):
            self._untrack_variable(plain)
            self._learning_rate: Any = add_hyperparameter(self, _RATE, plain.value)
        self._source = _Source(tx, ready)
        self._rate_given = learning_rate is not None

    def _transformation(self, learning_rate: Any) -> optax.GradientTransformation:
        return self._source.tx if self._source.ready else self._source.tx(learning_rate)

    def _holders(self) -> dict[str, Any]:
        """Return what scalar state fields of these names get: a Variable that others use, too, or a constant."""
        return {_RATE: self._learning_rate} if isinstance(self._learning_rate, keras.Variable) else {}

    def _given(self, rate: jax.Array) -> dict[str, Any]:
        """Return the scalar state fields whose values are known otherwise at every update."""
        return {_RATE: rate} if self._source.ready else {}

    def _make_slots(self, variables: list[Any]) -> None:
        keys = unique_paths(variables)
        parameters = {key: v.value for key, v in zip(keys, variables, strict=True)}
        state = self._transformation(jnp.asarray(self._get_current_learning_rate())).init(parameters)
        self._trained = Trained(variables, keys, add_slots(self, state, keys, variables))
        if self._source.ready:
            self._bind_rate(state)

    def _fitting(self) -> Trained:
        if self._trained is None:
            raise ValueError(
                f"the optimizer {self.name!r} comes from a configuration that does not fit the "
                f"{len(self._trainable_variables)} variables of this model. To train it, call `model.compile` with a "
                f"new optimizer. What does not fit: {self._unfit}"
            )
        return self._trained

    def _rate_is_hidden(self) -> bool:
        return self._rate_refused or (self._source.ready and not self._rate_given and not self.built)

    def _bind_rate(self, state: Any) -> None:
        """Find out who holds the rate of a ready transformation: its hyperparameters, or nobody."""
        names = self._fitting().slots.names
        rates = [leaf for name, leaf in zip(names, jax.tree.leaves(state), strict=True) if name == _RATE]
        if not rates and self._rate_given:
            rate = self._get_current_learning_rate()
            raise ValueError(
                "`learning_rate` would have no effect: `tx` was built with a rate of its own. Pass a function "
                f"learning_rate -> transformation, or use optax.inject_hyperparams. Received: learning_rate={rate}"
            )
        if rates and not self._rate_given:
            self._learning_rate.assign(rates[0])
        self._rate_refused = not rates

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        trained = self._fitting()
        given = {id(v): _dense(g) for g, v in zip(grads, trainable_variables, strict=True)}
        parameters = trained.parameters()
        # A variable without a gradient keeps its value and its slots; in sums over the tree it counts as zero.
        gradients = {
            key: given[id(v)] if id(v) in given else jnp.zeros_like(parameters[key])
            for key, v in zip(trained.keys, trained.variables, strict=True)
        }
        rate = jnp.asarray(self._get_current_learning_rate() if self._rate_refused else learning_rate)
        state = trained.slots.read(self._given(rate))
        try:
            updates, state = self._transformation(rate).update(gradients, state, parameters)
        except TypeError as error:
            if "required keyword-only argument" not in str(error):
                raise
            raise TypeError(f"Keras passes gradients and parameters only; `tx` wants more: {error}") from error
        (parameters,) = map_leaves(_add, (), (parameters, updates))
        for key, variable in zip(trained.keys, trained.variables, strict=True):
            if id(variable) in given:
                variable.assign(parameters[key])
        trained.slots.write(state, set(given))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments; of `tx` only a function can be written down."""
        config: dict[str, Any] = super().get_config()
        del config["weight_decay"]
        tx = self._source.tx
        written = inspect.isfunction(tx) or hasattr(tx, "get_config")
        kind = "ready transformation" if self._source.ready else f"{type(tx).__module__}.{type(tx).__name__}"
        return config | {"tx": keras.saving.serialize_keras_object(tx) if written else None, "kind": kind}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "OptaxOptimizer":
        """Return the optimizer with these arguments; one that fits no variables is an error when it is used.

        Raises:
          ValueError: it was built on something that no configuration can hold, as a ready transformation.
        """
        config = dict(config)
        kind = config.pop("kind", "ready transformation")
        if "tx" in config:
            if config["tx"] is None:
                raise ValueError(
                    f"`tx` cannot be rebuilt from a configuration: it was a {kind}. Load the model with "
                    "compile=False, compile it with the optimizer, call model.optimizer.build("
                    "model.trainable_variables), then model.load_weights(path); or pass a function learning_rate -> "
                    "transformation as `tx`, registered by keras.saving.register_keras_serializable."
                )
            config["tx"] = keras.saving.deserialize_keras_object(config["tx"], custom_objects=custom_objects)
        optimizer: OptaxOptimizer = super().from_config(config, custom_objects=custom_objects)
        return optimizer


def _add(scalars: Any, p: Any, u: Any) -> tuple[Any, ...]:
    del scalars
    return (jax.lax.add(p, u),)


def _dense(gradient: Any) -> Any:
    return gradient.todense() if isinstance(gradient, JAXSparse) else gradient
