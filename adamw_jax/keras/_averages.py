"""Evaluate, and save, with the average of the weights that an optimizer's state holds."""

import contextlib
from typing import Any

import keras

from adamw_jax._optimizer.averages import AverageState
from adamw_jax._tree.state import nodes_of
from adamw_jax.keras._adapter import OptaxOptimizer
from adamw_jax.keras._inside import adapters, described


def averaged_weights(model: Any, *, missing: str = "raise") -> contextlib.AbstractContextManager[Any]:
    """Have the average of the weights in a model, and put the weights back whatever happens.

    Args:
      model: a `keras.Model` compiled with an `OptaxOptimizer(..., average=...)`, or with a `tx` that is `with_average`.
      missing: "raise" an error where the average has not begun; "params" leaves the weights then.

    Returns:
      A context manager, which returns the model.

    Raises:
      ValueError: no optimizer keeps an average; an average that has not begun, with missing="raise".

    >>> import numpy as np
    >>> import adamw_jax as aj
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(OptaxOptimizer(aj.adamw, 0.1, average=aj.Ema(half_life=10)), "mse")
    >>> data = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(*data, batch_size=1, verbose=0)
    >>> weights = model.get_weights()
    >>> with averaged_weights(model):
    ...     loss = model.evaluate(*data, verbose=0)  # or model.save(...)
    >>> all(map(np.array_equal, weights, model.get_weights()))
    True
    """
    return _AveragedWeights(model, missing)


class _AveragedWeights(contextlib.AbstractContextManager[Any]):
    def __init__(self, model: Any, missing: str) -> None:
        self._model, self._missing = model, missing
        self._others: list[tuple[Any, Any]] = []
        self._swapped = contextlib.ExitStack()

    def __enter__(self) -> Any:
        self._others = [(v, v.value) for v in self._model.non_trainable_variables]
        with contextlib.ExitStack() as swapped:
            for optimizer in _averaging(self._model):
                if optimizer.swap_in_average(self._missing):
                    swapped.callback(optimizer.swap_back)
            self._swapped = swapped.pop_all()
        return self._model

    def __exit__(self, kind: Any, *error: Any) -> None:
        # Keras has the values out of the variables while it evaluates: they come back first, or not at all where it was
        # cut short in its first batch.
        self._model.jax_state_sync()
        for variable, value in self._others if kind else ():
            if not value.is_deleted():
                variable.assign(value)
        self._swapped.close()


def _averaging(model: Any) -> list[OptaxOptimizer]:
    wanted = (
        "an average of the weights is kept by an OptaxOptimizer(adamw_jax.adamw, rate, average=adamw_jax.Ema(...)) or "
        "by `with_average` as its `tx`; that of Keras's use_ema=True is swapped by keras.callbacks.SwapEMAWeights"
    )
    found = [each for each in adapters(model, wanted) if nodes_of(each.optax_state(), AverageState)]
    if not found:
        raise ValueError(f"{wanted}. Received: {described(model.optimizer)}")
    return found


class SwapAveragedWeights(keras.callbacks.Callback):
    """Evaluate and predict with the average of the weights, and put the weights back afterwards.

    For a model compiled with an `OptaxOptimizer` that keeps an average, as `keras.callbacks.SwapEMAWeights` does for
    Keras's own `use_ema=True`. Until the average has begun, the weights are evaluated as they are. After an exception
    the weights are back when `fit` ends, or at this callback's next event; around `evaluate` alone, the context manager
    `averaged_weights` puts them back at once.

    Args:
      swap_on_epoch: also have the average in the model from the end of an epoch to the beginning of the next, or the
        end of training, for callbacks that come later in the list, as `keras.callbacks.ModelCheckpoint`. One that is to
        have the weights, as `BackupAndRestore`, comes earlier.

    Raises:
      ValueError: when training or an evaluation begins, no optimizer keeps an average.

    >>> import numpy as np
    >>> import adamw_jax as aj
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(OptaxOptimizer(aj.adamw, 0.1, average=aj.Ema(half_life=10)), "mse")
    >>> data = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(*data, validation_data=data, verbose=0, callbacks=[SwapAveragedWeights()])
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._swapped = contextlib.ExitStack()

    def _put_back(self, logs: Any = None) -> None:
        self._swapped.close()

    def _swap(self, logs: Any = None) -> None:
        self._put_back()
        self._swapped.enter_context(averaged_weights(self.model, missing="params"))

    on_test_begin = on_predict_begin = _swap
    on_train_end = on_test_end = on_predict_end = _put_back

    def on_train_begin(self, logs: Any = None) -> None:
        """Put back what an evaluation left that was cut short, and check the optimizer."""
        self._put_back()
        _averaging(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put the weights back."""
        self._put_back()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Have the average in the model, if asked."""
        if self.swap_on_epoch:
            self._swap()
