"""Decoupled weight decay."""

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import optax
from jax.lax import add, mul, sign

from adamw_jax import checks
from adamw_jax.paths import check_decay, resolve_rules
from adamw_jax.schedules import normalized_decay
from adamw_jax.transforms.leaves import Kernel, map_leaves, wide
from adamw_jax.typing import Params, Rules, Scalar, Updates


def check_normalize(normalize: Scalar | str | None) -> None:
    """Check what says over how many updates a decay is normalized."""
    if isinstance(normalize, str) and normalize != "cycle":
        raise ValueError(f"`normalize` must be None, a number of updates or 'cycle', got {normalize!r}")
    if normalize is not None and not isinstance(normalize, str):
        checks.check_number("normalize", normalize, low=1)


def norm_of(normalize: Scalar | str | None, extra_args: dict[str, Any]) -> Any:
    """Return n = 1, sqrt(1 / T), or sqrt(1 / T_i) with the period that `with_warm_restarts` passes."""
    if normalize is None:
        return wide(1.0)
    if isinstance(normalize, jax.Array):
        return normalized_decay(1.0, normalize)
    if not isinstance(normalize, str):
        return wide(math.sqrt(1 / normalize))
    if extra_args.get("period") is None:
        raise ValueError("`normalize` must not be 'cycle' outside of with_warm_restarts, got 'cycle'")
    return normalized_decay(1.0, extra_args["period"])


def _no_state(params: Params) -> optax.OptState:
    del params
    return optax.EmptyState()


def _no_trees(updates: Updates, state: Any, extra_args: dict[str, Any]) -> tuple[chex.ArrayTree, ...]:
    del updates, state, extra_args
    return ()


def decay_stage(
    kernel: Kernel,
    weight_decay: Rules,
    normalize: Scalar | str | None,
    *,
    scalars: tuple[Scalar, ...] = (),
    init_state: Callable[[Params], optax.OptState] = _no_state,
    trees: Callable[[Updates, Any, dict[str, Any]], tuple[chex.ArrayTree, ...]] = _no_trees,
) -> optax.GradientTransformationExtraArgs:
    """Return a stage that adds a decay of the parameters to the updates.

    Args:
      kernel: kernel((n, *scalars), u, p, *trees, (l1, l2)) -> (new u,), see `map_leaves`.
      weight_decay, normalize: see `add_decoupled_decay`.
      scalars: further numbers for the kernel.
      init_state: parameters -> the stage's state, which updates do not change.
      trees: (updates, state, extra arguments) -> further trees like the parameters for the kernel.
    """
    check_normalize(normalize)

    def init(params: Params) -> optax.OptState:
        checks.check_floating("params", params)
        resolve_rules("weight_decay", weight_decay, params, check_decay, (0.0, 0.0))
        return init_state(params)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        decays: Any = resolve_rules(
            "weight_decay", weight_decay, updates if params is None else params, check_decay, (0.0, 0.0)
        )
        if all(checks.equals(l1, 0) and checks.equals(l2, 0) for l1, l2 in decays):
            return updates, state
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to decay them, got None")
        numbers = (norm_of(normalize, extra_args), *map(wide, scalars))
        (updates,) = map_leaves(kernel, numbers, (updates, params, *trees(updates, state, extra_args)), decays)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def pull(norm: Any, towards_zero: chex.Array, distance: chex.Array, decay: Any) -> chex.Array | float:
    """Return n (l1 sign(distance) + l2 towards_zero), without the terms known to be zero."""
    l1, l2 = decay
    terms = [] if checks.equals(l1, 0) else [mul(sign(distance), norm * l1)]
    terms += [] if checks.equals(l2, 0) else [mul(towards_zero, norm * l2)]
    return functools.reduce(add, terms) if terms else 0.0


def _decoupled(scalars: Any, u: Any, p: Any, decay: Any) -> tuple[chex.Array, ...]:
    (norm,) = scalars
    return (u if all(checks.equals(part, 0) for part in decay) else add(u, pull(norm, p, p, decay)),)


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

    >>> import jax.numpy as jnp
    >>> tx = add_decoupled_decay({"kernel": (0.1, 0.01)})
    >>> params = {"bias": jnp.array([3.0]), "kernel": jnp.array([-2.0])}
    >>> updates, _ = tx.update({"bias": jnp.zeros(1), "kernel": jnp.zeros(1)}, tx.init(params), params)
    >>> print(updates["bias"], updates["kernel"])
    [0.] [-0.12]
    """
    return decay_stage(_decoupled, weight_decay, normalize)
