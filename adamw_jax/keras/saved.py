"""Which part of a saved state an optimizer takes."""

import warnings
from collections.abc import Sequence
from typing import Any


def assign(optimizer: Any, arrays: Sequence[Any], scalars: int) -> None:
    """Assign what fits of a saved state to an optimizer's variables.

    Args:
      optimizer: a `keras.optimizers.Optimizer`.
      arrays: the saved state, in the order of `optimizer.variables`.
      scalars: how many variables the optimizer had when it was made, before it knew what to train.

    Raises:
      ValueError: as many arrays as variables, in other shapes.
    """
    variables = optimizer.variables
    for variable, array in zip(variables[: taken(optimizer, arrays, scalars)], arrays, strict=False):
        variable.assign(array)


def taken(optimizer: Any, arrays: Sequence[Any], scalars: int) -> int:
    """Return how many arrays of a saved state fit: all; those of an optimizer that was never built; or none.

    A model that was saved before it was trained, or whose layers were frozen, quantized or changed since, or whose file
    was written under another optimizer, has a state of another number of arrays: that warns, and the optimizer starts
    afresh. Args and Raises: see `assign`.
    """
    saved = [tuple(array.shape) for array in arrays]
    own = [tuple(variable.shape) for variable in optimizer.variables]
    if saved == own:
        return len(own)
    if len(saved) == len(own):
        raise ValueError(
            f"the saved state does not belong to this optimizer and model ({optimizer.name!r}); nothing was loaded. "
            f"Saved shapes: {saved}. Own shapes: {own}."
        )
    fresh = optimizer.built and int(optimizer._iterations) == 0
    if fresh and len(saved) == scalars and saved == own[:scalars]:
        return scalars
    warnings.warn(
        f"Skipping variable loading for optimizer {optimizer.name!r}, because it has {len(own)} variables whereas the "
        f"saved optimizer has {len(saved)} variables: it starts afresh. That is so when it was built for other trainable "
        "variables or is another optimizer"
        + ("" if optimizer.built else ", or when `optimizer.build(model.trainable_variables)` was not called yet"),
        stacklevel=4,
    )
    return 0
