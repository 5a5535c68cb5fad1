"""One decay in the conventions of different libraries and papers, and for another run."""

import difflib
import math
from typing import Any

import jax.numpy as jnp

from adamw_jax._decay.factor import normalization
from adamw_jax._rules.scaling import Growth
from adamw_jax._rules.scaling_tables import DEFAULT
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar
from adamw_jax._tree.width import as_scalar

NEEDED = {
    **dict.fromkeys(("torch", "pytorch", "optax", "keras"), "learning_rate"),
    "paper": None,
    **dict.fromkeys(("normalized", "keras-adamw"), "updates"),
    "timescale": "updates_per_epoch",
}
"""Convention -> the argument that it depends on, which is the same for conventions that are one."""


def _number(x: Any) -> Any:
    """Return a checked number as a float, a traced one as a scalar of the default width."""
    return as_scalar(x) if checks.is_traced(x) else float(x)


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return the checked numbers > 0 of the run before and the run after, from one number or a pair."""
    is_pair = isinstance(value, (tuple, list))
    if is_pair and len(value) != 2:
        raise ValueError(f"`{name}` must be a number or a pair (before, after), got {value!r}")
    given = value if is_pair else [value]
    numbers = [x if x is None else _number(checks.check_number(name, x, low=0, open_low=True)) for x in given]
    return numbers[0], numbers[-1]


def _share_of_one(name: str, number: Any) -> Any:
    """Return the share of a weight that a decay, or the inverse of a timescale, of 1 takes away per update."""
    needed = NEEDED[name]
    if needed is None:
        return 1.0
    if number is None:
        raise ValueError(f"`{needed}` must be given to convert a decay of convention {name!r}, got None")
    if needed == "updates":
        return normalization(number)
    return 1 / number if name == "timescale" else number


def _is_unexplained(name: str, before: Any, after: Any, ratio: Any) -> bool:
    """Return True if a number is known to change between the runs, and not by the ratio of the batches."""
    changes = not any(x is None or checks.is_traced(x) for x in (before, after)) and before != after
    if not changes or ratio is None:
        return changes
    is_explained = name == "learning_rate" or checks.is_traced(ratio)
    return not is_explained and not math.isclose(before, after * ratio, rel_tol=1e-6)


def convert_decay(
    value: Scalar,
    from_: str,
    to: str,
    *,
    learning_rate: Scalar | tuple[Scalar, Scalar] | None = None,
    updates: Scalar | tuple[Scalar, Scalar] | None = None,
    updates_per_epoch: Scalar | tuple[Scalar, Scalar] | None = None,
    batch: tuple[Scalar, Scalar] | None = None,
) -> Scalar:
    """Return the decay in another convention, or for another run, that takes the same share of a weight per update.

    The share s that an update at the peak of the schedule takes away:

        "optax", "torch", "pytorch", "keras"     s = alpha value            coupling="learning_rate"
        "paper"                                  s = value                  coupling="schedule", or "constant"
        "normalized", "keras-adamw"              s = value sqrt(1 / T)      coupling="schedule", normalize_decay=T
        "timescale"                              s = 1 / (value M)          weights average over `value` epochs

    For another run every number may be a pair (before, after). The share does not depend on rate and width. It is
    proportional to the batch, so that a weight is forgotten after as many examples as before:

        s after = s before * batch after / batch before

    The power is that of `transfer`'s tables, which also scale the other numbers of a run.

    Args:
      value: the decay in the convention `from_`; >= 0, a timescale > 0 (in epochs of M updates), infinity for none.
      from_, to: the conventions.
      learning_rate: alpha, > 0, for "optax" and the like; a pair where it changes, with the width, say.
      updates: T, the updates of the run or of the normalization's interval, for "normalized".
      updates_per_epoch: M; None: a timescale is in updates of its own run.
      batch: (before, after), in any unit, for the same examples: a T or M that is one number is then the run's before,
        and becomes T, M * batch before / batch after.

    Returns:
      The decay in the convention `to`, a float, or a traced scalar; infinity for the timescale of no decay.

    Raises:
      ValueError, TypeError: an unknown convention, a number that is missing or out of range, a batch that is no pair, a
        length that changes and on which neither convention depends.

    Source: Loshchilov & Hutter, arXiv 1711.05101, appendix B.1 ("normalized"); Wang & Aitchison, arXiv 2405.13698,
    where the timescale in updates is 1 / (alpha lambda) ("timescale") and stays the same in epochs.

    >>> convert_decay(0.1, "optax", "paper", learning_rate=0.01)
    0.001
    >>> convert_decay(0.1, "torch", "timescale", learning_rate=0.01, updates_per_epoch=100)
    10.0
    >>> convert_decay(0.1, "torch", "torch", learning_rate=(0.01, 0.005), batch=(32, 128))
    0.8
    """
    for name, convention in (("from_", from_), ("to", to)):
        if convention not in NEEDED:
            near = difflib.get_close_matches(str(convention), NEEDED, 1, 0.5)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, NEEDED))}, got {convention!r}{hint}")
    is_timescale = from_ == "timescale"
    if not (is_timescale and checks.is_number(value) and checks.equals(value, math.inf)):
        checks.check_number("value", value, low=0, open_low=is_timescale)
    value = _number(value)
    if batch is not None and not isinstance(batch, (tuple, list)):
        raise ValueError(f"`batch` must be a pair (before, after), got {batch!r}")
    small, large = (1.0, 1.0) if batch is None else _pair("batch", batch)
    ratio = None if batch is None else large / small
    given = {"learning_rate": learning_rate, "updates": updates, "updates_per_epoch": updates_per_epoch}
    pairs: dict[Any, Any] = {name: _pair(name, number) for name, number in given.items()}
    for name in ("updates", "updates_per_epoch") if batch is not None else ():
        if checks.is_number(given[name]):
            pairs[name] = (pairs[name][0], pairs[name][0] * small / large)
    for name, (before, after) in pairs.items():
        if name not in (NEEDED[from_], NEEDED[to]) and _is_unexplained(name, before, after, ratio):
            raise ValueError(
                f"`{name}` must be one number to convert {from_!r} to {to!r}, for neither depends on it, got "
                f"{given[name]!r}: for another batch give batch=(before, after), for another length convert to "
                "'normalized' and back"
            )
    if updates_per_epoch is None:
        pairs["updates_per_epoch"] = (1.0, 1.0)
    if NEEDED[from_] == NEEDED[to] and batch is None and all(a is b for a, b in pairs.values()):
        return value
    of_runs = [(name, pairs.get(NEEDED[name], (None, None))) for name in (from_, to)]
    unit, unit_to = (_share_of_one(name, numbers[run]) for run, (name, numbers) in enumerate(of_runs))
    share = unit * (1 / value if is_timescale else value)
    if batch is not None:
        share *= Growth(batch=ratio).factor(DEFAULT.exponents("decay"))
    if to == "timescale" and checks.equals(share, 0):
        return math.inf
    result = unit_to / share if to == "timescale" else share / unit_to
    return jnp.asarray(result) if checks.is_traced(result) else float(result)
