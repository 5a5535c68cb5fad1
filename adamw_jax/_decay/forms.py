"""Forms of a decay: plain, only where the step agrees, bounded, and towards anchors."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.lax import add, mul, sign

from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.typing import Params, Scalar
from adamw_jax._tree.width import is_floating, own


def _pull(factor: Any, towards_zero: Any, distance: Any, decay: Any) -> Any:
    """Return c n r' (l1 sign(distance) + l2 towards_zero), without the terms known to be zero."""
    l1, l2 = decay
    terms = [] if checks.equals(l1, 0) else [mul(sign(distance), factor * l1)]
    terms += [] if checks.equals(l2, 0) else [mul(towards_zero, factor * l2)]
    return functools.reduce(add, terms) if terms else 0.0


def _plain(factor: Any, u: Any, p: Any, decay: Any) -> Any:
    return _pull(factor, p, p, decay)


def _cautious(factor: Any, u: Any, p: Any, decay: Any) -> Any:
    # A product of the signs, for a product of tiny numbers would underflow to zero and pass for agreement.
    return jnp.where(sign(u) * sign(p) >= 0, _pull(factor, p, p, decay), jnp.zeros_like(p))


def _huber(factor: Any, u: Any, p: Any, decay: Any, delta: Any) -> Any:
    return _pull(factor, jnp.clip(p, -delta, delta), p, decay)


def _anchored(factor: Any, u: Any, p: Any, decay: Any, anchor: Any) -> Any:
    return _pull(factor, p - anchor, p - anchor, decay)


@dataclasses.dataclass(frozen=True)
class Decoupled:
    """The plain form, towards zero: l1 sign(theta) + l2 theta."""

    term: ClassVar[Callable[..., Any]] = staticmethod(_plain)
    """(c n r', u, theta, (l1, l2), *numbers, *trees' leaves) -> the summand of u."""
    needs_size: ClassVar[bool] = False
    """Whether the half-life depends on the size of the weight."""

    @property
    def is_plain(self) -> bool:
        """True if this is l1 sign(theta) + l2 theta, and no form derived from it."""
        return type(self) is Decoupled

    def numbers(self) -> tuple[Scalar, ...]:
        """Return the numbers that the term needs besides."""
        return ()

    def beside(self, frozen: Sequence[bool]) -> "Decoupled":
        """Return the form for parameters of which some are frozen and may be of any dtype."""
        del frozen
        return self

    def init(self, params: Params) -> optax.OptState:
        """Return the state of the decay, which updates do not change."""
        del params
        return optax.EmptyState()

    def trees(self, state: Any) -> tuple[chex.ArrayTree, ...]:
        """Return the trees like the parameters in that state."""
        del state
        return ()

    def half_life(self, share: float, size: float | None = None) -> float | None:
        """Return the updates in which the decay alone halves a weight; None for never.

        Args:
          share: what l2 takes away in an update, as a share of the weight.
          size: of the weight, its root mean square; None if it is not known.
        """
        del size
        return None if share == 0 else 0.0 if share >= 1 else math.log(0.5) / math.log1p(-share)


@dataclasses.dataclass(frozen=True)
class Cautious(Decoupled):
    """The plain form where update and weight agree in sign, or the update is zero: [u theta >= 0] (l1 sign + l2 theta).

    Source: Chen et al., "Cautious Weight Decay", arXiv 2510.12402, Algorithm 1.

    >>> print(Cautious().half_life(0.5))
    2.0
    """

    term = staticmethod(_cautious)

    def half_life(self, share: float, size: float | None = None) -> float | None:
        """Return the half-life of a weight that the updates agree with half of the time: twice the plain one."""
        plain = super().half_life(share, size)
        return None if plain is None else 2 * plain


