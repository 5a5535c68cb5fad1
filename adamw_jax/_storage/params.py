"""Updates that lead to the stochastically rounded bfloat16 parameter."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamw_jax._storage.rounding import LOW, bits_of, noise, round_to_bfloat16, seed_of, to_float32
from adamw_jax._tree import checks
from adamw_jax._tree.stage import extra_arg, stateless
from adamw_jax._tree.typing import Params, Updates


@jax.jit
def _land(p: Any, u: Any, seed: Any) -> Any:
    if p.dtype != jnp.bfloat16:
        return u
    start = to_float32(p)
    rounded = round_to_bfloat16(start + u.astype(jnp.float32), noise(p.shape, seed, bits_of(u)) & LOW)
    return to_float32(rounded) - start


def round_to_params(round_params: bool = True) -> optax.GradientTransformationExtraArgs:
    """Round bfloat16 parameters stochastically, inside their updates.

        u <- round(theta + u) - theta           E[round(x)] = x

    Adding the updates in float32 and casting the sum to bfloat16, as `optax.apply_updates` does, gives the rounded
    parameter exactly. An optimizer returns the updates in the dtype of the gradients; as bfloat16 they are still exact
    where the parameter changes by less than a half (Sterbenz's lemma), and rounded to nearest beyond that. Without this
    stage, a bfloat16 parameter ignores every update below 2^-9 of it, such as the decay of most training runs. Updates
    of parameters of other dtypes stay as they are.

    Args:
      round_params: False does nothing, and has the same state.

    Returns:
      A stateless transformation for the end of a chain, behind the sign, inside `with_learning_rate`, whose count seeds
      the rounding. The updates of this stage for bfloat16 parameters are float32.

    Raises:
      ValueError: `update` without parameters, or outside of `with_learning_rate`.

    Warns:
      UserWarning: at `init`, if no parameter is bfloat16, for then it does nothing.

    Source: Gupta et al., arXiv 1502.02551, section 3.1.

    >>> from adamw_jax import with_learning_rate
    >>> tx = with_learning_rate(0.1, round_to_params())
    >>> params = jnp.ones(2000, jnp.bfloat16)
    >>> updates, _ = tx.update(jnp.full(2000, -0.001), tx.init(params), params)
    >>> print(f"{optax.apply_updates(params, updates).astype(jnp.float32).mean():.3f}")
    0.999
    """
    checks.check_flag("round_params", round_params)

    def check(params: Params) -> None:
        names = sorted({jnp.result_type(leaf).name for leaf in jax.tree.leaves(params)})
        if round_params and names and "bfloat16" not in names:
            warnings.warn(
                f"`round_params` does nothing: it rounds bfloat16 parameters, and these are {', '.join(names)}",
                stacklevel=3,
            )

    def apply(updates: Updates, params: Params | None, extra_args: dict[str, Any]) -> Updates:
        if not round_params:
            return updates
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to be rounded, got None")
        seed = seed_of(jnp.asarray(extra_arg("count", extra_args), jnp.int32))
        return jax.tree.map(lambda p, u: _land(p, u, seed), params, updates)

    return stateless(apply, check)
