"""The learning rate of a transformation from `optax.inject_hyperparams`: which leaf of the state it is."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

RATE = "learning_rate"
_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def _marked(state: Any) -> Any:
    """Return the state with a word at each leaf: "number" or "schedule" at an injected rate, "" elsewhere."""

    def mark(node: Any) -> Any:
        if not isinstance(node, _INJECTED):
            return ""
        scheduled = getattr(node, "hyperparams_states", {})
        words = {name: ("schedule" if name in scheduled else "number") for name in node.hyperparams}
        rates = {name: word if name == RATE else "" for name, word in words.items()}
        rest = jax.tree.map(lambda _: "", node._replace(hyperparams={}, inner_state=()))
        return rest._replace(hyperparams=rates, inner_state=_marked(node.inner_state))

    return jax.tree.map(mark, state, is_leaf=lambda node: isinstance(node, _INJECTED))


def injected_rates(state: Any) -> dict[int, str]:
    """Return the positions of the leaves that are rates, with "schedule" where a schedule gives them, else "number".

    Args:
      state: of any transformation.

    >>> import jax.numpy as jnp
    >>> tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.5))
    >>> injected_rates(tx.init(jnp.zeros(1)))
    {1: 'number'}
    """
    return {position: word for position, word in enumerate(jax.tree.leaves(_marked(state))) if word}


def following_rates(init: Callable[[Any], Any], state: Any) -> list[int]:
    """Return the positions of the rates in a state that an `init` of the rate computes from it.

    A function of the rate with `optax.inject_hyperparams` inside keeps its first rate in the state, where a new one
    would not arrive.

    Args:
      init: rate -> state.
      state: one that it returned.
    """
    positions = [position for position, word in injected_rates(state).items() if word == "number"]
    if not positions:
        return []
    some = jax.jit(lambda rate: [jax.tree.leaves(init(rate))[position] for position in positions])
    pairs = zip(positions, some(0.25), some(0.5), strict=True)
    return [position for position, one, other in pairs if not np.array_equal(one, other)]


def why_refused(rates: dict[int, str]) -> str | None:
    """Return why the rate of a ready transformation cannot be set; None where it can."""
    if list(rates.values()) == ["number"]:
        return None
    if len(rates) > 1:
        return f"`tx` holds {len(rates)} rates, which keep their own values"
    return "`tx` takes its rate from a schedule" if rates else "`tx` was built with a rate of its own"
