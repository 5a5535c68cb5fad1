"""Kinds of averages: which share of it each update's weights get."""

import dataclasses
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._rates.owner import ScheduleState
from adamw_jax._rates.shapes import SHAPES
from adamw_jax._tree import checks
from adamw_jax._tree.state import nodes_of, value_of
from adamw_jax._tree.typing import Scalar


@dataclasses.dataclass(frozen=True)
class Average:
    """A kind of average."""

    of_weights_before: ClassVar[bool] = False
    """Whether an update's weights are those before it."""

    def check(self, inner_state: optax.OptState) -> None:
        """Raise where the optimizer inside has not what the average needs."""

    def share(self, count: chex.Array, seen: chex.Array, inner_state: optax.OptState) -> tuple[chex.Array, chex.Array]:
        """Return the share w of an update's weights, and how many weights the average then holds.

        Args:
          count: number of the update, from 1, int32.
          seen: weights that the average holds before it, int32.
          inner_state: state of the optimizer inside before it.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Ema(Average):
    """The exponential moving average, corrected for its start: the weighted mean of the weights that were seen.

        theta_bar <- theta_bar + w (theta - theta_bar),    w = (1 - b) / (1 - b^n),    b = 2^(-1 / half_life)

    for the n-th weights seen. With `power` p, the window grows in proportion to the run,

        w = 1 - (1 - 1 / n)^(p + 1)

    and with both, w is the larger of the two: the window grows up to that of the half-life.

    Attributes:
      half_life: updates after which weights count half, > 0; None only with `power`.
      start: updates made before the first weights are seen, an integer >= 0.
      power: p, >= 0: the relative width of the window is about 1 / (p + 2); None is a constant half-life.

    Source: Polyak & Juditsky 1992 for averages of iterates; Karras et al., arXiv 2312.02696, section 3.1, for `power`.

    >>> Ema(half_life=500)
    Ema(half_life=500, start=0, power=None)
    """

    half_life: Scalar | None = None
    start: Scalar = 0
    power: Scalar | None = None

    def __post_init__(self) -> None:
        if self.half_life is None and self.power is None:
            raise ValueError("`half_life` must be given, a number of updates > 0, or `power`, got None for both")
        if self.half_life is not None:
            checks.check_number("half_life", self.half_life, low=0, open_low=True)
            if not checks.is_traced(self.half_life) and 0.9 <= self.half_life < 1:
                raise ValueError(
                    f"`half_life` must be a number of updates, got {self.half_life}: an average that keeps "
                    "0.999 of itself has the half-life log(0.5) / log(0.999) = 693"
                )
        checks.check_count("start", self.start, low=0)
        if self.power is not None:
            checks.check_non_negative("power", self.power)

    def share(self, count: chex.Array, seen: chex.Array, inner_state: optax.OptState) -> tuple[chex.Array, chex.Array]:
        """Return w and n; 0 and 0 before the start."""
        del inner_state
        dtype = jnp.result_type(float)
        n = jnp.where(count > self.start, optax.safe_increment(seen), 0)
        number = jnp.maximum(n, 1).astype(dtype)
        shares = []
        if self.half_life is not None:
            rate = -jnp.log(jnp.asarray(2, dtype)) / jnp.asarray(self.half_life, dtype)
            shares.append(jnp.expm1(rate) / jnp.expm1(rate * number))
        if self.power is not None:
            left = jnp.where(number > 1, jnp.log1p(-1 / jnp.maximum(number, 2)), -jnp.inf)
            shares.append(-jnp.expm1((jnp.asarray(self.power, dtype) + 1) * left))
        share = shares[0] if len(shares) == 1 else jnp.maximum(*shares)
        return jnp.where(n > 0, share, 0.0), n


@dataclasses.dataclass(frozen=True)
class CycleMean(Average):
    """The mean of the weights over a warm restart's cycle, begun anew by each; or of those at the cycles' ends.

        theta_bar = (theta_1 + ... + theta_n) / n       after n updates of the current cycle

    Attributes:
      ends: average the weights after the last update of each cycle instead, over all cycles.

    Source: Izmailov et al., arXiv 1803.05407, with the schedule's cycles.

    >>> CycleMean()
    CycleMean(ends=False)
    """

    ends: bool = False

    def __post_init__(self) -> None:
        checks.check_flag("ends", self.ends)

    def check(self, inner_state: optax.OptState) -> None:
        """Raise a ValueError where no warm restarts are inside."""
        nodes = nodes_of(inner_state, ScheduleState)
        known = [value_of(node.period) for node in nodes]
        endless = [not checks.is_traced(period) and int(period) >= checks.MAX_COUNT for period in known]
        if len(nodes) != 1 or any(endless):
            raise ValueError(
                "`average` must not be CycleMean unless `tx` has one schedule with cycles, from cosine_warm_restarts, "
                f"got {len(nodes) - sum(endless)} of them"
            )

    def share(self, count: chex.Array, seen: chex.Array, inner_state: optax.OptState) -> tuple[chex.Array, chex.Array]:
        """Return 1 / n and n: of the weights of this cycle, or of the ends so far; 0 during a warm-up."""
        del count
        (node,) = nodes_of(inner_state, ScheduleState)
        t_cur, period = value_of(node.t_cur), value_of(node.period)
        if self.ends:
            counts, begins = t_cur == period - 1, jnp.asarray(False)
        else:
            counts, begins = t_cur >= 0, t_cur == 0
        n = jnp.where(begins, 0, seen)
        n = jnp.where(counts, optax.safe_increment(n), n)
        return jnp.where(counts, 1 / jnp.maximum(n, 1).astype(jnp.result_type(float)), 0.0), n


@dataclasses.dataclass(frozen=True)
class DecayMerge(Average):
    """The weighted mean of the last weights of a constant rate that equals a decay of the rate over them.

    A rate that falls by the factors w_1 > ... > w_m = 0 over the last m updates goes from theta_0, the weights before
    them, to theta_0 + sum of w_j (theta_j - theta_(j-1)), as far as the steps are those of the constant rate. That is

        theta_bar = sum over j = 0 .. m - 1 of c_j theta_j,    c_0 = 1 - w_1,    c_j = w_j - w_(j+1)

    which is built up with the share c_j / (1 - w_(j+1)) of each theta_j. It is complete after `updates` updates.

    Attributes:
      shape: w_j = f(j / m), "linear": 1 - x; "cosine": (1 + cos(pi x)) / 2; "sqrt": 1 - sqrt(x), as in
        `warmup_stable_decay`; or a function f that falls from f(0) = 1 to f(1) = 0.
      updates: length of the run, an integer >= 1.
      last: m as a share of it, in (0, 1]: m = round(last updates), at least 1.

    Source: Tian et al., "WSM", arXiv 2507.17634.

    >>> DecayMerge("linear", updates=1000)
    DecayMerge(shape='linear', updates=1000, last=0.2)
    """

    shape: Any
    updates: Scalar
    last: Scalar = 0.2
    of_weights_before: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.shape):
            checks.check_choice("shape", self.shape, tuple(SHAPES), others="a function of x in [0, 1]")
        checks.check_count("updates", self.updates)
        checks.check_number("last", self.last, low=0, high=1, open_low=True)
        values = self._factor(jnp.linspace(0.0, 1.0, 65))
        if checks.is_traced(values):
            return
        if abs(float(values[0]) - 1) > 1e-5 or abs(float(values[-1])) > 1e-5 or bool(jnp.any(jnp.diff(values) > 1e-6)):
            raise ValueError(
                "`shape` must fall from 1 at x = 0 to 0 at x = 1, got "
                f"{float(values[0]):.3g} at 0, {float(values[32]):.3g} at 1/2, {float(values[-1]):.3g} at 1"
            )

    def _factor(self, x: chex.Array) -> chex.Array:
        return jnp.asarray((self.shape if callable(self.shape) else SHAPES[self.shape])(x))

    def share(self, count: chex.Array, seen: chex.Array, inner_state: optax.OptState) -> tuple[chex.Array, chex.Array]:
        """Return c_j / (1 - w_(j+1)) of the weights before the update; m weights are held once it is complete."""
        del seen, inner_state
        dtype = jnp.result_type(float)
        updates = jnp.asarray(self.updates, jnp.int32)
        length = jnp.maximum(jnp.round(jnp.asarray(self.last, dtype) * updates.astype(dtype)), 1).astype(jnp.int32)
        j = count - 1 - (updates - length)
        here, after = (self._factor(jnp.clip(k, 0, length).astype(dtype) / length.astype(dtype)) for k in (j, j + 1))
        inside = (j >= 0) & (j < length)
        share = jnp.where(j == 0, 1.0, (here - after) / jnp.where(after < 1, 1 - after, 1.0))
        # Until it is complete it is no weighted mean that equals a decay: then it holds no weights.
        return jnp.where(inside, jax.lax.clamp(0.0, share, 1.0), 0.0), jnp.where(count >= updates, length, 0)
