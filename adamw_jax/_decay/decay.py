"""The stage that adds a decay of the parameters to the updates."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import optax
from jax.lax import add

from adamw_jax._decay.factor import DecayFactor, check_normalize
from adamw_jax._decay.forms import Decoupled, form_of
from adamw_jax._rules.stacks import values_of
from adamw_jax._rules.values import check_decay, check_rules, check_start, values_now
from adamw_jax._tree import checks
from adamw_jax._tree.loop import Kernel, map_leaves
from adamw_jax._tree.stage import params_or_updates
from adamw_jax._tree.typing import Params, Rules, Scalar, Updates
from adamw_jax._tree.width import as_scalar


def decays_of(rules: Rules, tree: chex.ArrayTree, axes: Any = None) -> list[Any]:
    """Return the pair (l1, l2) of every leaf: numbers, schedules, or arrays along its stack; 0 where no rule is."""
    return values_of("weight_decay", rules, tree, check_decay, (0.0, 0.0), axes)


@functools.cache
def _kernel(term: Callable[..., Any]) -> Kernel:
    def kernel(scalars: Any, u: Any, p: Any, *rest: Any) -> tuple[chex.Array, ...]:
        plain, corrected, *numbers = scalars
        *trees, (l1, l2, normalized) = rest
        if checks.equals(l1, 0) and checks.equals(l2, 0):
            return (u,)
        return (add(u, term(corrected if normalized else plain, u, p, (l1, l2), *numbers, *trees)),)

    return kernel


def add_decoupled_decay(
    weight_decay: Rules,
    *,
    form: str | Decoupled = "decoupled",
    normalize: Scalar | str | None = None,
    factor: DecayFactor | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Add the decay of the parameters to the updates.

        u <- u + c n r' (l1 sign(theta) + l2 theta)          in the plain form; sign(0) = 0

    Without `factor`, the stages behind this one in a chain multiply the decay: eta for the paper's form, alpha and eta
    for that of optax, PyTorch and Keras, nothing for a constant decay. With `factor`, the decay has its whole factor,
    and the stage stands behind all rates, as in `decoupled`.

    Args:
      weight_decay: rules that give l2, or (l1, l2), per leaf, each >= 0: a number for all leaves, {pattern: value}, a
        function (path, leaf) -> value, or a tree; 0 where no pattern matches. A value may be a schedule count ->
        number, inside `with_learning_rate`.
      form: "decoupled", "cautious" (compares the weight with the incoming updates, so it stands behind the direction),
        "anchored" (to the parameters given to `init`), or `Cautious()`, `Huber(delta)`, `Anchored(anchors)`.
      normalize: for n: None; T, the number of updates to normalize over, >= 1; or "cycle" for the period T_i of the
        current restart cycle, which `with_schedule` around this stage provides.
      factor: c n r', in place of a position in the chain and of `normalize`.

    Returns:
      A transformation whose updates, of the sign of gradients, keep shape and dtype. It has no state, except
      `AnchoredDecayState(anchors)`.

    Raises:
      ValueError, TypeError: rules that do not fit the parameters (at `init` already), `update` without parameters
        where a decay is not zero, "cycle" outside of `with_schedule`, a schedule outside `with_learning_rate`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2, and appendix B.1 for the normalization.

    >>> import jax.numpy as jnp
    >>> tx = add_decoupled_decay({"kernel": (0.1, 0.01)})
    >>> params = {"bias": jnp.array([3.0]), "kernel": jnp.array([-2.0])}
    >>> updates, _ = tx.update({"bias": jnp.zeros(1), "kernel": jnp.zeros(1)}, tx.init(params), params)
    >>> print(updates["bias"], updates["kernel"])
    [0.] [-0.12]
    """
    check_rules("weight_decay", weight_decay, check_decay)
    shape = form_of(form)
    check_normalize("normalize", normalize)
    if factor is not None and normalize is not None:
        raise ValueError(f"`normalize` must not be given beside `factor`, which contains it, got {normalize!r}")
    whole = DecayFactor("constant", normalize) if factor is None else factor

    def init(params: Params) -> optax.OptState:
        checks.check_floating("params", params)
        check_start("weight_decay", decays_of(weight_decay, params))
        whole.c.flags(params)
        return shape.init(params)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        tree = params_or_updates(updates, params)
        decays: Any = values_now("weight_decay", decays_of(weight_decay, tree), extra_args)
        if all(checks.equals(l1, 0) and checks.equals(l2, 0) for l1, l2 in decays):
            return updates, state
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to decay them, got None")
        numbers, trees = shape.inputs(state)
        scalars = (*whole.now(extra_args), *map(as_scalar, numbers))
        values = whole.on_leaves(decays, tree, extra_args)
        (updates,) = map_leaves(_kernel(shape.term), scalars, (updates, params, *trees), values)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
