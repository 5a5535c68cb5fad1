"""A decay's own factor c n r': what multiplies l1 sign(theta) + l2 theta in an update."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._decay.coupling import Schedule, coupling_of
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import values_now
from adamw_jax._tree import checks
from adamw_jax._tree.stage import extra_arg
from adamw_jax._tree.typing import Rules, Scalar
from adamw_jax._tree.width import as_scalar


def normalization(updates: Any) -> Any:
    """Return n = sqrt(1 / T), the factor that makes a decay carry over between budgets of T updates.

    Source: Loshchilov & Hutter, arXiv 1711.05101, appendix B.1, with T = B T_epochs / b.

    >>> print(normalization(100))
    0.1
    """
    if isinstance(updates, jax.Array):
        return jnp.sqrt(1 / updates.astype(jnp.result_type(float)))
    return np.sqrt(1 / np.asarray(updates, np.float64))


def check_normalize(name: str, normalize: Scalar | str | None) -> None:
    """Check T, the number of updates over which a decay is normalized: a number, "cycle" or None."""
    if isinstance(normalize, str):
        if normalize != "cycle":
            raise ValueError(f"`{name}` must be None, a number or 'cycle', got {normalize!r}")
    elif normalize is not None:
        checks.check_number(name, normalize, low=1)


def scaled(value: Any, r: Any) -> Any:
    """Return r times a decay. A known zero stays one, so that its terms are left out of the program."""
    return 0.0 if checks.equals(value, 0) else value * r


@dataclasses.dataclass(frozen=True)
class DecayFactor:
    """The factor c n r' of a decay.

        c = eta ("schedule", the paper's form), alpha eta ("learning_rate"), 1 ("constant"), or that of `Corrected`
        n = 1, sqrt(1 / T) or sqrt(1 / T_i)
        r' = the leaf's multiplier, or 1

    Attributes:
      coupling: says what c is, by name or as `Corrected(layers, peak)`.
      normalize_decay: None for n = 1; T, a number of updates, >= 1; "cycle" for the period T_i of the current cycle.
      multipliers: rules that give r' per leaf; None is 1.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2, and appendix B.1; see `Corrected`.

    >>> print(DecayFactor("learning_rate", 4).of(alpha=0.1, eta=0.5))
    0.025
    """

    coupling: str | Schedule = "schedule"
    normalize_decay: Scalar | str | None = None
    multipliers: Rules | None = None

    def __post_init__(self) -> None:
        coupling_of(self.coupling)
        check_normalize("normalize_decay", self.normalize_decay)

    @property
    def c(self) -> Schedule:
        """The coupling as an object."""
        return coupling_of(self.coupling)

    def of(self, *, alpha: Any = 1.0, eta: Any = 1.0, period: Any = None, normalized: bool = False) -> Any:
        """Return c n for factors of an update: numbers, NumPy arrays over many updates, or traced scalars.

        Args:
          alpha, eta: the rate and the schedule's factor.
          period: T_i, for "cycle".
          normalized: whether a normalization follows the layer.

        Raises:
          ValueError: "cycle" without a period.
        """
        return self.c.factor(alpha, eta, normalized) * self.norm(period)

    def norm(self, period: Any = None) -> Any:
        """Return n alone."""
        if self.normalize_decay is None:
            return 1.0
        if not isinstance(self.normalize_decay, str):
            return normalization(self.normalize_decay)
        if period is None:
            raise ValueError("`normalize_decay` must not be 'cycle' outside of with_schedule, got 'cycle'")
        return normalization(period)

    def now(self, extra_args: dict[str, Any]) -> tuple[Any, Any]:
        """Return c n of an update: for layers that no normalization follows, and for the others.

        Raises:
          ValueError: the optimizer or stage that provides alpha, eta or the period is missing.
        """
        eta = extra_args.get("eta")
        factors: dict[str, Any] = {
            "alpha": as_scalar(extra_arg("alpha", extra_args)) if self.c.needs_alpha else 1.0,
            "eta": 1.0 if eta is None else as_scalar(eta),
            "period": extra_args.get("period"),
        }
        plain = as_scalar(self.of(**factors))
        return plain, as_scalar(self.of(**factors, normalized=True)) if self.c.by_layer else plain

    def on_leaves(
        self, decays: Sequence[tuple[Any, ...]], params: chex.ArrayTree, extra_args: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        """Return for every leaf its decays times the r' of an update, and whether a normalization follows its layer."""
        factors = values_now("lr_multipliers", multipliers_of(self.multipliers, params), extra_args)
        rows = zip(decays, factors, self.c.flags(params), strict=True)
        return [(*(scaled(decay, r) for decay in each), flag) for each, r, flag in rows]
