"""Configurations and saved states that may not fit: what an optimizer takes of them."""

import warnings
from collections.abc import Sequence
from typing import Any

from adamw_jax.keras._guarded import GuardedOptimizer
from adamw_jax.keras._weights import Weights


class LoadableOptimizer(GuardedOptimizer):
    """An optimizer that no model fails to load for: what does not fit is an error when it is used."""

    _from_config = False
    _postponed = False
    _unfit: str | None = None
    _scalars: int | None = None

    def build(self, variables: Sequence[Any]) -> None:
        """Make the state's Variables for these trainable variables, in their order."""
        if self.built:
            return
        # Keras builds a loaded optimizer for nothing where a model is frozen, or comes from an .h5 file: once.
        if self._from_config and not variables and not self._postponed:
            self._postponed = True
            return
        trained = [v for v in variables if not self._overwrite_variable_with_gradient(v)]
        self._scalars = len(self.variables)
        try:
            weights = self._prepare(trained, variables)
            super().build(variables)
            self._make_slots(weights)
        except Exception as error:
            # Whatever it needs: a model is loaded for inference, too. An update says what is wrong.
            if not self._from_config:
                raise
            self._unfit = str(error)
            if not self.built:
                super().build(variables)

    def _prepare(self, trained: list[Any], variables: Sequence[Any]) -> Weights:
        """Return the names of the weights that are trained, before the state is made."""
        raise NotImplementedError

    def _make_slots(self, weights: Weights) -> None:
        raise NotImplementedError

    def load_own_variables(self, store: Any) -> None:
        """Load a saved state: all of it, or nothing, see `taken`."""
        self._assign([store[str(i)] for i in range(len(store.keys()))])

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the state, from arrays in the order of `variables`: all of it, or nothing, see `taken`."""
        if not self.built:
            super().set_weights(weights)
        self._assign(weights)

    def _assign(self, arrays: Sequence[Any]) -> None:
        count = taken(self, arrays, self._scalars)
        for variable, array in zip(self.variables[:count], arrays[:count], strict=True):
            variable.assign(array)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "LoadableOptimizer":
        """Return the optimizer with these arguments."""
        optimizer: LoadableOptimizer = super().from_config(config, custom_objects=custom_objects)
        optimizer._from_config = True
        return optimizer


def taken(optimizer: Any, arrays: Sequence[Any], scalars: int | None) -> int:
    """Return how many arrays of a saved state fit: all; those of an optimizer that was never built; or none.

    A model that was saved before it was trained, or whose layers were frozen, quantized or changed since, or whose file
    was written under another optimizer, has a state of another number of arrays: that warns, and the optimizer starts
    afresh.

    Args:
      optimizer: a `keras.optimizers.Optimizer`.
      arrays: the saved state, in the order of `optimizer.variables`.
      scalars: how many variables the optimizer had before it knew what to train; None while it does not.

    Raises:
      ValueError: as many arrays as variables, in other shapes.
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
        f"Skipping variable loading for optimizer {optimizer.name!r}, because it has {len(own)} variables whereas "
        f"the saved optimizer has {len(saved)} variables: it starts afresh. That is so when it was built for other "
        "trainable variables or is another optimizer"
        + ("" if optimizer.built else ", or when `optimizer.build(model.trainable_variables)` was not called yet"),
        stacklevel=4,
    )
    return 0
