"""Schedules of one run, count -> factor, that know their arguments: cosine, linear, warm-up, warmup-stable-decay."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import chex
import jax.numpy as jnp

from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar, Schedule

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Named:
    """A schedule, count -> factor, with the name and the arguments of its maker, so that a file can hold it."""

    schedule: Schedule
    label: str
    arguments: Mapping[str, Any]

    def __call__(self, count: chex.Numeric) -> chex.Numeric:
        """Return the schedule's factor."""
        return self.schedule(count)

    def __repr__(self) -> str:
        return f"{self.label}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


def named(maker: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """Decorate a maker of schedules: those that it returns are `Named`."""
    signature, label = inspect.signature(maker), getattr(maker, "__name__", "")

    @functools.wraps(maker)
    def make(*args: P.args, **kwargs: P.kwargs) -> Named:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{label}() {error}: its arguments are {', '.join(signature.parameters)}") from None
        bound.apply_defaults()
        return Named(maker(*args, **kwargs), label, dict(bound.arguments))

    return make


SHAPES: dict[str, Callable[[chex.Array], chex.Array]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + jnp.cos(jnp.pi * x)) / 2,
    "sqrt": lambda x: 1 - jnp.sqrt(x),
}
"""How the factor falls from 1 to 0 while x goes from 0 to 1."""


@named
def cosine(updates: Scalar, warmup: Scalar = 0, end: Scalar = 0.0) -> Schedule:
    """Return the schedule of a run that falls along a cosine, after a warm-up from 0, and then stays.

        k < warmup     eta_k = k / warmup
        else           eta_k = end + (1 - end) (1 + cos(pi x)) / 2,   x = min((k - warmup) / (updates - warmup), 1)

    It is `optax.warmup_cosine_decay_schedule(0, peak, warmup, updates, end * peak)` divided by its peak;
    `cosine_warm_restarts` jumps back to the peak instead of staying at the end.

    Args:
      updates: length of the run with its warm-up, an integer; eta_k is `end` from k = updates on.
      warmup: updates before the peak, an integer from 0 to updates - 1. The first of them has the factor 0.
      end: the last factor, in [0, 1].

    Returns:
      A callable from the count k of updates made to the factor in [0, 1].

    Raises:
      ValueError, TypeError: a number of another kind or out of range, a warm-up as long as the run.

    Source: Loshchilov & Hutter, arXiv 1608.03983, equation 5, one cycle; the warm-up as in optax.

    >>> print(cosine(4, warmup=2)(jnp.arange(6)).round(2))
    [0.  0.5 1.  0.5 0.  0. ]
    """
    return _one_run(SHAPES["cosine"], updates, warmup, end)


@named
def linear(updates: Scalar, warmup: Scalar = 0, end: Scalar = 0.0) -> Schedule:
    """Return the schedule of a run that falls in equal steps, after a warm-up from 0, and then stays.

        k < warmup     eta_k = k / warmup
        else           eta_k = end + (1 - end) (1 - x),   x = min((k - warmup) / (updates - warmup), 1)

    Args, Returns, Raises: as `cosine`.

    Source: Bergsma et al., "Straight to Zero", arXiv 2502.15938.

    >>> print(linear(6, warmup=2)(jnp.arange(8)))
    [0.   0.5  1.   0.75 0.5  0.25 0.   0.  ]
    """
    return _one_run(SHAPES["linear"], updates, warmup, end)


def _one_run(fall: Callable[[chex.Array], chex.Array], updates: Scalar, warmup: Scalar, end: Scalar) -> Schedule:
    checks.check_count("updates", updates)
    checks.check_count("warmup", warmup, low=0)
    checks.check_number("end", end, low=0, high=1)
    if not (checks.is_traced(updates) or checks.is_traced(warmup)) and float(warmup) >= float(updates):
        raise ValueError(f"`warmup` must be less than `updates`, which contain it, got {warmup} of {updates} updates")

    def schedule(count: chex.Numeric) -> chex.Array:
        dtype = jnp.result_type(float)
        k, last, rise = (jnp.asarray(x, jnp.int32) for x in (count, updates, warmup))
        # Clipped as integers: large counts are not exact in float32.
        ramp = jnp.clip(k, 0, rise).astype(dtype) / jnp.maximum(rise, 1).astype(dtype)
        x = jnp.clip(k - rise, 0, last - rise).astype(dtype) / jnp.maximum(last - rise, 1).astype(dtype)
        low = jnp.asarray(end, dtype)
        return jnp.where(k < rise, ramp, low + (1 - low) * fall(x))

    return schedule


