"""What an `OptaxOptimizer` is made from: a transformation or a function of the rate, and what goes with it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax

from adamw_jax._optimizer.average import with_average
from adamw_jax.keras._options import Options
from adamw_jax.keras._written import read, written


@dataclass(frozen=True)
class Source:
    """A transformation for every learning rate.

    Attributes:
      tx: a transformation, or a function learning_rate -> transformation.
      ready: whether it is a transformation.
      options: what a function is called with besides the rate, or None.
      average: the arguments of `with_average` around it; empty without an average.
      model: the `keras.Model` that tells names, or None.
    """

    tx: Any
    ready: bool
    options: Options | None
    average: dict[str, Any]
    model: Any

    @classmethod
    def of(cls, tx: Any, learning_rate: Any, options: Any, average: Any, model: Any) -> "Source":
        """Return the checked arguments of an `OptaxOptimizer`.

        Raises:
          ValueError, TypeError: see there.
        """
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
        around = average if isinstance(average, Mapping) else {} if average is None else {"average": average}
        if around:
            with_average(optax.identity(), **around)
        return cls(tx, ready, None if options is None else Options(tx, options, learning_rate), dict(around), model)

    def transformation(self, learning_rate: Any, decay_factor: Any) -> optax.GradientTransformation:
        """Return the transformation at a rate, with all decays of `options` multiplied by a factor."""
        if self.options is not None:
            tx = self.options.transformation(learning_rate, decay_factor)
        else:
            tx = self.tx if self.ready else self.tx(learning_rate)
        return with_average(tx, **self.average) if self.average else tx

    def config(self) -> dict[str, Any]:
        """Return what `arguments_of` reads: of `tx` and its options what `adamw_jax`, optax and Keras can name."""
        tx, options, kind = None, {}, "ready transformation" if self.ready else _kind(self.tx)
        try:
            if hasattr(self.tx, "get_config") or not (self.ready or isinstance(self.tx, functools.partial)):
                tx = written(self.tx)
            if self.options is not None:
                options = {"options": self.options.config(), "resolved": self.options.resolved()}
        except TypeError as error:
            tx, kind = None, f"{kind}, {error}"
        around = {"average": {name: written(value) for name, value in self.average.items()}} if self.average else {}
        return {"tx": tx, "kind": kind} | options | around


def arguments_of(config: dict[str, Any], custom_objects: Any) -> dict[str, Any]:
    """Return the arguments of an `OptaxOptimizer` from its configuration.

    Raises:
      ValueError: it was built on something that no configuration can hold, as a ready transformation.
    """
    if "tx" in config and config["tx"] is None:
        raise ValueError(
            f"`tx` cannot be rebuilt from a configuration: it was a {config['kind']}. Load the model with "
            "compile=False, compile it with the optimizer, call model.optimizer.build(model.trainable_variables), then "
            "model.load_weights(path). To have it saved, pass a function of adamw_jax or optax and its `options`, as "
            "in OptaxOptimizer(adamw_jax.adamw, 1e-3, options={...}), or one that "
            "keras.saving.register_keras_serializable knows."
        )
    kept = {name: value for name, value in config.items() if name != "kind"}
    return kept | {name: read(config[name], custom_objects) for name in _READ if name in config}


_READ = ("tx", "options", "average", "resolved")


def _kind(tx: Any) -> str:
    if getattr(tx, "__name__", "") == "<lambda>":
        return "lambda"
    named = type(tx) if isinstance(tx, functools.partial) or not hasattr(tx, "__qualname__") else tx
    return f"{named.__module__}.{named.__qualname__}"
