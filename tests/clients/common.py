"""What the clients share: three optimizers, and a training that is stopped, saved and resumed."""

import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import adamw_jax as aj

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adamw, matrices": lambda: aj.adamw(1e-2, weight_decay=aj.matrices(1e-3)),
    "packed, restarts": lambda: aj.adamw(
        1e-2, weight_decay=1e-4, moment_dtype="packed", schedule=aj.cosine_warm_restarts(10, eta_min=0.1)
    ),
    "observe(skip_spikes)": lambda: aj.observe(aj.skip_spikes(aj.adamw(1e-2, weight_decay=1e-4)), every=5),
}


def resumed(carry: Any) -> Any:
    """Return what a client saves, written and read."""
    leaves, structure = jax.tree.flatten(carry)
    keys = [isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    plain = [jax.random.key_data(x) if key else x for x, key in zip(leaves, keys, strict=True)]
    saved = pickle.loads(pickle.dumps(jax.device_get(plain)))
    back = [jax.random.wrap_key_data(x) if key else jax.numpy.asarray(x) for x, key in zip(saved, keys, strict=True)]
    return jax.tree.unflatten(structure, back)


def check(
    start: Callable[[optax.GradientTransformation], tuple[Any, Callable[[Any], tuple[Any, Any]]]], steps: int = 40
):
    """Train with each optimizer, resumed half-way, and print a line for each.

    Args:
      start: takes the optimizer and returns what is carried from step to step, and step(carry) -> (carry, loss).
      steps: of each training.
    """
    for name, make in OPTIMIZERS.items():
        carry, step = start(make())
        losses, half = [], None
        for index in range(steps):
            if index == steps // 2:
                half = resumed(carry)
            carry, loss = step(carry)
            losses.append(float(loss))
        for _ in range(steps - steps // 2):
            half, _ = step(half)
        same = all(map(np.array_equal, *map(jax.tree.leaves, map(jax.device_get, map(numbers, (carry, half))))))
        end(name, losses, "resumed with the same bits" if same else "")
        assert same, f"{name}: a resumed run ended elsewhere"


def numbers(tree: Any) -> Any:
    """Return the tree with the data of its random keys."""

    def plain(x):
        return jax.random.key_data(x) if jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key) else x

    return jax.tree.map(plain, tree)


def end(name: str, losses: list[float], what: str = "") -> None:
    """Print how a training ended, whose loss must have fallen."""
    few = max(len(losses) // 8, 1)
    first, last = np.mean(losses[:few]), np.mean(losses[-few:])
    assert np.isfinite(losses).all(), f"{name}: {losses}"
    assert last < first, f"{name}: from {first} to {last}"
    print(f"{name}: {first:.3g} -> {last:.3g}" + (f", {what}" if what else ""))
