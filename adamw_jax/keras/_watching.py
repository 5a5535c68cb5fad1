"""What every step does to every weight, in the history of `fit`."""

from collections.abc import Sequence
from typing import Any

import keras

from adamw_jax._explain.report import QUANTITIES, Report, report
from adamw_jax._tree import checks
from adamw_jax.keras._adapter import OptaxOptimizer
from adamw_jax.keras._callbacks import inner_optimizer


class StepLogger(keras.callbacks.Callback):
    """Add what `adamw_jax.observe` saw to the logs of every epoch, and so to the history, to CSV and TensorBoard.

    For a model compiled with an `OptaxOptimizer` whose transformation is `observe(...)` or contains it. The keys are
    "path/quantity" with the weights' Keras paths, as in "dense/kernel/ratio"; the numbers are those of the latest
    update that `observe` looked at, and not a number before the first. List it before `CSVLogger` and `TensorBoard`:
    callbacks that come earlier in the list do not see what it adds.

    Args:
        quantities: which of "weight_rms", "gradient_rms", "step_rms", "ratio" and "angle" (radians) to add. The
            progress bar prints whatever is in the logs: with `verbose=2` or 0 many weights do not flood it.

    Attributes:
        reports: the `Report` of every epoch, for `adamw_jax.plot.steps`.

    Raises:
        ValueError: when training begins, if the optimizer observes nothing, or for an unknown quantity.

    Examples:
        >>> import keras, numpy as np, optax
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
        self._report()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Put the report into the epoch's logs."""
        self.reports.append(self._report())
        if logs is not None:
            rows = self.reports[-1].rows
            logs.update({f"{row['path']}/{name}": row[name] for row in rows for name in self.quantities})

    def _report(self) -> Report:
        optimizer = inner_optimizer(self.model.optimizer)
        if not isinstance(optimizer, OptaxOptimizer):
            raise ValueError(
                "`StepLogger` needs an OptaxOptimizer(lambda rate: adamw_jax.observe(...), rate). "
                f"Received: {type(optimizer).__name__}"
            )
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return report(optimizer._fitting().slots.read({}))