@named
def linear_warmup(warmup: Scalar) -> Schedule:
    """Return the schedule that grows in equal steps and then stays: eta_k = min((k + 1) / (warmup + 1), 1).

    Args:
      warmup: number of updates with a factor below 1, an integer >= 0.

    Returns:
      A callable from the count k of updates made to the factor in (0, 1].

    Raises:
      ValueError, TypeError: a number of another kind or out of range.

    >>> print(linear_warmup(3), linear_warmup(3)(jnp.arange(5)))
    linear_warmup(warmup=3) [0.25 0.5  0.75 1.   1.  ]
    """
    checks.check_count("warmup", warmup, low=0)

    def schedule(count: chex.Numeric) -> chex.Array:
        dtype, steps = jnp.result_type(float), jnp.asarray(warmup, jnp.int32)
        # Compared as integers: large counts are not exact in float32.
        k = jnp.minimum(jnp.asarray(count, jnp.int32), steps)
        return (k.astype(dtype) + 1) / (steps.astype(dtype) + 1)

    return schedule


@named
def warmup_stable_decay(
    updates: Scalar, *, warmup: Scalar = 0, decay: Scalar, shape: str = "linear", eta_min: Scalar = 0.0
) -> Schedule:
    """Return the schedule that warms up, stays at 1, and decays over the last updates of the run.

        k < warmup                   eta_k = (k + 1) / (warmup + 1)
        k <= updates - 1 - decay     eta_k = 1
        else                         eta_k = eta_min + (1 - eta_min) f(x),  x = (k - (updates - 1 - decay)) / decay

    so that the last update, k = updates - 1, uses exactly eta_min, and `decay` updates are below 1.

    Args:
      updates: length of the run, an integer.
      warmup, decay: lengths of the two ends, integers >= 0 and >= 1; together less than `updates`.
      shape: f, "linear": 1 - x; "cosine": (1 + cos(pi x)) / 2; "sqrt": 1 - sqrt(x).
      eta_min: the last factor, in [0, 1].

    Returns:
      A callable from the count k of updates made to the factor; past the end it stays at eta_min.

    Raises:
      ValueError, TypeError: a number of another kind or out of range, an unknown shape.

    Source: Hu et al., "MiniCPM", arXiv 2404.06395, section 4; Hägele et al., arXiv 2405.18392, for the shape "sqrt".

    >>> print(warmup_stable_decay(8, warmup=1, decay=4)(jnp.arange(8)))
    [0.5  1.   1.   1.   0.75 0.5  0.25 0.  ]
    """
    checks.check_count("updates", updates)
    checks.check_count("warmup", warmup, low=0)
    checks.check_count("decay", decay)
    checks.check_number("eta_min", eta_min, low=0, high=1)
    fall = SHAPES[checks.check_choice("shape", shape, tuple(SHAPES))]
    if not any(map(checks.is_traced, (updates, warmup, decay))) and float(warmup) + float(decay) >= float(updates):
        raise ValueError(f"`updates` must be more than `warmup` and `decay` together, got {updates}, {warmup}, {decay}")
    rise = linear_warmup(warmup)

    def schedule(count: chex.Numeric) -> chex.Array:
        dtype = jnp.result_type(float)
        k, last, length = (jnp.asarray(x, jnp.int32) for x in (count, updates, decay))
        # Subtracted as integers: large counts are not exact in float32.
        x = jnp.clip(k - (last - 1 - length), 0, length).astype(dtype) / length.astype(dtype)
        low = jnp.asarray(eta_min, dtype)
        return jnp.where(x > 0, low + (1 - low) * fall(x), rise(count))

    return schedule