@dataclasses.dataclass(frozen=True)
class Huber(Decoupled):
    """A decay that stops growing at delta, the gradient of Huber's penalty: l1 sign(theta) + l2 clip(theta, +-delta).

    Attributes:
      delta: up to this magnitude the pull is l2 theta, beyond it l2 delta; > 0, in the parameter's unit.

    Source: the penalty of Huber 1964; as a decoupled decay: Guo & Fan, arXiv 2511.14721, whose proximal step this
    equals to first order in the decay; here delta is chosen by the user.

    >>> print(Huber(1.0).half_life(0.1, size=4.0))
    20.0
    """

    delta: Scalar
    term = staticmethod(_huber)
    needs_size = True

    def __post_init__(self) -> None:
        checks.check_number("delta", self.delta, low=0, open_low=True)

    def numbers(self) -> tuple[Scalar, ...]:
        """Return delta."""
        return (self.delta,)

    def half_life(self, share: float, size: float | None = None) -> float | None:
        """Return the half-life: linear beyond delta, the plain one within it, or where the size is not known."""
        plain, delta = super().half_life(share, size), float(self.delta)
        if plain is None or size is None or size <= delta:
            return plain
        return (size - max(size / 2, delta)) / (share * delta) + plain * max(0.0, math.log2(2 * delta / size))


class AnchoredDecayState(NamedTuple):
    """State of a decay towards anchors.

    Attributes:
      anchors: what the parameters are pulled to, a tree like them.
    """

    anchors: Params


@dataclasses.dataclass(frozen=True)
class Anchored(Decoupled):
    """A decay towards given parameters instead of zero: l1 sign(theta - theta_0) + l2 (theta - theta_0).

    The state holds a copy of the anchors, so that they are saved and sharded with it and no program has them as
    constants. When a run goes on, the anchors of its state count, and not those that the new optimizer is given:
    `optax.tree.set(state, anchors=others)` replaces them. Layers that fine-tuning adds have no start to go back to: a
    rule gives them 0, or an anchor of zeros makes theirs an ordinary decay. The half-life is that of the distance.

    Attributes:
      anchors: theta_0, a tree of the parameters' paths and shapes; None are the parameters given to `init`.

    Source: Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
    (L2-SP), arXiv 1802.01483, equation 3.

    >>> Anchored().init(jnp.array([1.0])).anchors
    Array([1.], dtype=float32)
    """

    anchors: Params | None = None
    term = staticmethod(_anchored)

    def beside(self, frozen: Sequence[bool]) -> "Anchored":
        """Return the form with zeros as anchors of frozen leaves that are not floating: they have no decay."""
        leaves: list[Any] = jax.tree.leaves(self.anchors)
        if self.anchors is None or len(leaves) != len(frozen):
            return self
        shown = [
            jnp.zeros(jnp.shape(leaf)) if flag and not is_floating(leaf) else leaf
            for leaf, flag in zip(leaves, frozen, strict=True)
        ]
        return dataclasses.replace(self, anchors=structure_of(self.anchors).unflatten(shown))

    def init(self, params: Params) -> optax.OptState:
        """Return a copy of the anchors.

        Raises:
          ValueError: anchors of other paths or shapes than the parameters'. TypeError: anchors that are not floating.
        """
        if not jax.tree.leaves(params):
            return AnchoredDecayState(params)  # the placeholder of optax.tree.map_params, or nothing to anchor
        start = params if self.anchors is None else self.anchors
        if leaf_paths(start) != leaf_paths(params):
            raise ValueError(
                f"`anchors` must have the structure of the parameters, {jax.tree.structure(params)}, "
                f"got {jax.tree.structure(start)}"
            )
        checks.check_floating("anchors", start)
        rows = zip(leaf_paths(params), jax.tree.leaves(start), jax.tree.leaves(params), strict=True)
        for path, anchor, p in rows:
            if jnp.shape(anchor) != jnp.shape(p):
                raise ValueError(
                    f"`anchors` must have the shapes of the parameters, {jnp.shape(p)} at {path!r}, "
                    f"got {jnp.shape(anchor)}"
                )
        return AnchoredDecayState(jax.tree.unflatten(jax.tree.structure(params), map(own, jax.tree.leaves(start))))

    def trees(self, state: Any) -> tuple[chex.ArrayTree, ...]:
        """Return the anchors."""
        return (state.anchors,)


FORMS = {"decoupled": Decoupled(), "cautious": Cautious(), "anchored": Anchored()}
"""The forms that need no argument, by name."""


def form_of(decay: str | Decoupled) -> Decoupled:
    """Return the form that an argument names or is."""
    if isinstance(decay, Decoupled):
        return decay
    return FORMS[checks.check_choice("decay", decay, FORMS, others="a form such as Huber(1.0)")]
