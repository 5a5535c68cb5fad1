"""A decay's own factor c n r': what multiplies l1 sign(theta) + l2 theta in an update."""

import dataclasses
import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rules.leaf import is_matrix
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import values_now
from adamw_jax._tree import checks
from adamw_jax._tree.loop import extra_arg
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.typing import Mask, Rules, Scalar
from adamw_jax._tree.width import wide

COUPLINGS = ("learning_rate", "schedule", "constant")
"""What multiplies the decay, where one thing does for all leaves."""

NOT_NORMALIZED = r"embed|logits|lm_head|(^|/)(head|classifier|output)(/|$)"
"""Paths of the matrices that no normalization follows, as far as names tell: embeddings and output layers."""


@dataclasses.dataclass(frozen=True)
class Corrected:
    """The coupling of AdamC, to be given to a preset: `coupling=Corrected(...)`; "corrected" is `Corrected()`.

    On the layers that a normalization follows, the decay is multiplied by (alpha eta_t)^2 / peak; on all others by
    alpha eta_t, as with "learning_rate".

    Attributes:
      layers: the leaves of the first kind: a pattern, patterns, a function (path, leaf) -> bool, or a tree of flags.
        None: the matrices (see `matrices`) whose paths do not look like an embedding or an output layer
        (`NOT_NORMALIZED`).
      peak: the largest alpha eta_t of the run, > 0. None: alpha eta_max, where a preset can tell it.

    Source: Defazio, "Why Gradients Rapidly Increase Near the End of Training", arXiv 2506.02285, Algorithm 2.

    >>> Corrected().flags({"embed": jnp.ones((2, 2)), "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
    [False, True, False]
    """

    layers: Mask | None = None
    peak: Scalar | None = None

    def __post_init__(self) -> None:
        if self.peak is not None:
            checks.check_number("peak", self.peak, low=0, open_low=True)

    def flags(self, params: chex.ArrayTree) -> list[bool]:
        """Return for every leaf, in the order of `jax.tree.leaves`, whether a normalization follows its layer."""
        if self.layers is not None:
            return resolve_mask("layers", self.layers, params)
        pairs = zip(leaf_paths(params), jax.tree.leaves(params), strict=True)
        return [is_matrix(path, leaf) and re.search(NOT_NORMALIZED, path) is None for path, leaf in pairs]


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
    """Check what says over how many updates a decay is normalized."""
    if isinstance(normalize, str) and normalize != "cycle":
        raise ValueError(f"`{name}` must be None, a number or 'cycle', got {normalize!r}")
    if normalize is not None and not isinstance(normalize, str):
        checks.check_number(name, normalize, low=1)


def scaled(value: Any, r: Any) -> Any:
    """Return r times a decay, which stays zero, and known, where it is known to be zero."""
    return 0.0 if checks.equals(value, 0) else value * r


@dataclasses.dataclass(frozen=True)
class Strength:
    """The factor c n r' of a decay.

        c = eta ("schedule", the paper's form), alpha eta ("learning_rate"), 1 ("constant"), or by `Corrected`
            (alpha eta)^2 / peak on layers that a normalization follows and alpha eta on others
        n = 1, sqrt(1 / T) or sqrt(1 / T_i)
        r' = the leaf's multiplier, or 1

    Attributes:
      coupling: says what c is.
      normalize_decay: None for n = 1; T, a number of updates, >= 1; "cycle" for the period T_i of the current cycle.
      multipliers: rules that give r' per leaf; None is 1.
      peak: the largest alpha eta of the run, for `Corrected`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2, and appendix B.1; see `Corrected`.

    >>> print(Strength("learning_rate", 4).of(alpha=0.1, eta=0.5))
    0.025
    """

    coupling: str | Corrected = "schedule"
    normalize_decay: Scalar | str | None = None
    multipliers: Rules | None = None
    peak: Scalar | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, Corrected):
            checks.check_choice("coupling", self.coupling, (*COUPLINGS, "corrected"))
        check_normalize("normalize_decay", self.normalize_decay)

    @functools.cached_property
    def corrected(self) -> Corrected | None:
        """The corrected coupling, where it is that."""
        if isinstance(self.coupling, Corrected):
            return self.coupling
        return Corrected() if self.coupling == "corrected" else None

    def of(self, *, alpha: Any = 1.0, eta: Any = 1.0, period: Any = None, normalized: bool = False) -> Any:
        """Return c n for factors of an update: numbers, NumPy arrays over many updates, or traced scalars.

        Args:
          alpha, eta: the rate and the schedule's factor.
          period: T_i, for "cycle".
          normalized: whether a normalization follows the layer.

        Raises:
          ValueError: "cycle" without a period.
        """
        rate = alpha * eta
        if self.corrected is not None:
            c = rate * self._to_peak(rate) if normalized else rate
        else:
            c = {"learning_rate": rate, "schedule": eta, "constant": 1.0}[str(self.coupling)]
        return c * self.norm(period)

    def norm(self, period: Any = None) -> Any:
        """Return n alone."""
        if self.normalize_decay is None:
            return 1.0
        if not isinstance(self.normalize_decay, str):
            return normalization(self.normalize_decay)
        if period is None:
            raise ValueError("`normalize_decay` must not be 'cycle' outside of with_warm_restarts, got 'cycle'")
        return normalization(period)

    def _to_peak(self, rate: Any) -> Any:
        """Return alpha eta / peak; 1 where the peak is zero, as the rate is then."""
        peak = self.corrected.peak if self.corrected is not None and self.corrected.peak is not None else self.peak
        if peak is None:
            raise ValueError("`peak` must be given for a corrected coupling, got None")
        xp: Any = jnp if any(isinstance(x, jax.Array) for x in (rate, peak)) else np
        divisor = xp.where(xp.asarray(peak) == 0, 1.0, peak)
        return xp.where(xp.asarray(peak) == 0, 1.0, rate / divisor)

    def now(self, extra_args: dict[str, Any]) -> tuple[Any, Any]:
        """Return c n of an update, on leaves as they come and on those that a normalization follows.

        Raises:
          ValueError: an owner is missing around the stage that asks.
        """
        needs_alpha = self.corrected is not None or self.coupling == "learning_rate"
        eta = extra_args.get("eta")
        factors: dict[str, Any] = {
            "alpha": wide(extra_arg("alpha", extra_args)) if needs_alpha else 1.0,
            "eta": 1.0 if eta is None else wide(eta),
            "period": extra_args.get("period"),
        }
        plain = wide(self.of(**factors))
        return plain, plain if self.corrected is None else wide(self.of(**factors, normalized=True))

    def flags(self, params: chex.ArrayTree) -> list[bool]:
        """Return for every leaf whether the correction for normalized layers is its."""
        return [False] * len(jax.tree.leaves(params)) if self.corrected is None else self.corrected.flags(params)

    def scales(self, params: chex.ArrayTree, extra_args: dict[str, Any]) -> list[Any]:
        """Return r' for every leaf, as it is at the update that `extra_args` belong to."""
        return values_now("lr_multipliers", multipliers_of(self.multipliers, params), extra_args)
