"""Kinds of averages: which share of it each update's weights get."""

import dataclasses
from typing import ClassVar, NamedTuple

import chex
import jax.numpy as jnp
import optax

from adamw_jax._rates.owner import ScheduleState
from adamw_jax._tree import checks
from adamw_jax._tree.state import nodes_of, value_of
from adamw_jax._tree.typing import Params, Scalar


class AverageState(NamedTuple):
    """State of `with_average`.

    Attributes:
      count: updates made, int32; an update that the optimizer inside skipped is none.
      seen: weights that the average holds, int32; 0 where it has not begun, negative where it is not complete.
      average: the averaged weights, a tree like the parameters; `optax.MaskedNode` where `but` leaves a leaf out.
      inner_state: state of the optimizer inside.
    """

    count: chex.Array
    seen: chex.Array
    average: Params
    inner_state: optax.OptState


class EmaState(AverageState):
    """State of `with_average` of an `Ema`."""


class CycleMeanState(AverageState):
    """State of `with_average` of a `CycleMean`."""


class DecayMergeState(AverageState):
    """State of `with_average` of a `DecayMerge`."""


@dataclasses.dataclass(frozen=True)
class Average:
    """A kind of average."""

    state: ClassVar[type[AverageState]]
    """Its own type, for the weights that one kind holds are none of another's."""

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

    state: ClassVar[type[AverageState]] = EmaState
    half_life: Scalar | None = None
    start: Scalar = 0
    power: Scalar | None = None

    def __post_init__(self) -> None:
        if self.half_life is None and self.power is None:
            raise ValueError("`half_life` must be given, a number of updates > 0, or `power`, got None for both")
        if self.half_life is not None:
            checks.check_number("half_life", self.half_life, low=0, open_low=True)
            if not checks.is_traced(self.half_life) and 0.9 <= float(self.half_life) < 1:
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
        n = jnp.where(count > jnp.asarray(self.start, jnp.int32), optax.safe_increment(jnp.maximum(seen, 0)), 0)
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

    In a warm-up it stays as it is. Where it holds more weights than the cycle has made updates, as after
    `set_position`, it begins anew.

    Attributes:
      ends: average the weights after the last update of each cycle instead, over all cycles.

    Source: Izmailov et al., arXiv 1803.05407, with the schedule's cycles.

    >>> CycleMean()
    CycleMean(ends=False)
    """

    state: ClassVar[type[AverageState]] = CycleMeanState
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
        # More weights than the cycle had so far are those of the cycle before, or of another average.
        counts = t_cur == period - 1 if self.ends else t_cur >= 0
        held = jnp.maximum(seen, 0) if self.ends else jnp.where((seen < 0) | (seen > t_cur), 0, seen)
        n = jnp.where(counts, optax.safe_increment(held), jnp.maximum(seen, 0))
        return jnp.where(counts, 1 / jnp.maximum(n, 1).astype(jnp.result_type(float)), 0.0), n
