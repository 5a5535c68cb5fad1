"""The average that equals a decay of the rate."""

import dataclasses
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.averages import Average, AverageState, DecayMergeState
from adamw_jax._rates.shapes import SHAPES
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar


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
    state: ClassVar[type[AverageState]] = DecayMergeState
    of_weights_before: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.shape):
            checks.check_choice("shape", self.shape, tuple(SHAPES), others="a function of x in [0, 1]")
        checks.check_count("updates", self.updates)
        checks.check_number("last", self.last, low=0, high=1, open_low=True)
        values = self._factor(jnp.linspace(0.0, 1.0, 65))
        if checks.is_traced(values):
            return
        first, middle, end = (float(values[i]) for i in (0, 32, 64))
        if not (abs(first - 1) <= 1e-5 and abs(end) <= 1e-5 and bool(jnp.all(jnp.diff(values) <= 1e-6))):
            raise ValueError(
                "`shape` must fall from 1 at x = 0 to 0 at x = 1, and never rise, got "
                f"{first:.3g} at 0, {middle:.3g} at 1/2, {end:.3g} at 1"
            )

    def _factor(self, x: chex.Array) -> chex.Array:
        if not callable(self.shape):
            return SHAPES[self.shape](x)
        try:
            return jnp.broadcast_to(self.shape(x), x.shape)
        except TypeError as error:
            raise TypeError(
                f"`shape` must be a function of arrays, of jax.numpy instead of math, got {self.shape!r}: {error}"
            ) from error

    def share(self, count: chex.Array, seen: chex.Array, inner_state: optax.OptState) -> tuple[chex.Array, chex.Array]:
        """Return c_j / (1 - w_(j+1)) of the weights before the update; m weights are held once it is complete.

        Until then `seen` is minus the number of those in it, and 0 where the first of them was missed.
        """
        del inner_state
        dtype = jnp.result_type(float)
        updates = jnp.asarray(self.updates, jnp.int32)
        length = jnp.maximum(jnp.round(jnp.asarray(self.last, dtype) * updates.astype(dtype)), 1).astype(jnp.int32)
        j = count - 1 - (updates - length)
        here, after = (self._factor(jnp.clip(k, 0, length).astype(dtype) / length.astype(dtype)) for k in (j, j + 1))
        goes_on = (j == 0) | ((j > 0) & (j < length) & (seen == -j))
        share = jnp.where(j == 0, 1.0, (here - after) / jnp.where(after < 1, 1 - after, 1.0))
        n = jnp.where(j == length - 1, length, -(j + 1))
        finished = jnp.where((j >= length) & (seen == length), length, 0)
        return jnp.where(goes_on, jax.lax.clamp(0.0, share, 1.0), 0.0), jnp.where(goes_on, n, finished)
