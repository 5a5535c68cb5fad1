"""One direction for all leaves, or a direction per path."""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import optax

from adamw_jax._direction.direction import About, about
from adamw_jax._direction.uphill import points_downhill
from adamw_jax._tree.paths import leaf_paths, match_patterns, shadowed_patterns
from adamw_jax._tree.stage import facts_of, structure_of
from adamw_jax._tree.state import is_hole
from adamw_jax._tree.typing import Directions, Params, Updates
from adamw_jax._tree.width import cast_like, widen, with_own_buffers


def _check_direction(name: str, value: Any) -> Any:
    rule = f"`{name}` must be an optax.GradientTransformation that points uphill"
    if not isinstance(value, type) and hasattr(value, "init") and hasattr(value, "update"):
        of_ours = facts_of(value, object) is not None
        if facts_of(value, About) is None and (of_ours or points_downhill(value)):
            kind = "an optimizer" if of_ours else f"an optimizer of the kind {about(value).name!r}"
            raise ValueError(
                f"{rule}, got {kind}, which points downhill and has a rate in it: give what it is made of, as "
                "scale_by_adam()" + ("" if of_ours else ", and leave out optax.scale(-1) at the end of a chain")
            )
        return value
    hint = f"; call it: {getattr(value, '__name__', 'scale_by_adam')}()" if callable(value) else ""
    raise TypeError(f"{rule}, got {value!r}{hint}")


def _on_wide_leaves(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give a direction gradients and parameters widened to float32 or float64, so that `init` makes a wide state."""
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        wide = widen(params)
        return with_own_buffers(inner.init(wide), (params, wide))

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        shown = None if params is None else widen(params)
        direction, state = inner.update(widen(updates), state, shown, **extra_args)
        return cast_like(direction, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def labels_of(patterns: tuple[str, ...], tree: chex.ArrayTree) -> list[str]:
    """Return for every leaf, frozen ones among them, the pattern that decides its direction.

    Raises:
      ValueError: a leaf without a direction, a pattern that matches or decides nothing.
    """
    paths = leaf_paths(tree, is_hole)
    matches = match_patterns("direction", patterns, paths)
    if None in matches:
        raise ValueError(
            f"`direction` must have a pattern for every parameter, got none for {paths[matches.index(None)]!r}; "
            '"" as the last pattern takes what the others leave'
        )
    for pattern, owner in shadowed_patterns("direction", patterns, paths):
        raise ValueError(
            f"every pattern of `direction` must decide about a parameter, got {pattern!r}, before which {owner!r} comes"
        )
    return [patterns[index] for index in matches if index is not None]


def directions(direction: Directions) -> optax.GradientTransformationExtraArgs:
    """Return a direction as it is, or the one that applies to every leaf the direction for its path.

    Args:
      direction: a transformation that points uphill, or {pattern: transformation}: the first pattern found in a leaf's
        path decides. Every leaf needs one; "" as the last pattern takes all other leaves.

    Returns:
      A transformation; for a mapping `optax.partition`, whose state holds a part per pattern.

    Raises:
      TypeError: something else than a transformation. ValueError: an empty mapping; an optimizer of this library; at
        `init`, a leaf without a direction, a pattern that matches or decides nothing.

    >>> import jax.numpy as jnp
    >>> tx = directions({"kernel": optax.scale_by_sign(), "": optax.identity()})
    >>> params = {"bias": jnp.array([3.0]), "kernel": jnp.array([3.0])}
    >>> direction, _ = tx.update(params, tx.init(params))
    >>> print(direction["bias"], direction["kernel"])
    [3.] [1.]
    """
    if not isinstance(direction, Mapping):
        return _on_wide_leaves(_check_direction("direction", direction))
    if not direction:
        raise ValueError("`direction` must have a pattern at least, got {}")
    for pattern, each in direction.items():
        if not isinstance(pattern, str):
            raise TypeError(f"`direction` must have patterns as keys, got {pattern!r}")
        _check_direction(f"direction[{pattern!r}]", each)

    def labels(tree: chex.ArrayTree) -> chex.ArrayTree:
        rows = zip(labels_of(tuple(direction), tree), jax.tree.leaves(tree, is_leaf=is_hole), strict=True)
        return structure_of(tree).unflatten([label for label, leaf in rows if not is_hole(leaf)])

    return _on_wide_leaves(optax.partition(dict(direction), labels))


def direction_per_leaf(direction: Directions, tree: chex.ArrayTree) -> list[Any]:
    """Return the direction of every leaf, in the order of `jax.tree.leaves`."""
    if not isinstance(direction, Mapping):
        return [direction] * len(jax.tree.leaves(tree))
    return [direction[label] for label in labels_of(tuple(direction), tree)]
