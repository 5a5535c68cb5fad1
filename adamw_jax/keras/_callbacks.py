"""Callbacks that read and set an optimizer's hyperparameters during `fit`.

While `fit` runs, the trainer holds the values of all Variables. Reading `self.model` in a callback hands them back,
which costs a pass over all variables: that is why the callbacks touch it only when they have something to do.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import keras

from adamw_jax._tree import checks
from adamw_jax.keras._hyperparameters import copied
from adamw_jax.keras._inside import described, inner_optimizers, owner_of


class RateLogger(keras.callbacks.Callback):
    """Add the factor `eta_t` and the rate `lr_t` to the history and the progress bar.

    Callbacks that write the logs, as `keras.callbacks.CSVLogger` and `TensorBoard`, come after it in the list. Where a
    `keras.optimizers.MultiOptimizer` has several optimizers with these numbers, the keys begin with their names, as in
    "adam_w_1/eta_t".

    Args:
      every_batch: also after each batch: shown in the progress bar and kept in `batches`. It costs a pass over all
        variables per batch (some milliseconds for a thousand variables).

    Attributes:
      batches: {"eta_t": [...], "lr_t": [...]}, one number per batch if `every_batch`, each for the next update.

    Raises:
      ValueError: at the beginning of training, the optimizer has no such numbers.
    """

    def __init__(self, every_batch: bool = False) -> None:
        super().__init__()
        self.every_batch = every_batch
        self.batches: dict[str, list[float]] = defaultdict(list)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check the optimizer."""
        if not self._optimizers():
            raise ValueError(
                "`RateLogger` logs eta_t and lr_t, which AdamW, NadamW and SGDW of adamw_jax.keras have. Received: "
                f"{described(self.model.optimizer)}"
            )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show and keep the rates, if asked for every batch."""
        if self.every_batch:
            for name, value in self._rates().items():
                self.batches[name].append(value)
                if logs is not None:
                    logs[name] = value

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Put the rates into the epoch's history."""
        if logs is not None:
            logs.update(self._rates())

    def _optimizers(self) -> list[Any]:
        return [each for each in inner_optimizers(self.model.optimizer) if hasattr(each, "eta_t")]

    def _rates(self) -> dict[str, float]:
        optimizers = self._optimizers()
        return {
            (name if len(optimizers) == 1 else f"{optimizer.name}/{name}"): float(getattr(optimizer, name))
            for optimizer in optimizers
            for name in ("eta_t", "lr_t")
        }


class HyperparameterSetter(keras.callbacks.Callback):
    """Set hyperparameters before given batches, once each, e.g. `{23: {"t_cur": -1}, 100: {"eta_max": 0.5}}`.

    Args:
      schedule: {step: {name: value}}. Steps are batches, whether they end in an update or not (under accumulation, or
        where mixed_float16 overflows). Step 0 is the first batch the optimizer ever saw; the count goes on when `fit`
        is called again, and for a loaded optimizer from its `iterations`. With `steps_per_execution > 1` a step that
        falls inside an execution acts before it. Where a `keras.optimizers.MultiOptimizer` has several optimizers with
        the hyperparameter, write the optimizer's name before it, as in "adam_w_1/eta_t".

    Raises:
      ValueError, TypeError: a step that is no integer >= 0; at the beginning of training, no optimizer has a
        hyperparameter of that name, or several have, or it refuses to be set.
    """

    def __init__(self, schedule: Mapping[int, Mapping[str, Any]]) -> None:
        super().__init__()
        self.schedule = {
            int(checks.check_count("schedule", step, low=0)): dict(values) for step, values in schedule.items()
        }
        self._optimizer: Any = None
        self._before_epoch = self._last = self._done = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Check the names."""
        optimizer = self.model.optimizer
        for name in sorted({name for values in self.schedule.values() for name in values}):
            owner, own = owner_of(optimizer, name)
            # An optimizer that refuses says so now.
            setattr(owner, own, copied(getattr(owner, own)))
        if optimizer is not self._optimizer:
            self._optimizer, self._before_epoch, self._done = optimizer, 0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note how many batches came before."""
        iterations = int(getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)._iterations)
        # More than were counted here: of an earlier process, or of other calls. Fewer: some batches made no update.
        self._before_epoch = self._last = max(self._before_epoch, iterations)
        self._done = max(self._done, self._before_epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set what is due before this execution."""
        ends = self._after(batch + self._model.steps_per_execution)
        for due in range(max(self._done, self._before_epoch + batch), ends):
            for name, value in self.schedule.get(due, {}).items():
                owner, own = owner_of(self.model.optimizer, name)
                setattr(owner, own, copied(value))
        self._done = max(self._done, ends)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note how many batches there were."""
        self._last = self._after(batch + 1)

    def _after(self, batches: int) -> int:
        # The last execution of an epoch may be shorter than Keras says.
        return self._before_epoch + min(batches, self.params.get("steps") or batches)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note how many batches the epoch had."""
        self._before_epoch = self._last
