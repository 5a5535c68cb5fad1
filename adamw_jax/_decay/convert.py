"""One decay in the conventions of different libraries and papers, and for another run."""

from typing import Any

from adamw_jax._decay.factor import normalization
from adamw_jax._rules.scaling import Growth
from adamw_jax._rules.scaling_tables import DEFAULT
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar

CONVENTIONS = ("torch", "optax", "keras", "paper", "normalized", "timescale")


def _of_both_runs(name: str, value: Any) -> tuple[Any, Any]:
    """Return a number, or a pair, as checked numbers > 0 of the run before and the run after."""
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"`{name}` must be a number or a pair (before, after), got {value!r}")
    before, after = (x if x is None else checks.check_number(name, x, low=0, open_low=True) for x in value)
    return before, after


def _share_of_one(convention: str, learning_rate: Any, updates: Any, per_epoch: Any) -> Any:
    """Return what share of a weight a value of 1 takes away per update; for a timescale, which is its inverse, too."""
    needed = {"paper": ("", 1.0), "normalized": ("updates", updates), "timescale": ("updates_per_epoch", per_epoch)}
    name, number = needed.get(convention, ("learning_rate", learning_rate))
    if number is None:
        raise ValueError(f"`{name}` must be given to convert a decay of convention {convention!r}, got None")
    if convention == "normalized":
        return normalization(number)
    return 1 / number if convention == "timescale" else number


def convert_decay(
    value: Scalar,
    from_: str,
    to: str,
    *,
    learning_rate: Scalar | tuple[Scalar, Scalar] | None = None,
    updates: Scalar | tuple[Scalar, Scalar] | None = None,
    updates_per_epoch: Scalar | tuple[Scalar, Scalar] = 1,
    batch: tuple[Scalar, Scalar] | None = None,
) -> Scalar:
    """Return the number that makes another convention, or another run, decay alike.

    Each convention says in its own way what share s of a weight an update at the peak of the schedule takes away:

        "torch", "optax", "keras"    s = alpha value            coupling="learning_rate"
        "paper"                      s = value                  coupling="schedule", or "constant"
        "normalized"                 s = value sqrt(1 / T)      coupling="schedule", normalize_decay=T
        "timescale"                  s = 1 / (value M)          the weights average over the last `value` epochs

    For another run every number may be a pair (before, after). The share stays as it is, whatever becomes of rate and
    width; with another batch it goes with the batch, so that a weight is forgotten after as many examples as before:

        s after = s before * batch after / batch before

    This is one part of `transfer`, from whose tables it takes the power; another number of tokens or another width is a
    matter for the whole.

    Args:
      value: the decay in the convention `from_`; >= 0, a timescale > 0 (in epochs of M updates).
      from_, to: the conventions.
      learning_rate: alpha, > 0, for "torch", "optax" and "keras"; a pair where it changes, with the width, say.
      updates: T, the updates of the run or of the normalization's interval, for "normalized".
      updates_per_epoch: M; with the default of 1 a timescale is in updates.
      batch: (before, after), in any unit, for the same examples: a T or M that is one number is then the run's before,
        and becomes T, M * batch before / batch after.

    Returns:
      The decay in the convention `to`; infinity for the timescale of no decay.

    Raises:
      ValueError, TypeError: an unknown convention, a number that is missing or out of range, a batch that is no pair.

    Source: Loshchilov & Hutter, arXiv 1711.05101, appendix B.1 ("normalized"); Wang & Aitchison, arXiv 2405.13698,
    where the timescale in updates is 1 / (alpha lambda) ("timescale") and stays the same in epochs.

    >>> convert_decay(0.1, "torch", "timescale", learning_rate=0.01, updates_per_epoch=100)
    10.0
    >>> convert_decay(0.1, "torch", "torch", learning_rate=(0.01, 0.005), batch=(32, 128))
    0.8
    """
    checks.check_choice("from_", from_, CONVENTIONS)
    checks.check_choice("to", to, CONVENTIONS)
    checks.check_number("value", value, low=0, open_low=from_ == "timescale")
    if batch is not None and not isinstance(batch, (tuple, list)):
        raise ValueError(f"`batch` must be a pair (before, after), got {batch!r}")
    small, large = (1, 1) if batch is None else _of_both_runs("batch", batch)

    def numbers(name: str, given: Any) -> tuple[Any, Any]:
        before, after = _of_both_runs(name, given)
        follows = batch is not None and before is not None and not isinstance(given, (tuple, list))
        return (before, before * small / large) if follows else (before, after)

    rates = _of_both_runs("learning_rate", learning_rate)
    counts, epochs = numbers("updates", updates), numbers("updates_per_epoch", updates_per_epoch)
    if from_ == to and batch is None and all(a is b for a, b in (rates, counts, epochs)):
        return value
    unit, unit_to = (_share_of_one(name, *each) for name, *each in zip((from_, to), rates, counts, epochs, strict=True))
    share = unit * (1 / value if from_ == "timescale" else value)
    share = share if batch is None else share * Growth(batch=large / small).factor(DEFAULT.exponents("decay"))
    if to == "timescale":
        return float("inf") if checks.equals(share, 0) else unit_to / share
    return share / unit_to
