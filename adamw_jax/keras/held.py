"""Schedules whose factor the optimizer's own Variable `eta_t` holds."""

import chex

from adamw_jax._rates.cycles import Position, WarmRestarts
from adamw_jax._rates.schedule import Counted


class HeldFactor(Counted):
    """A factor that no schedule moves."""

    def advance(self, position: Position) -> Position:
        """The next count, added up as Keras adds up its iterations: both are one compiled loop."""
        return position._replace(t_cur=position.t_cur + 1)


class HeldCosine(WarmRestarts):
    """A cosine whose factor is always there: a Keras user sets `eta_t` itself, never leaves it pending."""

    def factor(self, position: Position, eta: chex.Array) -> chex.Array:
        """The factor that is held."""
        return eta
