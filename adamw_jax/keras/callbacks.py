"""Callbacks that read and set an optimizer's hyperparameters during `fit`.

While `fit` runs, the trainer holds the values of all Variables. Reading `self.model` in a callback hands them back,
which costs a pass over all variables: that is why both callbacks touch it only when they have something to do.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import keras


class RateLogger(keras.callbacks.Callback):
    """Adds the factor `eta_t` and the rate `lr_t` to the history and the progress bar.

    Args:
        every_batch: also after each batch: shown in the progress bar and kept in `batches`. It costs a pass over all
            variables per batch (some milliseconds for a thousand variables).

    Attributes:
        batches: {"eta_t": [...], "lr_t": [...]}, one number per batch if `every_batch`: what the next update will use.
    """

    def __init__(self, every_batch: bool = False) -> None:
        super().__init__()
        self.every_batch = every_batch
        self.batches: dict[str, list[float]] = defaultdict(list)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows and keeps the rates, if asked for every batch."""
        if self.every_batch:
            for name, value in self._rates().items():
                self.batches[name].append(value)
                if logs is not None:
                    logs[name] = value

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Puts the rates into the epoch's history."""
        if logs is not None:
            logs.update(self._rates())

    def _rates(self) -> dict[str, float]:
        optimizer = inner_optimizer(self.model.optimizer)
        return {"eta_t": float(optimizer.eta_t), "lr_t": float(optimizer.lr_t)}


class HyperparameterSetter(keras.callbacks.Callback):
    """Sets hyperparameters before given batches, e.g. `{23: {"t_cur": -1}, 100: {"eta_max": 0.5}}`.

    Args:
        schedule: {step: {name: value}}. Step 0 is the first batch the optimizer ever saw; the count goes on when `fit`
            is called again or a saved optimizer is loaded. With `steps_per_execution > 1` a step that falls inside an
            execution acts before it.

    Raises:
        ValueError: at the beginning of training, if the optimizer has no hyperparameter of that name.
    """

    def __init__(self, schedule: Mapping[int, Mapping[str, Any]]) -> None:
        super().__init__()
        self.schedule = {int(step): dict(values) for step, values in schedule.items()}
        self._before_epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the names."""
        optimizer = inner_optimizer(self.model.optimizer)
        for name in sorted({name for values in self.schedule.values() for name in values}):
            if not isinstance(getattr(optimizer, name, None), keras.Variable):
                raise ValueError(f"`schedule`: the optimizer {optimizer.name!r} has no hyperparameter {name!r}")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes how many batches came before."""
        self._before_epoch = int(inner_optimizer(self.model.optimizer)._iterations)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets what is due before this execution."""
        step = self._before_epoch + batch
        for due in range(step, step + self._model.steps_per_execution):
            for name, value in self.schedule.get(due, {}).items():
                getattr(inner_optimizer(self.model.optimizer), name).assign(value)


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer itself, or the one inside a `LossScaleOptimizer`."""
    return getattr(optimizer, "inner_optimizer", optimizer)
