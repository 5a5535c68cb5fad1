"""One decay in the conventions of different libraries and papers."""

from adamw_jax import _checks as checks
from adamw_jax._decay.strength import normalization
from adamw_jax._typing import Scalar

CONVENTIONS = ("torch", "optax", "keras", "paper", "normalized", "timescale")


def _needed(name: str, value: Scalar | None, convention: str) -> Scalar:
    if value is None:
        raise ValueError(f"`{name}` must be given to convert a decay of convention {convention!r}, got None")
    return checks.check_number(name, value, low=0, open_low=True)


def convert_decay(
    value: Scalar,
    from_: str,
    to: str,
    *,
    learning_rate: Scalar | None = None,
    updates: Scalar | None = None,
    updates_per_epoch: Scalar = 1,
) -> Scalar:
    """Return the number that makes another convention decay alike.

    Each convention says in its own way what share s of a weight an update at the peak of the schedule takes away:

        "torch", "optax", "keras"    s = alpha value            coupling="learning_rate"
        "paper"                      s = value                  coupling="schedule", or "constant"
        "normalized"                 s = value sqrt(1 / T)      coupling="schedule", normalize_decay=T
        "timescale"                  s = 1 / (value M)          the weights average over the last `value` epochs

    Args:
      value: the decay in the convention `from_`; >= 0, a timescale > 0 (in epochs of M updates).
      from_, to: the conventions.
      learning_rate: alpha, > 0, for "torch", "optax" and "keras".
      updates: T, the updates of the run or of the normalization's interval, for "normalized".
      updates_per_epoch: M; with the default of 1 a timescale is in updates.

    Returns:
      The decay in the convention `to`; infinity for the timescale of no decay.

    Raises:
      ValueError, TypeError: an unknown convention, a number that is missing or out of range.

    Source: Loshchilov & Hutter, arXiv 1711.05101, appendix B.1 ("normalized"); Wang & Aitchison, arXiv 2405.13698,
    where the timescale in updates is 1 / (alpha lambda) ("timescale").

    >>> convert_decay(0.1, "torch", "timescale", learning_rate=0.01, updates_per_epoch=100)
    10.0
    """
    checks.check_choice("from_", from_, CONVENTIONS)
    checks.check_choice("to", to, CONVENTIONS)
    checks.check_number("value", value, low=0, open_low=from_ == "timescale")
    if from_ == to:
        return value

    def unit(convention: str) -> Scalar:
        """What a value of 1 takes away per update; the timescale's is that of 1 / value."""
        if convention == "paper":
            return 1.0
        if convention == "normalized":
            number: Scalar = normalization(_needed("updates", updates, convention))
            return number
        if convention == "timescale":
            return 1 / _needed("updates_per_epoch", updates_per_epoch, convention)
        return _needed("learning_rate", learning_rate, convention)

    share = unit(from_) * (1 / value if from_ == "timescale" else value)
    if to == "timescale":
        if checks.equals(share, 0):
            return float("inf")
        return unit(to) / share
    return share / unit(to)
