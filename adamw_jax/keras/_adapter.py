"""Any optax transformation as a Keras optimizer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax
from jax.experimental.sparse import JAXSparse

from adamw_jax._tree import checks
from adamw_jax._tree.loop import map_leaves
from adamw_jax.keras._exclusions import Exclusions
from adamw_jax.keras._hyperparameters import add_hyperparameter
from adamw_jax.keras._paths import fitting
from adamw_jax.keras._rates import RATE, following_rates, injected_rates, why_refused
from adamw_jax.keras._readable import ReadableState
from adamw_jax.keras._slots import Trained, add_slots
from adamw_jax.keras._source import Source, arguments_of
from adamw_jax.keras._weights import Weights


@keras.saving.register_keras_serializable(package="adamw_jax")
class OptaxOptimizer(ReadableState):
    """Update theta <- theta + u, where (u, state) = tx.update(gradients, state, theta), inside `keras.Model.fit`.

    The whole tree of parameters is updated at once. Its leaves are named by the variables' paths, without the outermost
    model's own name, so masks and labels given as functions of the tree see `{"dense/kernel": array, ...}`. Each leaf
    of the state is one `keras.Variable`, stored by position and never by name. What belongs to
    `keras.optimizers.Optimizer` works unchanged: the three clips, `use_ema`, `gradient_accumulation_steps`,
    `loss_scale_factor`, constraints, saving.

    Args:
      tx: a function learning_rate -> GradientTransformation, such as `adamw_jax.adamw` or `optax.lion`, which is called
        with the current rate while the update is traced; or a `GradientTransformation`.
      learning_rate: a number, a Keras schedule or a callable, for a function `tx` and for a `tx` made by
        `optax.inject_hyperparams` (whose `learning_rate` is then this optimizer's, if it has one that is a number). Any
        other ready `tx` holds a rate that nobody can see: leave None; `learning_rate` then reads NaN and refuses to be
        set.
      options: {name: value}, what a function `tx` is called with besides the rate. For the functions of `adamw_jax` a
        rule may be a mapping {key: value}, where a key is a layer, or a weight's path, or the name of a layer, or a
        pattern found in paths, whichever of these it is first; a direction by path has the functions that make it,
        as in {"kernel": adamw_jax.scale_by_muon, "": adamw_jax.scale_by_adam}.
      average: `adamw_jax.Ema(...)` or another average of the weights to be kept, or the arguments of `with_average` as
        {name: value}; see `SwapAveragedWeights`.
      model: the `keras.Model` to be trained, which tells its own name and those of functional models inside it.
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

    _following: Sequence[int] = ()

    def __init__(
        self,
        tx: optax.GradientTransformation | Callable[..., optax.GradientTransformation],
        learning_rate: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        average: Any = None,
        model: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        source = Source.of(tx, learning_rate, options, average, model)
        if kwargs.pop("weight_decay", None) is not None:
            raise ValueError("`weight_decay` belongs into `tx`, e.g. options={'weight_decay': ...} of adamw_jax.adamw")
        rate = 1.0 if learning_rate is None else learning_rate
        super().__init__(learning_rate=float(rate) if checks.is_number(rate) else rate, name=name, **kwargs)
        plain: Any = self._learning_rate
        if isinstance(plain, keras.Variable):
            self._untrack_variable(plain)
            self._learning_rate: Any = add_hyperparameter(self, RATE, plain.value)
        self._source = source
        self._rate_given = learning_rate is not None
        self._rate_hidden = source.ready and not self._rate_given
        decays = source.options is not None and source.options.decays
        self._excludes = decays or type(self)._excludes
        self._decay_factor = add_hyperparameter(self, "decay_factor", 1.0) if decays else None

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

    def _prepare(self, trained: list[Any], variables: Sequence[Any]) -> Weights:
        """Return the names of the weights, after doing what needs them."""
        weights = Weights.of(trained, self._source.model)
        if self._source.options is not None:
            self._source.options.resolve(weights, self._exclusions.flags(weights))
        return weights

    def _make_slots(self, weights: Weights) -> None:
        variables = weights.variables

        def init(rate: Any, keys: Sequence[str]) -> Any:
            return self._transformation(rate).init({key: v.value for key, v in zip(keys, variables, strict=True)})

        rate = jnp.asarray(self._get_current_learning_rate())
        keys, state = fitting(partial(init, rate), weights)
        given, held = self._bind(state, keys)
        if not self._source.ready:
            self._following = tuple(following_rates(partial(init, keys=keys), state))
        self._trained = Trained(variables, keys, add_slots(self, state, keys, variables, held), given)

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
                self.assign(variable, parameters[key])
        trained.slots.write(state, set(given), self.assign)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments; of `tx` and its options what `adamw_jax`, optax and Keras can name."""
        config: dict[str, Any] = super().get_config()
        del config["weight_decay"]
        excluded = {"excluded": self._exclusions.config()} if self._exclusions else {}
        return config | self._source.config() | excluded

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "OptaxOptimizer":
        """Return the optimizer with these arguments; one that fits no variables is an error when it is used.

        Raises:
          ValueError: it was built on something that no configuration can hold, as a ready transformation.
        """
        arguments = arguments_of(config, custom_objects)
        saved, excluded = arguments.pop("resolved", {}), arguments.pop("excluded", None)
        optimizer: OptaxOptimizer = super().from_config(arguments, custom_objects=custom_objects)
        optimizer._exclusions = Exclusions(saved=excluded)
        if optimizer._source.options is not None:
            optimizer._source.options.saved = saved
        return optimizer


def _add(scalars: Any, p: Any, u: Any) -> tuple[Any, ...]:
    del scalars
    return (jax.lax.add(p, u),)


def _dense(gradient: Any) -> Any:
    return gradient.todense() if isinstance(gradient, JAXSparse) else gradient
