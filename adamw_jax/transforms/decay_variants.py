"""Decays of another shape than l2 theta: cautious, Huber's, and towards anchors."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax import checks
from adamw_jax.transforms.decay import decay_stage, pull
from adamw_jax.typing import Params, Rules, Scalar, Updates


def _cautious(scalars: Any, u: Any, p: Any, direction: Any, decay: Any) -> tuple[chex.Array, ...]:
    (norm,) = scalars
    # A product of the signs, for a product of tiny numbers would underflow to zero and pass for agreement.
    agree = jnp.sign(direction) * jnp.sign(p) >= 0
    return (u + jnp.where(agree, pull(norm, p, p, decay), 0.0),)


def _direction(updates: Updates, state: Any, extra_args: dict[str, Any]) -> tuple[chex.ArrayTree, ...]:
    del state
    return (extra_args.get("direction", updates),)


def add_cautious_decay(
    weight_decay: Rules, *, normalize: Scalar | str | None = None
) -> optax.GradientTransformationExtraArgs:
    """Add the decay only where it pulls the way the step goes: where the update and the weight agree in sign.

        u <- u + [u theta >= 0] n (l1 sign(theta) + l2 theta)

    Args:
      weight_decay, normalize: as in `add_decoupled_decay`.

    Returns:
      A stateless transformation. What it compares with the weight are the incoming updates (so it stands after the
      direction), or the extra argument `direction` that `add_term` around this stage provides. Where the update is
      zero, the weight decays.

    Raises:
      ValueError, TypeError: as `add_decoupled_decay`.

    Source: Chen et al., "Cautious Weight Decay", arXiv 2510.12402, Algorithm 1.

    >>> tx = add_cautious_decay(0.1)
    >>> params = jnp.array([1.0, 1.0, -1.0])
    >>> updates, _ = tx.update(jnp.array([0.5, -0.5, 0.0]), tx.init(params), params)
    >>> print(updates)
    [ 0.6 -0.5 -0.1]
    """
    return decay_stage(_cautious, weight_decay, normalize, trees=_direction)


def _huber(scalars: Any, u: Any, p: Any, decay: Any) -> tuple[chex.Array, ...]:
    norm, delta = scalars
    return (u + pull(norm, jnp.clip(p, -delta, delta), p, decay),)


def add_huber_decay(
    weight_decay: Rules, *, delta: Scalar, normalize: Scalar | str | None = None
) -> optax.GradientTransformationExtraArgs:
    """Add a decay that stops growing at delta: the gradient of Huber's penalty.

        u <- u + n (l1 sign(theta) + l2 min(max(theta, -delta), delta))

    Args:
      weight_decay, normalize: as in `add_decoupled_decay`.
      delta: up to this magnitude the pull is l2 theta, beyond it l2 delta; > 0, in the parameter's unit.

    Returns:
      A stateless transformation; updates, of the sign of gradients, keep shape and dtype.

    Raises:
      ValueError, TypeError: as `add_decoupled_decay`; a delta that is not above zero.

    Source: the penalty of Huber 1964; as a decoupled decay: Guo & Fan, arXiv 2511.14721, whose proximal step this
    equals to first order in the decay, and with a delta of one's own choice.

    >>> tx = add_huber_decay(0.1, delta=1.0)
    >>> params = jnp.array([0.5, -4.0])
    >>> updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
    >>> print(updates)
    [ 0.05 -0.1 ]
    """
    checks.check_number("delta", delta, low=0, open_low=True)
    return decay_stage(_huber, weight_decay, normalize, scalars=(delta,))


class AnchoredDecayState(NamedTuple):
    """State of `add_anchored_decay`.

    Attributes:
      anchors: what the parameters are pulled to, a tree like them.
    """

    anchors: Params


def _anchored(scalars: Any, u: Any, p: Any, anchor: Any, decay: Any) -> tuple[chex.Array, ...]:
    (norm,) = scalars
    return (u + pull(norm, p - anchor, p - anchor, decay),)


def _anchors(updates: Updates, state: Any, extra_args: dict[str, Any]) -> tuple[chex.ArrayTree, ...]:
    del updates, extra_args
    return (state.anchors,)


def add_anchored_decay(
    weight_decay: Rules, *, anchors: Params | None = None, normalize: Scalar | str | None = None
) -> optax.GradientTransformationExtraArgs:
    """Add a decay towards given parameters instead of zero, for fine-tuning.

        u <- u + n (l1 sign(theta - theta_0) + l2 (theta - theta_0))

    Args:
      weight_decay, normalize: as in `add_decoupled_decay`. Layers that fine-tuning adds have no start to go back to: a
        rule gives them 0, or an anchor of zeros makes theirs an ordinary decay.
      anchors: theta_0, a tree of the parameters' structure and shapes; None are the parameters given to `init`.

    Returns:
      A transformation that keeps a copy of the anchors in its state, `AnchoredDecayState(anchors)`, so that they are
      saved and sharded with it and no program has them as constants.

    Raises:
      ValueError, TypeError: as `add_decoupled_decay`; anchors of another structure, or shape, at `init`.

    Source: Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
    (L2-SP), arXiv 1802.01483, equation 3.

    >>> tx = add_anchored_decay(0.1)
    >>> state = tx.init(jnp.array([1.0]))
    >>> updates, _ = tx.update(jnp.zeros(1), state, jnp.array([3.0]))
    >>> print(updates)
    [0.2]
    """

    def init_state(params: Params) -> AnchoredDecayState:
        start = params if anchors is None else anchors
        structure: Any = jax.tree.structure(params)
        if jax.tree.structure(start) != structure:
            raise ValueError(
                f"`anchors` must have the structure of the parameters, {structure}, got {jax.tree.structure(start)}"
            )
        checks.check_floating("anchors", start)
        for (path, anchor), p in zip(jax.tree.leaves_with_path(start), jax.tree.leaves(params), strict=True):
            if jnp.shape(anchor) != jnp.shape(p):
                where = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(
                    f"`anchors` must have the shapes of the parameters, {jnp.shape(p)} at {where!r}, "
                    f"got {jnp.shape(anchor)}"
                )
        # Copies: a program that donates the parameters and the state must not be given one buffer twice.
        return AnchoredDecayState(jax.tree.map(lambda anchor: jnp.array(anchor, copy=True), start))

    return decay_stage(_anchored, weight_decay, normalize, init_state=init_state, trees=_anchors)
