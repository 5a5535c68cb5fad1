"""Decoupled weight decay."""

from typing import Any

import chex
import jax.numpy as jnp
import optax

from adamw_jax import checks
from adamw_jax.paths import check_decay, resolve_rules
from adamw_jax.schedules import normalized_decay
from adamw_jax.transforms.leaves import map_leaves, wide
from adamw_jax.typing import Params, Rules, Scalar, Updates


def _add_decay(scalars: Any, u: Any, p: Any, decay: Any) -> tuple[chex.Array, ...]:
    (norm,) = scalars
    l1, l2 = decay
    if not checks.equals(l1, 0):
        u = u + norm * jnp.asarray(l1, u.dtype) * jnp.sign(p)
    if not checks.equals(l2, 0):
        u = u + norm * jnp.asarray(l2, u.dtype) * p
    return (u,)


def add_decoupled_decay(
    weight_decay: Rules, *, normalize: Scalar | str | None = None
) -> optax.GradientTransformationExtraArgs:
    """Add the decay of the parameters to the updates.

        u <- u + n (l1 sign(theta) + l2 theta)           n = 1, sqrt(1 / T), or sqrt(1 / T_i)

    What multiplies the decay is what comes after this stage in the chain: eta for the paper's form, alpha and eta for
    that of optax, PyTorch and Keras, nothing for a constant decay. sign(0) = 0.

    Args:
      weight_decay: rules that give l2, or (l1, l2), per leaf, each >= 0 (a number for all leaves, {pattern: value}, a
        function (path, leaf) -> value, or a tree); 0 where no pattern matches.
      normalize: None; T, the number of updates to normalize over, >= 1; or "cycle" for the period T_i of the current
        restart cycle, which `with_warm_restarts` around this stage provides.

    Returns:
      A stateless transformation; updates, of the sign of gradients, keep shape and dtype.

    Raises:
      ValueError, TypeError: rules that do not fit the parameters (at `init` already), `update` without parameters
        where a decay is not zero, "cycle" outside of `with_warm_restarts`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2, and appendix B.1 for the normalization.

    >>> tx = add_decoupled_decay({"kernel": (0.1, 0.01)})
    >>> params = {"bias": jnp.array([3.0]), "kernel": jnp.array([-2.0])}
    >>> updates, _ = tx.update({"bias": jnp.zeros(1), "kernel": jnp.zeros(1)}, tx.init(params), params)
    >>> print(updates["bias"], updates["kernel"])
    [0.] [-0.12]
    """
    if normalize is not None and not (isinstance(normalize, str) and normalize == "cycle"):
        if isinstance(normalize, str):
            raise ValueError(f"`normalize` must be None, a number of updates or 'cycle', got {normalize!r}")
        checks.check_number("normalize", normalize, low=1)

    def init(params: Params) -> optax.EmptyState:
        checks.check_floating("params", params)
        resolve_rules("weight_decay", weight_decay, params, check_decay, (0.0, 0.0))
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.EmptyState]:
        decays: Any = resolve_rules(
            "weight_decay", weight_decay, updates if params is None else params, check_decay, (0.0, 0.0)
        )
        if all(checks.equals(l1, 0) and checks.equals(l2, 0) for l1, l2 in decays):
            return updates, state
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to decay them, got None")
        norm = wide(1.0)
        if isinstance(normalize, str):
            if extra_args.get("period") is None:
                raise ValueError("`normalize` must not be 'cycle' outside of with_warm_restarts, got 'cycle'")
            norm = normalized_decay(1.0, extra_args["period"])
        elif normalize is not None:
            norm = normalized_decay(1.0, normalize)
        (updates,) = map_leaves(_add_decay, (norm,), (updates, params), decays)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
