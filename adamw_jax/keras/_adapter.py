"""Any optax transformation as a Keras optimizer."""

import functools
from collections.abc import Callable, Mapping, Sequence
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
from adamw_jax.keras._options import Options
from adamw_jax.keras._paths import Weights
from adamw_jax.keras._rates import RATE, following_rates, injected_rates, why_refused
from adamw_jax.keras._saving import LoadableOptimizer
from adamw_jax.keras._slots import Trained, add_slots
from adamw_jax.keras._written import read, written


@dataclass(frozen=True)
class _Source:
    """What an optimizer was given: a transformation, or a function of the rate that returns one."""

    tx: Any
    ready: bool
    options: Options | None
    model: Any


@keras.saving.register_keras_serializable(package="adamw_jax")
class OptaxOptimizer(LoadableOptimizer):
    """Update theta <- theta + u, where (u, state) = tx.update(gradients, state, theta), inside `keras.Model.fit`.

    The whole tree of parameters is updated at once. Its leaves are named by the variables' paths, without the outermost
    model's own name, so masks and labels given as functions of the tree see `{"dense/kernel": array, ...}`. Each leaf
    of the state is one `keras.Variable`, stored by position and never by name. What belongs to
    `keras.optimizers.Optimizer` works unchanged: the three clips, `use_ema`, `gradient_accumulation_steps`,
    `loss_scale_factor`, constraints, saving.

    Args:
      tx: a function learning_rate -> GradientTransformation, such as `adamw_jax.adamw` or `optax.lion`, which is called
        while the update is traced with the current rate, so that schedules and callbacks need no recompilation; or a
        `GradientTransformation`.
      learning_rate: a number, a Keras schedule or a callable, for a function `tx` and for a `tx` made by
        `optax.inject_hyperparams` (whose `learning_rate` is then this optimizer's, if it has one that is a number). Any
        other ready `tx` holds a rate that nobody can see: leave None; `learning_rate` then reads NaN and refuses to be
        set.
      options: {name: value}, what a function `tx` is called with besides the rate. For the functions of `adamw_jax` a
        rule may be a mapping {key: value}, where a key is a layer, or a weight's path, or the name of a layer, or a
        pattern found in paths, whichever of these it is first; a direction by path has the functions that make it,
        as in {"kernel": adamw_jax.scale_by_muon, "": adamw_jax.scale_by_adam}.
      model: the `keras.Model` to be trained, where keys of `options` name functional models inside it.
      name: name of the optimizer; None for a new one, numbered by Keras.
      **kwargs: arguments of `keras.optimizers.Optimizer`, except `weight_decay`, which belongs into `options`.

    Attributes:
      decay_factor: multiplies all decays of `options`, 1 at first; it can be set at any time.

    Raises:
      TypeError: `tx` is neither; or it does not take one of the options; or, at an update, it needs an argument that
        Keras does not pass (the loss).
      ValueError: `learning_rate` is missing for a function, or would have no effect; at an update, the optimizer comes
        from a configuration that does not fit the variables.

    >>> import adamw_jax as aj
    >>> decays = {"weight_decay": aj.matrices(1e-4), "lr_multipliers": {"head": 3.0}}
    >>> optimizer = OptaxOptimizer(aj.adamw, 1e-3, options=decays, global_clipnorm=1.0)
    >>> float(optimizer.learning_rate), float(optimizer.decay_factor)
    (0.001..., 1.0)
    """

    settable: tuple[str, ...] = (RATE,)
    """What callbacks may try to set, besides Variables."""

    _trained: Trained | None = None
    _following: Sequence[int] = ()

    def __init__(
        self,
        tx: optax.GradientTransformation | Callable[..., optax.GradientTransformation],
        learning_rate: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        model: Any = None,
        name: str | None = None,
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
        if ready and options is not None:
            raise TypeError(f"`options` are for a function `tx`, and this one is made already. Received: {options!r}")
        if kwargs.pop("weight_decay", None) is not None:
            raise ValueError("`weight_decay` belongs into `tx`, e.g. options={'weight_decay': ...} of adamw_jax.adamw")
        rate = 1.0 if learning_rate is None else learning_rate
        given = None if options is None else Options(tx, options, rate)
        super().__init__(learning_rate=float(rate) if checks.is_number(rate) else rate, name=name, **kwargs)
        plain: Any = self._learning_rate
        if isinstance(plain, keras.Variable):
            self._untrack_variable(plain)
            self._learning_rate: Any = add_hyperparameter(self, RATE, plain.value)
        self._source = _Source(tx, ready, given, model)
        self._rate_given = learning_rate is not None
        self._rate_hidden = ready and not self._rate_given
        decays = given is not None and given.decays
        self._excludes = decays or type(self)._excludes
        self._decay_factor = add_hyperparameter(self, "decay_factor", 1.0) if decays else None

    @property
    def options(self) -> dict[str, Any]:
        """The options of `tx`, as given."""
        return {} if self._source.options is None else dict(self._source.options.given)

    def _decay_given(self) -> Any:
        return self.options.get("weight_decay")

    @property
    def decay_factor(self) -> Any:
        """What multiplies all decays of `options`; None without a decay among them."""
        return self._decay_factor

    @decay_factor.setter
    def decay_factor(self, value: Any) -> None:
        if self._decay_factor is None:
            raise ValueError(f"`decay_factor` multiplies a decay among `options`, which are without. Received: {value}")
        self._decay_factor.assign(checks.check_non_negative("decay_factor", value))

    def _transformation(self, learning_rate: Any) -> optax.GradientTransformation:
        source = self._source
        if source.options is not None:
            factor = None if self._decay_factor is None else self._decay_factor.value
            return source.options.transformation(learning_rate, factor)
        return source.tx if source.ready else source.tx(learning_rate)

    def _bind(self, state: Any, keys: Sequence[str]) -> tuple[dict[str, list[int]], dict[int, Any]]:
        """Return the leaves that are given at every update, by name, and the Variables of others that hold leaves."""
        if not self._source.ready:
            return {}, {}
        rates = injected_rates(state)
        self._rate_refused = why_refused(rates)
        self._rate_hidden = len(rates) != 1
        if self._rate_refused and self._rate_given:
            raise ValueError(
                f"`learning_rate` would have no effect: {self._rate_refused}. Pass a function learning_rate -> "
                "transformation, or optax.inject_hyperparams with one rate. Received: "
                f"learning_rate={float(self._get_current_learning_rate())}"
            )
        if self._rate_hidden:
            return {}, {}
        (position,) = rates
        if isinstance(self._learning_rate, keras.Variable) and not self._rate_given:
            self._learning_rate.assign(jax.tree.leaves(state)[position])
        held = {position: self._learning_rate} if isinstance(self._learning_rate, keras.Variable) else {}
        return ({} if self._rate_refused else {RATE: [position]}), held

    def _given(self, rate: jax.Array) -> dict[str, Any]:
        """Return the values of the leaves that are given at every update."""
        return {RATE: rate}

    def _prepare(self, trained: list[Any], variables: Sequence[Any]) -> Weights:
        """Return the names of the weights, after doing what needs them."""
        weights = Weights.of(trained, self._source.model)
        if self._source.options is not None:
            self._source.options.resolve(weights, self._are_excluded(weights))
        return weights

    def _make_slots(self, weights: Weights) -> None:
        keys, variables = weights.keys, weights.variables
        parameters = {key: v.value for key, v in zip(keys, variables, strict=True)}

        def init(rate: Any) -> Any:
            return self._transformation(rate).init(parameters)

        state = init(jnp.asarray(self._get_current_learning_rate()))
        given, held = self._bind(state, keys)
        if not self._source.ready:
            self._following = tuple(following_rates(init, state))
        self._trained = Trained(variables, keys, add_slots(self, state, keys, variables, held), given)

    def _fitting(self) -> Trained:
        if self._trained is None:
            raise ValueError(
                f"the optimizer {self.name!r} comes from a configuration that does not fit the "
                f"{len(self._trainable_variables)} variables of this model. To train it, call `model.compile` with a "
                f"new optimizer. What does not fit: {self._unfit}"
            )
        return self._trained

    def as_optax(self, variables: Sequence[Any] | None = None) -> tuple[optax.GradientTransformation, dict[str, Any]]:
        """Return the transformation at the current learning rate, and its parameters by path: `explain` reads them.

        Args:
          variables: the trainable variables, for which an optimizer is built that is not built yet.

        Raises:
          ValueError: an optimizer that is not built, without variables.
        """
        if not self.built:
            if variables is None:
                raise ValueError(f"the optimizer {self.name!r} is not built: give the trainable variables of the model")
            self.build(list(variables))
        return self._transformation(jnp.asarray(self._get_current_learning_rate())), self._fitting().parameters()

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
        rate = jnp.asarray(self._get_current_learning_rate() if self._rate_hidden else learning_rate)
        tx, values = self._transformation(rate), trained.values(self._given(rate))
        if self._following:
            fresh = jax.tree.leaves(tx.init(parameters))
            values |= {position: fresh[position] for position in self._following}
        state = trained.slots.read(values)
        try:
            updates, state = tx.update(gradients, state, parameters)
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
        """Return the arguments; of `tx` and its options what `adamw_jax`, optax and Keras can name."""
        config: dict[str, Any] = super().get_config()
        del config["weight_decay"]
        source, tx, options = self._source, None, {}
        kind = "ready transformation" if source.ready else _kind(source.tx)
        try:
            if hasattr(source.tx, "get_config") or not (source.ready or isinstance(source.tx, functools.partial)):
                tx = written(source.tx)
            if source.options is not None:
                options = {"options": source.options.config(), "resolved": source.options.resolved()}
        except TypeError as error:
            tx, kind = None, f"{kind}, {error}"
        return config | {"tx": tx, "kind": kind} | options

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "OptaxOptimizer":
        """Return the optimizer with these arguments; one that fits no variables is an error when it is used.

        Raises:
          ValueError: it was built on something that no configuration can hold, as a ready transformation.
        """
        config = dict(config)
        kind = config.pop("kind", "ready transformation")
        saved = read(config.pop("resolved", {}), custom_objects)
        if "tx" in config:
            if config["tx"] is None:
                raise ValueError(
                    f"`tx` cannot be rebuilt from a configuration: it was a {kind}. Load the model with "
                    "compile=False, compile it with the optimizer, call model.optimizer.build("
                    "model.trainable_variables), then model.load_weights(path). To have it saved, pass a function of "
                    "adamw_jax or optax and its `options`, as in OptaxOptimizer(adamw_jax.adamw, 1e-3, options={...}), "
                    "or one that keras.saving.register_keras_serializable knows."
                )
            config |= {name: read(config[name], custom_objects) for name in ("tx", "options") if name in config}
        optimizer: OptaxOptimizer = super().from_config(config, custom_objects=custom_objects)
        if optimizer._source.options is not None:
            optimizer._source.options.saved = saved
        return optimizer


def _kind(tx: Any) -> str:
    if getattr(tx, "__name__", "") == "<lambda>":
        return "lambda"
    named = type(tx) if isinstance(tx, functools.partial) or not hasattr(tx, "__qualname__") else tx
    return f"{named.__module__}.{named.__qualname__}"


def _add(scalars: Any, p: Any, u: Any) -> tuple[Any, ...]:
    del scalars
    return (jax.lax.add(p, u),)


def _dense(gradient: Any) -> Any:
    return gradient.todense() if isinstance(gradient, JAXSparse) else gradient
