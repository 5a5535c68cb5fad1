"""Couplings: c, the part of a decay's factor that follows the learning rate and the schedule."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rules.leaf import leaves_of
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._rules.values import Resolved
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Mask, Scalar


@dataclasses.dataclass(frozen=True)
class Schedule:
    """c = eta, the paper's form. It is the base of the other couplings.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2.

    >>> Schedule().factor(alpha=0.1, eta=0.5)
    0.5
    """

    name: ClassVar[str] = "schedule"
    needs_alpha: ClassVar[bool] = False
    """Whether c contains the learning rate."""
    needs_eta: ClassVar[bool] = True
    """Whether c contains the schedule's factor."""
    by_layer: ClassVar[bool] = False
    """Whether c differs on layers that a normalization follows."""

    def factor(self, alpha: Any, eta: Any, normalized: bool = False) -> Any:
        """Return c of an update: a number, a NumPy array over many updates, or a traced scalar.

        Args:
          alpha, eta: the learning rate and the schedule's factor.
          normalized: whether a normalization follows the layer.
        """
        return eta

    def with_peak(self, find: Callable[[], Scalar]) -> "Schedule":
        """Return the coupling with the largest alpha eta of the run, `find()`, if c depends on it."""
        return self

    def flags(self, params: chex.ArrayTree) -> list[bool]:
        """Return for every leaf, in the order of `jax.tree.leaves`, whether c is that of normalized layers."""
        return [False] * len(jax.tree.leaves(params))

    def resolved(self, params: chex.ArrayTree) -> "Schedule":
        """Return the coupling with its rules resolved for a tree, see `Resolved`."""
        return self


@dataclasses.dataclass(frozen=True)
class LearningRate(Schedule):
    """c = alpha eta, the form of optax, PyTorch and Keras."""

    name = "learning_rate"
    needs_alpha = True

    def factor(self, alpha: Any, eta: Any, normalized: bool = False) -> Any:
        """Return alpha eta."""
        return alpha * eta


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """c = 1: the decay follows neither the learning rate nor the schedule."""

    name = "constant"
    needs_eta = False

    def factor(self, alpha: Any, eta: Any, normalized: bool = False) -> Any:
        """Return 1."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class Corrected(LearningRate):
    """The coupling of AdamC, to be given to a preset: `coupling=Corrected(...)`; "corrected" is `Corrected()`.

        c = (alpha eta)^2 / peak      on layers that a normalization follows
        c = alpha eta                 on all others, as with "learning_rate"

    Attributes:
      layers: the layers that a normalization follows: a pattern, patterns, a function (path, leaf) -> bool, or a tree
        of flags. None: the matrices (see `matrices`) whose names are not those of embeddings and output layers.
      peak: the largest alpha eta of the run, > 0. None: an optimizer finds it where rate and schedule are numbers or
        `cosine_warm_restarts` with `eta_max_decay` <= 1.

    Source: Defazio, "Why Gradients Rapidly Increase Near the End of Training", arXiv 2506.02285, Algorithm 2.

    >>> Corrected().flags({"embed": jnp.ones((2, 2)), "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
    [False, True, False]
    """

    layers: Mask | None = None
    peak: Scalar | None = None
    name = "corrected"
    by_layer = True

    def __post_init__(self) -> None:
        if self.peak is not None:
            checks.check_number("peak", self.peak, low=0, open_low=True)

    def factor(self, alpha: Any, eta: Any, normalized: bool = False) -> Any:
        """Return (alpha eta)^2 / peak or alpha eta.

        Raises:
          ValueError: the peak is not known.
        """
        rate = alpha * eta
        if not normalized:
            return rate
        if self.peak is None:
            raise ValueError("`peak` must be given for a corrected coupling, got None")
        xp: Any = jnp if any(isinstance(x, jax.Array) for x in (rate, self.peak)) else np
        is_zero = xp.asarray(self.peak) == 0
        # Where the peak is zero, so is the rate, and the ratio is of no effect.
        return rate * xp.where(is_zero, 1.0, rate / xp.where(is_zero, 1.0, self.peak))

    def with_peak(self, find: Callable[[], Scalar]) -> "Corrected":
        """Return the coupling with the given peak, or else with `find()`; with any for a rate that is always 0."""
        if self.peak is not None:
            return self
        peak = find()
        return dataclasses.replace(self, peak=1.0 if checks.equals(peak, 0) else peak)

    def flags(self, params: chex.ArrayTree) -> list[bool]:
        """Return for every leaf, in the order of `jax.tree.leaves`, whether a normalization follows its layer."""
        if self.layers is not None:
            return resolve_mask("layers", self.layers, params)
        return [leaf.role == "matrix" for leaf in leaves_of(params)]

    def resolved(self, params: chex.ArrayTree) -> "Corrected":
        """Return the coupling with its rules resolved."""
        return dataclasses.replace(self, layers=Resolved(self.flags(params)))


def coupling_of(coupling: str | Schedule) -> Schedule:
    """Return the coupling that an argument names or is."""
    if isinstance(coupling, Schedule):
        return coupling
    couplings = {each.name: each for each in (LearningRate(), Schedule(), Constant(), Corrected())}
    return couplings[checks.check_choice("coupling", coupling, couplings)]
