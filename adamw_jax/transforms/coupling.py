"""What multiplies a decay: the couplings, a decay as a term of its own, and the corrected coupling's factor."""

import dataclasses
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax import checks
from adamw_jax.paths import leaf_paths, resolve_mask
from adamw_jax.transforms.leaves import map_leaves, wide
from adamw_jax.transforms.rates import extra_arg
from adamw_jax.typing import Mask, Params, Scalar, Updates

COUPLINGS = ("learning_rate", "schedule", "constant")
"""What multiplies the decay: alpha and eta, eta, nothing; as an index, how many of (alpha, eta) come before it."""

NOT_NORMALIZED = r"embed|logits|lm_head|(^|/)(head|classifier|output)(/|$)"
"""Paths of the matrices that no normalization follows, as far as names tell: embeddings and output layers."""


@dataclasses.dataclass(frozen=True)
class Corrected:
    """The coupling of AdamC, to be given to a preset: `coupling=Corrected(...)`; "corrected" is `Corrected()`.

    On the layers that a normalization follows, the decay is multiplied by (alpha eta_t)^2 / peak; on all others by
    alpha eta_t, as with "learning_rate".

    Attributes:
      layers: the leaves of the first kind: a pattern, patterns, a function (path, leaf) -> bool, or a tree of flags.
        None: those of two or more axes whose paths do not look like an embedding or an output layer (`NOT_NORMALIZED`).
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
        return [jnp.ndim(leaf) >= 2 and re.search(NOT_NORMALIZED, path) is None for path, leaf in pairs]


def add_term(*stages: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Add what the stages make of zero updates: u <- u + stages(0).

    So a decay can have factors that the updates do not get. The stages find u as the extra argument `direction`, that
    of the outermost `add_term` where one is inside another.

    >>> tx = add_term(optax.add_decayed_weights(0.1), optax.scale(2.0))
    >>> params = jnp.array([1.0])
    >>> updates, _ = tx.update(jnp.array([3.0]), tx.init(params), params)
    >>> print(updates)
    [3.2]
    """
    inner = optax.with_extra_args_support(optax.chain(*stages))

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        zeros = optax.tree.zeros_like(updates)
        term, state = inner.update(zeros, state, params, **{"direction": updates, **extra_args})
        return optax.tree.add(updates, term), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def correction_to_peak(peak: Scalar, extra_args: dict[str, Any]) -> chex.Array:
    """Return alpha eta / peak; 1 where the peak is zero, as the rate is then."""
    rate = extra_arg("alpha", extra_args)
    if extra_args.get("eta") is not None:
        rate = rate * wide(extra_args["eta"])
    divisor = wide(peak)
    return jnp.where(divisor == 0, 1.0, rate / jnp.where(divisor == 0, 1.0, divisor))


def _correct(scalars: Any, u: Any, normalized: bool) -> tuple[chex.Array, ...]:
    (factor,) = scalars
    return (factor * u if normalized else u,)


def scale_by_correction(coupling: Corrected, peak: Scalar) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates of the layers that a normalization follows: u <- (alpha eta / peak) u.

    Args:
      coupling: says which layers these are.
      peak: the largest alpha eta of the run.

    Returns:
      A stateless transformation for the place before alpha and eta, inside their owners and, so that only a decay is
      scaled, inside `add_term`.

    Raises:
      ValueError, TypeError: layers that do not fit the parameters; no owner of alpha around it.

    Source: see `Corrected`.

    >>> from adamw_jax.transforms.rates import with_learning_rate
    >>> tx = with_learning_rate(0.5, scale_by_correction(Corrected("dense"), 1.0))
    >>> params = {"dense": jnp.ones(1), "head": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> print(updates["dense"], updates["head"])
    [0.5] [1.]
    """

    def init(params: Params) -> optax.EmptyState:
        coupling.flags(params)
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.EmptyState]:
        factor = correction_to_peak(peak, extra_args)
        flags = coupling.flags(updates if params is None else params)
        (updates,) = map_leaves(_correct, (factor,), (updates,), flags)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
