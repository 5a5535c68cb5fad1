"""The logarithm of the norm of the gradients that can move a parameter."""

import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.optimizer import plan_of
from adamw_jax._rules.freezing import frozen_flags
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Updates
from adamw_jax._tree.width import arithmetic_dtype


def watched(tx: optax.GradientTransformation, updates: Updates, tree: chex.ArrayTree) -> list[Any]:
    """Return the gradients that can move a parameter: of floating leaves that `tx` is not known to freeze."""
    plan, leaves = plan_of(tx), jax.tree.leaves(updates)
    frozen = [False] * len(leaves) if plan is None else frozen_flags(plan.freeze, tree)
    if plan is not None and plan.lr_multipliers is not None:
        multipliers = multipliers_of(plan.lr_multipliers, tree)
        frozen = [flag or checks.equals(r, 0) for flag, r in zip(frozen, multipliers, strict=True)]
    rows = zip(leaves, frozen, strict=True)
    return [leaf for leaf, flag in rows if not flag and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]


def log_norm(leaves: Sequence[Any]) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Return log |g| over all leaves, in float32 or wider, and whether |g| is finite and whether it is not zero."""
    # A complex leaf has no arithmetic dtype; bfloat16 and float16 would overflow or round the sum.
    wide = [x if jnp.iscomplexobj(x) else jax.lax.convert_element_type(x, arithmetic_dtype(x)) for x in leaves]

    def square(scale: float) -> chex.Array:
        return jnp.asarray(optax.tree.norm([x * scale for x in wide], squared=True), jnp.result_type(float))

    # Squares of float32 overflow at 1e19 and underflow at 1e-19: three sums in one pass over the gradients.
    plain, small, large = square(1.0), square(2.0**-80), square(2.0**70)
    finite, positive = jnp.isfinite(small), large > 0
    scaled = jnp.where(jnp.isfinite(plain), large, small)
    shift = jnp.where(jnp.isfinite(plain), -70 * math.log(2), 80 * math.log(2))
    usual = jnp.isfinite(plain) & (plain > 1e-30)
    x = jnp.log(jnp.sqrt(jnp.where(usual & positive, plain, 1.0)))
    other = jnp.log(jnp.sqrt(jnp.where(finite & positive, scaled, 1.0))) + shift
    return jnp.where(usual, x, other), finite, positive
