"""The stages that multiply by the rates, and the last one, which turns the ascent into a descent."""

import functools
import operator
from typing import Any

import chex
import jax
import optax

from adamw_jax._tree import checks
from adamw_jax._tree.loop import map_leaves
from adamw_jax._tree.stage import extra_arg, stateless
from adamw_jax._tree.typing import Params, Updates
from adamw_jax._tree.width import as_scalar


def _scale(scalars: Any, u: Any) -> tuple[chex.Array, ...]:
    (factor,) = scalars
    return (jax.lax.mul(u, factor),)


def scale_by_rates(*names: str) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by the rates that the owners around this stage pass: u <- alpha u, eta u or alpha eta u.

    Args:
      names: "alpha", which `with_learning_rate` passes, "eta", which `with_schedule` passes, or both.

    Raises:
      ValueError: no name, another one, or one twice; in `update`, an owner is missing around the stage.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import with_learning_rate, with_schedule
    >>> tx = with_learning_rate(0.1, with_schedule(0.5, scale_by_rates("alpha", "eta")))
    >>> updates, _ = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> print(updates)
    [0.05]
    """
    for name in names:
        checks.check_choice("names", name, ("alpha", "eta"))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`names` must be 'alpha', 'eta' or both, each once, got {names}")

    def apply(updates: Updates, params: Params | None, extra_args: dict[str, Any]) -> Updates:
        del params
        factor = functools.reduce(operator.mul, (as_scalar(extra_arg(name, extra_args)) for name in names))
        return map_leaves(_scale, (factor,), (updates,))[0]

    return stateless(apply)


def _negate(scalars: Any, u: Any) -> tuple[chex.Array, ...]:
    del scalars
    return (jax.lax.neg(u),)


def negate() -> optax.GradientTransformation:
    """Turn an ascent into a descent: u <- -u. `optax.scale(-1.0)`, with one trace for leaves that are alike.

    >>> import jax.numpy as jnp
    >>> updates, _ = negate().update(jnp.ones(1), optax.EmptyState())
    >>> print(updates)
    [-1.]
    """
    return optax.stateless(lambda updates, params: map_leaves(_negate, (), (updates,))[0])
