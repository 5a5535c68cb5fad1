"""Callbacks that read and set an optimizer's hyperparameters during `fit`.

While `fit` runs, the trainer holds the values of all Variables. Reading `self.model` in a callback hands them back,
which costs a pass over all variables: that is why the callbacks touch it only when they have something to do.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from adamw_jax._explain.report import QUANTITIES, Report, report
from adamw_jax._tree import checks
from adamw_jax.keras._adapter import OptaxOptimizer
from adamw_jax.keras._hyperparameters import copied
from adamw_jax.keras._paths import unique_paths


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
                f"{_described(self.model.optimizer)}"
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


class StepLogger(keras.callbacks.Callback):
    """Add what `adamw_jax.observe` saw to the logs of every epoch, and so to the history, to CSV and TensorBoard.

    For a model compiled with an `OptaxOptimizer` whose transformation is `observe(...)` or contains it. The keys are
    "path/quantity" with the weights' Keras paths, as in "dense/kernel/ratio"; the numbers are those of the latest
    update that `observe` looked at, and not a number before the first. List it before `CSVLogger` and `TensorBoard`:
    callbacks that come earlier in the list do not see what it adds.

    Args:
      quantities: which of "weight_rms", "gradient_rms", "step_rms", "ratio" and "angle" (radians) to add. The progress
        bar prints whatever is in the logs: with `verbose=2` or 0 many weights do not flood it.

    Attributes:
      reports: the `Report` of every epoch, for `adamw_jax.plot.steps`; of the first optimizer that observes.

    Raises:
      ValueError: when training begins, if no optimizer observes anything, or for an unknown quantity.

    >>> import numpy as np, optax
    >>> from adamw_jax import observe
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")], name="net")
    >>> model.compile(OptaxOptimizer(lambda rate: observe(optax.sgd(rate)), 0.1), "mse")
    >>> data = np.ones((4, 2)), np.zeros((4, 1))
    >>> history = model.fit(*data, verbose=0, callbacks=[StepLogger(["ratio"])]).history
    >>> sorted(history)
    ['loss', 'net/out/bias/ratio', 'net/out/kernel/ratio']
    """

    def __init__(self, quantities: Sequence[str] = QUANTITIES) -> None:
        super().__init__()
        if isinstance(quantities, str) or not quantities:
            raise ValueError(f"`quantities` must be a list of {', '.join(QUANTITIES)}. Received: {quantities!r}")
        self.quantities = [checks.check_choice("quantities", each, QUANTITIES) for each in quantities]
        self.reports: list[Report] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that there is something to report."""
        self._reports()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Put the report into the epoch's logs."""
        reports = self._reports()
        self.reports.append(reports[0])
        if logs is not None:
            rows = [row for each in reports for row in each.rows]
            logs.update({f"{row['path']}/{name}": row[name] for row in rows for name in self.quantities})

    def _reports(self) -> list[Report]:
        """Return what every optimizer observed, its weights in their order and by their Keras paths."""
        optimizer = self.model.optimizer
        adapters = [each for each in inner_optimizers(optimizer) if isinstance(each, OptaxOptimizer)]
        if not adapters:
            raise ValueError(
                "`StepLogger` needs an OptaxOptimizer(lambda rate: adamw_jax.observe(...), rate). "
                f"Received: {type(optimizer).__name__}"
            )
        if not all(each.built for each in adapters):
            optimizer.build(self.model.trainable_variables)
        found, errors = [], []
        for trained in [each._fitting() for each in adapters if each.built]:
            try:
                seen = report(trained.slots.read({}))
                rows = {row["path"]: row for row in seen.rows}
                pairs = zip(trained.keys, unique_paths(trained.variables), strict=True)
                found.append(Report([rows[key] | {"path": str(path)} for key, path in pairs], seen.observed))
            except ValueError as error:
                errors.append(error)
        if not found:
            raise errors[0]
        return found


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


def _described(optimizer: Any) -> str:
    parts = inner_optimizers(optimizer)
    return ", ".join(f"optimizer={each.name!r} of type {type(each).__name__}" for each in parts)


def inner_optimizers(optimizer: Any) -> list[Any]:
    """Return the optimizer, without the `LossScaleOptimizer` around it; all those inside a `MultiOptimizer`."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))
