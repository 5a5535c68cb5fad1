"""A callback that logs what `observe` saw."""

from collections.abc import Sequence
from typing import Any

import keras

from adamw_jax._explain.report import report
from adamw_jax._explain.reported import QUANTITIES, Report
from adamw_jax._tree import checks
from adamw_jax.keras._inside import adapters
from adamw_jax.keras._paths import unique_paths


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
    >>> from adamw_jax.keras import OptaxOptimizer
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
        wanted = "`StepLogger` needs an OptaxOptimizer(lambda rate: adamw_jax.observe(...), rate)"
        found, errors = [], []
        for trained in [each._fitting() for each in adapters(self.model, wanted)]:
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
