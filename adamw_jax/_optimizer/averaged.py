"""Reading the averaged weights out of a state."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._optimizer.averages import AverageState
from adamw_jax._tree import checks
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import is_hole, nodes_of, state_in, value_of
from adamw_jax._tree.typing import Params
from adamw_jax._tree.width import arithmetic_dtype


def averaged(state: optax.OptState, params: Params, *, missing: str = "raise") -> Params:
    """Return the averaged weights, in the parameters' dtypes and boxes.

    Args:
      state: an optimizer state that contains the state of one `with_average`.
      params: the parameters: leaves that are not averaged are theirs.
      missing: "raise" an error where the average has not begun, or is not complete yet (`DecayMerge`); "params" returns
        the parameters then, also under `jax.jit`.

    Returns:
      A tree like the parameters.

    Raises:
      ValueError: no `with_average` in the state, or several; an average that has not begun, with missing="raise", which
        cannot be decided under `jax.jit`.
    """
    checks.check_choice("missing", missing, ("raise", "params"))
    nodes = nodes_of(state_in(state), AverageState)
    if len(nodes) != 1:
        raise ValueError(f"`state` must contain the state of one with_average, got {len(nodes)}")
    (node,) = nodes
    seen = value_of(node.seen)
    if missing == "raise":
        if checks.is_traced(seen):
            raise ValueError('`missing` must be "params" under jax.jit, where an error cannot depend on the state')
        if not np.all(np.asarray(seen) > 0):
            raise ValueError(
                f"the average must have begun to be read, got none after {np.asarray(value_of(node.count))} updates: "
                "train on, begin it earlier (`start` of Ema, `updates` of DecayMerge), or read the parameters instead "
                'with missing="params"'
            )

    leaves, shown = jax.tree.leaves(node.average, is_leaf=is_hole), jax.tree.leaves(params)
    pairs = list(zip(leaves, shown, strict=False))
    if len(leaves) != len(shown) or any(not is_hole(x) and x.shape != jnp.shape(p) for x, p in pairs):
        raise ValueError(
            f"`params` must be the parameters that the average is of, {len(leaves)} leaves of its shapes, got "
            f"{len(shown)} leaves: give the part of the model that `init` was given"
        )

    def read(kept: Any, p: Any) -> Any:
        if is_hole(kept):
            return p
        new = kept.astype(arithmetic_dtype(p)).astype(jnp.result_type(p))
        # A leading axis, of runs that are mapped, stands before the leaf's own.
        begun = jnp.reshape(seen > 0, seen.shape + (1,) * (jnp.ndim(p) - seen.ndim))
        return new if missing == "raise" else jnp.where(begun, new, p)

    return structure_of(params).unflatten([read(*pair) for pair in pairs])
