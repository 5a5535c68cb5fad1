"""Does a schedule that was made for a number of updates fit a run of another length?"""

import dataclasses
from typing import Any

import numpy as np

from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._rates.shapes import Named
from adamw_jax._tree import checks


def _cycle_ends(schedule: WarmRestarts, updates: int) -> list[int] | None:
    """Return the updates after which cycles end, up to the first beyond a run; None where they are traced."""
    numbers = (schedule.period, schedule.t_mult, schedule.warmup)
    if any(map(checks.is_traced, numbers)):
        return None
    period, ends = int(schedule.period), [int(schedule.warmup)]
    while ends[-1] < updates and len(ends) < 10_000:
        ends.append(ends[-1] + period)
        if not schedule.autorestart:
            break
        period = max(1, round(period * float(schedule.t_mult)))
    return ends[1:]


def _length_of(schedule: Any, old: int, new: int) -> int | None:
    """Return `old` if a function of the count stops changing there, or where it becomes 0 before `new`; else None."""
    try:
        before, *after = (float(schedule(n)) for n in (old * 9 // 10, old, old + 1, 2 * old))
        if len(set(after)) == 1 and not np.isclose(before, after[0]):
            return old
        if any(float(schedule(n)) != 0 for n in (new - 1, new - 2)):
            return None
        low, high = 0, new - 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if float(schedule(middle)) == 0 else (middle + 1, high)
    except (TypeError, AttributeError):  # a function that wants an array, or that traced numbers decide
        return None
    return low or None


def check_length(name: str, schedule: Any, before: Any, after: Any) -> None:
    """Raise a ValueError if a schedule was made for a run of `before` updates and the new one has `after`.

    A schedule of one run fits a run of its `updates`. Restarts fit if a cycle ends with the new run, and none with the
    old one. Another function of the count does not fit if it stops changing with the old run, or if it is 0 before the
    new one ends.

    >>> from adamw_jax._rates.restarts import cosine_warm_restarts
    >>> check_length("schedule", cosine_warm_restarts(200), 100, 200)
    >>> check_length("schedule", cosine_warm_restarts(100), 100, 200)
    Traceback (most recent call last):
    ValueError: `schedule` must end with the run of 200 updates, got one of 100: give schedule=cosine_warm_restarts(200)
    """
    if not callable(schedule) or any(map(checks.is_traced, (before, after))) or float(before) == float(after):
        return
    old, new = int(before), int(after)
    if isinstance(schedule, WarmRestarts):
        ends = _cycle_ends(schedule, max(old, new))
        if ends is None or (new in ends and old not in ends):
            return
        near = min(ends, key=lambda end: (end != old, abs(end - new)))
        remedy = f"cosine_warm_restarts({new - int(schedule.warmup)})"
    elif isinstance(schedule, Named) and "updates" in schedule.arguments:
        own = schedule.arguments["updates"]
        if checks.is_traced(own) or int(own) == new:
            return
        near = int(own)
        remedy = f"{dataclasses.replace(schedule, arguments={**schedule.arguments, 'updates': new})!r}"
    else:
        found = _length_of(schedule, old, new)
        if found is None:
            return
        near, remedy = found, "one of that length"
    raise ValueError(f"`{name}` must end with the run of {new} updates, got one of {near}: give {name}={remedy}")
