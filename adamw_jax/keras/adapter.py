"""Any optax transformation as a Keras optimizer."""

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax
from jax.experimental.sparse import JAXSparse

from adamw_jax._leaves import map_leaves
from adamw_jax.keras.paths import unique_paths
from adamw_jax.keras.slots import add_slots


@keras.saving.register_keras_serializable(package="adamw_jax")
class OptaxOptimizer(keras.optimizers.Optimizer):
    """theta <- theta + u, where (u, state) = tx.update(gradients, state, theta), inside `keras.Model.fit`.

    The whole tree of parameters is updated at once. Its leaves are named by the variables' paths, so masks and labels
    given as functions of the tree see `{"dense/kernel": array, ...}`. Each leaf of the state is one `keras.Variable`,
    stored by position and never by name. What belongs to `keras.optimizers.Optimizer` works unchanged: the three clips,
    `use_ema`, `gradient_accumulation_steps`, `loss_scale_factor`, constraints, saving.

    Args:
        tx: a `GradientTransformation`, or a function learning_rate -> GradientTransformation, which is called while the
            update is traced with the current rate, so that schedules and callbacks need no recompilation.
        learning_rate: a float, a Keras schedule or a callable, for a function `tx` and for a `tx` made by
            `optax.inject_hyperparams` (whose `learning_rate` is then this optimizer's). Any other ready `tx` holds a
            rate that nobody can see: leave None; `learning_rate` then reads 1.0 and refuses to be set.
        name: name of the optimizer.
        **kwargs: arguments of `keras.optimizers.Optimizer`, except `weight_decay`, which belongs into `tx`.

    Raises:
        TypeError: if `tx` is neither; or, at an update, if it needs an argument that Keras does not pass (the loss).
        ValueError: if `learning_rate` is missing for a function, or would have no effect.

    Examples:
        >>> import optax
        >>> optimizer = OptaxOptimizer(optax.lion, learning_rate=1e-3, global_clipnorm=1.0)
        >>> float(optimizer.learning_rate)
        0.001...
    """

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
        super().__init__(learning_rate=1.0 if learning_rate is None else learning_rate, name=name, **kwargs)
        # A namespace, because Keras tracks the lists and dicts that are set as attributes.
        self._optax = SimpleNamespace(tx=tx, ready=ready, rate_given=learning_rate is not None, rate_refused=False)

    def _transformation(self, learning_rate: Any) -> optax.GradientTransformation:
        """The transformation at this rate, which may be traced."""
        return self._optax.tx if self._optax.ready else self._optax.tx(learning_rate)

    def _holders(self) -> dict[str, Any]:
        """What scalar state fields of these names get: a Variable that others use, too, or a constant."""
        return {_RATE: self._learning_rate} if isinstance(self._learning_rate, keras.Variable) else {}

    def _given(self, rate: jax.Array) -> dict[str, Any]:
        """The scalar state fields whose values are known otherwise at every update."""
        return {_RATE: rate} if self._optax.ready else {}

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the state's Variables for these trainable variables, in their order."""
        if self.built:
            return
        super().build(variables)
        space = self._optax
        space.variables = [v for v in variables if not self._overwrite_variable_with_gradient(v)]
        space.keys = unique_paths(space.variables)
        state = self._transformation(jnp.asarray(self.learning_rate)).init(self._parameters())
        space.slots = add_slots(self, state, space.keys, space.variables)
        self._bind_rate(state)

    def _bind_rate(self, state: Any) -> None:
        """Finds out who holds the rate of a ready transformation: its hyperparameters, or nobody."""
        space = self._optax
        if not space.ready:
            return
        rates = [leaf for name, leaf in zip(space.slots.names, jax.tree.leaves(state), strict=True) if name == _RATE]
        if not rates and space.rate_given:
            raise ValueError(
                "`learning_rate` would have no effect: `tx` was built with a rate of its own. Pass a function "
                "learning_rate -> transformation, or build `tx` with optax.inject_hyperparams. "
                f"Received: learning_rate={self.learning_rate}"
            )
        if rates and not space.rate_given:
            rate: Any = self._learning_rate
            rate.assign(rates[0])
        space.rate_refused = not rates

    def _parameters(self) -> dict[str, jax.Array]:
        return {key: v.value for key, v in zip(self._optax.keys, self._optax.variables, strict=True)}

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        space = self._optax
        given = {id(v): _dense(g) for g, v in zip(grads, trainable_variables, strict=True)}
        parameters = self._parameters()
        # A variable without a gradient keeps its value and its slots; in sums over the tree it counts as zero.
        gradients = {
            key: given[id(v)] if id(v) in given else jnp.zeros_like(parameters[key])
            for key, v in zip(space.keys, space.variables, strict=True)
        }
        rate = jnp.asarray(learning_rate)
        state = space.slots.read(self._given(rate))
        try:
            updates, state = self._transformation(rate).update(gradients, state, parameters)
        except TypeError as error:
            if "required keyword-only argument" not in str(error):
                raise
            raise TypeError(f"Keras passes gradients and parameters only; `tx` wants more: {error}") from error
        (parameters,) = map_leaves(_add, (), (parameters, updates))
        for key, variable in zip(space.keys, space.variables, strict=True):
            if id(variable) in given:
                variable.assign(parameters[key])
        space.slots.write(state, set(given))

    @keras.optimizers.Optimizer.learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        """Sets the rate, where somebody reads it."""
        if self._optax.rate_refused:
            raise ValueError(
                "`learning_rate` cannot be set: `tx` was built with a rate of its own. Pass a function "
                f"learning_rate -> transformation instead. Received: learning_rate={value}"
            )
        self._optax.rate_given = True
        setter: Any = keras.optimizers.Optimizer.learning_rate
        setter.fset(self, value)

    def load_own_variables(self, store: Any) -> None:
        """Loads a saved state: all of it, or nothing."""
        if self.built:
            saved, own = [store[str(i)].shape for i in range(len(store.keys()))], [v.shape for v in self.variables]
            if saved != own:
                raise ValueError(
                    f"the saved state does not belong to this optimizer and model ({self.name!r}); nothing was loaded. "
                    f"Saved shapes: {saved}. Own shapes: {own}."
                )
        super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """The arguments; of `tx` only a function can be written down."""
        config: dict[str, Any] = super().get_config()
        del config["weight_decay"]
        tx = self._optax.tx
        return config | {"tx": keras.saving.serialize_keras_object(tx) if inspect.isfunction(tx) else None}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "OptaxOptimizer":
        """The optimizer with these arguments.

        Raises:
            ValueError: if it was built on a ready transformation, which no configuration can hold.
        """
        config = dict(config)
        if "tx" in config:
            if config["tx"] is None:
                raise ValueError(
                    "a ready optax transformation cannot be rebuilt from a configuration. Load the model with "
                    "compile=False, compile it with the optimizer, call "
                    "model.optimizer.build(model.trainable_variables), then model.load_weights(path); or pass a "
                    "registered function learning_rate -> transformation as `tx`."
                )
            config["tx"] = keras.saving.deserialize_keras_object(config["tx"], custom_objects=custom_objects)
        optimizer: OptaxOptimizer = super().from_config(config, custom_objects=custom_objects)
        return optimizer


_RATE = "learning_rate"


def _add(scalars: Any, p: Any, u: Any) -> tuple[Any, ...]:
    del scalars
    return (jax.lax.add(p, u),)


def _dense(gradient: Any) -> Any:
    return gradient.todense() if isinstance(gradient, JAXSparse) else gradient
