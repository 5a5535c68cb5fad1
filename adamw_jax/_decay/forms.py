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
    # A product of tiny u and p would underflow to zero, and so count as agreement.
    return jnp.where(sign(u) * sign(p) >= 0, _pull(factor, p, p, decay), jnp.zeros_like(p))


def _huber(factor: Any, u: Any, p: Any, decay: Any, delta: Any) -> Any:
    return _pull(factor, jnp.clip(p, -delta, delta), p, decay)


def _anchored(factor: Any, u: Any, p: Any, decay: Any, anchor: Any) -> Any:
    return _pull(factor, p - anchor, p - anchor, decay)


@dataclasses.dataclass(frozen=True)
class Decoupled:
    """The plain form, towards zero: l1 sign(theta) + l2 theta. It is the base of the other forms."""

    term: ClassVar[Callable[..., Any]] = staticmethod(_plain)
    """(c n r', u, theta, (l1, l2), *numbers, *trees' leaves) -> what is added to u."""
    needs_size: ClassVar[bool] = False
    """Whether the half-life depends on the size of the weight."""

    @property
    def is_plain(self) -> bool:
        """True for this class, False for the forms derived from it."""
        return type(self) is Decoupled

    def beside(self, frozen: Sequence[bool]) -> "Decoupled":
        """Return the form for parameters of which some are frozen and may be of any dtype."""
        return self

    def init(self, params: Params) -> optax.OptState:
        """Return the state of the decay, which updates do not change."""
        return optax.EmptyState()

    def inputs(self, state: Any) -> tuple[Sequence[Scalar], Sequence[chex.ArrayTree]]:
        """Return the numbers, and the trees like the parameters, that the term takes besides."""
        return (), ()

    def half_life(self, share: float, size: float | None = None) -> float | None:
        """Return the updates in which l2, taking a share in each, halves a weight of the RMS `size`; None for never."""
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
        """Return twice the plain half-life: that of a weight which half of the updates agree with."""
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

    def inputs(self, state: Any) -> tuple[Sequence[Scalar], Sequence[chex.ArrayTree]]:
        """Return delta."""
        return (self.delta,), ()

    def half_life(self, share: float, size: float | None = None) -> float | None:
        """Return the half-life: linear beyond delta; the plain one within it, or where the size is not known."""
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
    constants. A resumed run keeps the anchors of its state, whatever the new optimizer is given:
    `optax.tree.set(state, anchors=others)` replaces them. For layers that fine-tuning adds, give a decay of 0, or
    anchors of zeros, which are a decay towards zero. The half-life is that of the distance.

    Attributes:
      anchors: theta_0, a tree of the parameters' paths and shapes; None are the parameters given to `init`.

    Source: Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
    (L2-SP), arXiv 1802.01483, equation 3.

    >>> Anchored().init(jnp.array([1.0])).anchors
    Array([1.], dtype=float32)
    """

    anchors: Params | None = None
    term = staticmethod(_anchored)

    def __repr__(self) -> str:
        return f"Anchored({'' if self.anchors is None else f'{len(jax.tree.leaves(self.anchors))} arrays'})"

    def beside(self, frozen: Sequence[bool]) -> "Anchored":
        """Return the form with zeros as anchors of frozen leaves that are not floating: they have no decay."""
        leaves: list[Any] = jax.tree.leaves(self.anchors)
        if self.anchors is None or len(leaves) != len(frozen):
            return self
        rows = zip(leaves, frozen, strict=True)
        shown = [jnp.zeros(jnp.shape(leaf)) if flag and not is_floating(leaf) else leaf for leaf, flag in rows]
        return dataclasses.replace(self, anchors=structure_of(self.anchors).unflatten(shown))

    def init(self, params: Params) -> optax.OptState:
        """Return a copy of the anchors; raise an error if they do not fit the parameters."""
        paths, leaves, structure = leaf_paths(params), jax.tree.leaves(params), structure_of(params)
        if not leaves:
            return AnchoredDecayState(params)  # the placeholder of optax.tree.map_params, or nothing to anchor
        start = params if self.anchors is None else self.anchors
        if leaf_paths(start) != paths:
            raise ValueError(
                f"`anchors` must have the structure of the parameters, {structure}, got {jax.tree.structure(start)}"
            )
        checks.check_floating("anchors", start)
        anchors = jax.tree.leaves(start)
        for path, got, wanted in zip(paths, map(jnp.shape, anchors), map(jnp.shape, leaves), strict=True):
            if got != wanted:
                raise ValueError(f"`anchors` must have the shapes of the parameters, {wanted} at {path!r}, got {got}")
        return AnchoredDecayState(structure.unflatten(map(own, anchors)))

    def inputs(self, state: Any) -> tuple[Sequence[Scalar], Sequence[chex.ArrayTree]]:
        """Return the anchors."""
        return (), (state.anchors,)


def form_of(decay: str | Decoupled) -> Decoupled:
    """Return the form that an argument names or is; the forms that need no argument have names."""
    if isinstance(decay, Decoupled):
        return decay
    forms = {"decoupled": Decoupled(), "cautious": Cautious(), "anchored": Anchored()}
    return forms[checks.check_choice("decay", decay, forms, others="a form such as Huber(1.0)")]
