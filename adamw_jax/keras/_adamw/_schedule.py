"""Schedules whose factor and length the optimizer's own Variables hold, where users and callbacks set them."""

import dataclasses
from typing import Any

import chex
import jax.numpy as jnp

from adamw_jax._rates.position import Counted, Position
from adamw_jax._rates.restarts import WarmRestarts, cosine_warm_restarts


class SettableFactor(Counted):
    """A factor that no schedule moves."""

    def advance(self, position: Position) -> Position:
        """Return the next count, added up as Keras adds up its iterations: both are one compiled loop."""
        return position._replace(t_cur=position.t_cur + 1)


@dataclasses.dataclass(frozen=True, eq=False)
class SettableCosine(WarmRestarts):
    """A cosine whose factor is always there: a Keras user sets `eta_t` itself, never leaves it pending.

    Attributes:
      following: the length that a cycle takes when it makes its first update; None where `t_mult` says it.
    """

    following: Any = None

    def factor(self, position: Position, eta: chex.Array) -> chex.Array:
        """Return the factor that is held."""
        return eta

    def advance(self, position: Position) -> Position:
        """Return the position one update later, in a cycle of the length that was set before it began."""
        if self.following is not None:
            begins = position.t_cur <= 0
            position = position._replace(period=jnp.where(begins, self.following, position.period))
        return super().advance(position)


def settable_cosine(period: int, t_mult: float, autorestart: bool, **settable: Any) -> SettableCosine:
    """Return the cosine of `cosine_warm_restarts`, with settable numbers.

    Args:
      period: updates of the first cycle, >= 1.
      t_mult: ratio of the lengths of consecutive cycles, > 0.
      autorestart: whether the next cycle begins by itself.
      **settable: `eta_min` and `eta_max`, and `following`.
    """
    following = settable.pop("following", None)
    ratio = t_mult if autorestart else 1  # without a next cycle it has no meaning
    cosine = cosine_warm_restarts(period, t_mult=ratio, autorestart=autorestart, **settable)
    return SettableCosine(**vars(cosine), following=following)
