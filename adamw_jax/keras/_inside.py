"""The optimizers inside a model's optimizer: below a loss scale, and in a `MultiOptimizer`."""

from typing import Any

import keras

from adamw_jax.keras._adapter import OptaxOptimizer


def inner_optimizers(optimizer: Any) -> list[Any]:
    """Return the optimizer, without the `LossScaleOptimizer` around it; all those inside a `MultiOptimizer`."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))


def adapters(model: Any, wanted: str) -> list[OptaxOptimizer]:
    """Return the optimizers of this library that train weights of a model; they are built.

    Args:
      model: a compiled `keras.Model`.
      wanted: what the caller needs, for the error.

    Raises:
      ValueError: there are none.
    """
    optimizer = getattr(model, "optimizer", None)
    found = [each for each in inner_optimizers(optimizer) if isinstance(each, OptaxOptimizer)]
    if not found:
        raise ValueError(f"{wanted}. Received: {described(optimizer)}")
    if not all(each.built for each in found):
        model.optimizer.build(model.trainable_variables)
    return [each for each in found if each.built]


def described(optimizer: Any) -> str:
    """Return the name and the type of every optimizer inside, for errors."""
    if optimizer is None:
        return "a model that is not compiled"
    parts = inner_optimizers(optimizer)
    return ", ".join(f"optimizer={each.name!r} of type {type(each).__name__}" for each in parts)


def owner_of(optimizer: Any, name: str) -> tuple[Any, str]:
    """Return the optimizer with a hyperparameter that acts when it is set, and the name there.

    Args:
      optimizer: a model's optimizer.
      name: of the hyperparameter, with that of an optimizer inside a `MultiOptimizer` before it, or without.

    Raises:
      ValueError: no optimizer has it, or several have.
    """
    inside, _, own = name.rpartition("/")
    optimizers = [each for each in inner_optimizers(optimizer) if inside in ("", each.name)]
    owners = [each for each in optimizers if _is_settable(each, own)]
    if len(owners) == 1:
        return owners[0], own
    if owners:
        raise ValueError(
            f"`schedule` must name one optimizer, as in '{owners[0].name}/{own}', for "
            f"{', '.join(repr(each.name) for each in owners)} have {own!r}. Received: {name!r}"
        )
    current = getattr(optimizers[0], own, None) if len(optimizers) == 1 else None
    raise ValueError(
        f"`schedule`: the optimizer {optimizer.name!r} has no hyperparameter {name!r} that can be set. "
        f"Received: {own}={current!r}"
    )


def _is_settable(optimizer: Any, name: str) -> bool:
    settable = name in getattr(optimizer, "settable", ()) or isinstance(getattr(optimizer, name, None), keras.Variable)
    return settable and name != "iterations"
