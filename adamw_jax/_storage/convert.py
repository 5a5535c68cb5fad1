"""Moments read from a state, and stored another way."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._storage.formats import WORDS
from adamw_jax._storage.loop import PackedMomentsState
from adamw_jax._tree.checks import path_text
from adamw_jax._tree.loop import structure_of
from adamw_jax._tree.width import arithmetic_dtype

_TREES = ("moments", "mu", "nu", "nu_max", "trace")
"""Fields of a direction's state that are trees like the parameters."""


def _holds_moments(node: Any) -> bool:
    return bool({"moments", "mu", "trace"} & set(getattr(node, "_fields", ())))


def _moment_nodes(state: Any) -> list[Any]:
    return [node for node in jax.tree.leaves(state, is_leaf=_holds_moments) if _holds_moments(node)]


def _storage_in(words: chex.Array) -> Any:
    return next(each for each in WORDS.values() if each.word == words.dtype)


def _read(node: Any) -> dict[str, chex.ArrayTree]:
    """Return the moments of one direction's state as float32 trees."""
    trees: dict[str, chex.ArrayTree] = {}
    for name in node._fields:
        tree = getattr(node, name)
        if name == "moments":
            for index, half in enumerate(("mu", "nu")):
                trees[half] = jax.tree.map(lambda words, index=index: _storage_in(words).unpack(words)[index], tree)
        elif name in _TREES:
            trees[name] = jax.tree.map(lambda x: x.astype(arithmetic_dtype(x)), tree)
    return trees


def read_moments(state: Any) -> tuple[chex.ArrayTree, chex.ArrayTree]:
    """Return the moments (mu, nu) of an optimizer state as float32 trees, however they are stored.

    Args:
      state: any optimizer state that contains exactly one pair of moments.

    Raises:
      ValueError: no moments in the state, or several pairs.

    >>> from adamw_jax import adamw
    >>> tx = adamw(0.1, b1=0.5, b2=0.75, moment_dtype="packed")
    >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> print(*read_moments(state))
    [0.5] [0.25]
    """
    pairs = [trees for node in _moment_nodes(state) if {"mu", "nu"} <= (trees := _read(node)).keys()]
    if len(pairs) != 1:
        raise ValueError(f"`state` must contain one pair of moments, got {len(pairs)}")
    return pairs[0]["mu"], pairs[0]["nu"]


def _shapes(trees: chex.ArrayTree) -> dict[str, Any]:
    leaves = jax.tree.leaves_with_path(trees)
    return {path_text(path): jnp.shape(leaf) for path, leaf in leaves}


def _stored_like(node: Any, like: Any) -> Any:
    """Return the state of a direction with its moments stored as in `like`, rounded to nearest."""
    trees, wanted = _read(node), _read(like)
    if sorted(trees) != sorted(wanted):
        raise ValueError(
            f"`like` must have the moments of the state, {sorted(trees)} in a {type(node).__name__}, got "
            f"{sorted(wanted)} in a {type(like).__name__}"
        )
    shapes, others = _shapes(trees), _shapes(wanted)
    for path in sorted(shapes | others):
        if shapes.get(path) != others.get(path):
            raise ValueError(
                f"`like` must have the shapes of the state's moments, {shapes.get(path, 'none')} at {path!r}, got "
                f"{others.get(path, 'none')}"
            )

    def pack(mu: chex.Array, nu: chex.Array, words: chex.Array) -> chex.Array:
        storage = _storage_in(words)
        packed: chex.Array = storage.pack(mu, nu, jnp.full(mu.shape, storage.half, jnp.uint32))
        return packed

    fields = {}
    for name in like._fields:
        if name == "moments":
            fields[name] = jax.tree.map(pack, trees["mu"], trees["nu"], like.moments)
        elif name in trees:
            fields[name] = jax.tree.map(lambda x, to: x.astype(to.dtype), trees[name], getattr(like, name))
        else:
            fields[name] = getattr(node, name, getattr(like, name))
    return type(like)(**fields)


def convert_moments(state: optax.OptState, like: optax.OptState) -> optax.OptState:
    """Return a state with its moments stored as those of `like` are: packed, narrow or wide.

    Storing rounds each moment once, to the nearest number that can be held; reading is exact.

    Args:
      state: a state, restored with the shapes of the optimizer that wrote it.
      like: a fresh state of the same optimizer with another `moment_dtype`.

    Raises:
      ValueError: the states do not fit: other stages, other moments, other shapes.

    >>> from adamw_jax import adamw
    >>> wide, packed = adamw(0.1), adamw(0.1, moment_dtype="packed")
    >>> _, state = wide.update(jnp.ones(2), wide.init(jnp.zeros(2)))
    >>> print(read_moments(convert_moments(state, packed.init(jnp.zeros(2))))[0].round(3))
    [0.1 0.1]
    """
    old, new = (jax.tree.leaves(tree, is_leaf=_holds_moments) for tree in (state, like))
    structure, other = (structure_of(tree, _holds_moments) for tree in (state, like))
    if structure != other:
        raise ValueError(f"`like` must be a state of the same stages as `state`, {structure}, got {other}")
    if not _moment_nodes(state):
        raise ValueError(f"`state` must contain moments to be stored, got {type(state).__name__} without any")
    pairs = zip(old, new, strict=True)
    return structure.unflatten([_stored_like(a, b) if _holds_moments(b) else a for a, b in pairs])


def from_optax_adam(optax_state: optax.OptState, state: optax.OptState) -> optax.OptState:
    """Return `state` with the moments and the count of an Adam state of optax, stored as in `state`.

    Args:
      optax_state: what `optax.adam` or `optax.adamw` left.
      state: a fresh state of `adamw`; the position of a schedule in it stays at its beginning, see `reschedule`.

    Raises:
      ValueError: not one Adam in each of the states, or moments of other shapes.

    >>> from adamw_jax import adamw
    >>> peer, tx = optax.adam(0.1), adamw(0.1, moment_dtype="packed")
    >>> _, old = peer.update(jnp.ones(2), peer.init(jnp.zeros(2)))
    >>> print(read_moments(from_optax_adam(old, tx.init(jnp.zeros(2))))[0].round(3))
    [0.1 0.1]
    """
    adams = [node for node in _moment_nodes(optax_state) if isinstance(node, optax.ScaleByAdamState)]
    into = [node for node in _moment_nodes(state) if isinstance(node, (optax.ScaleByAdamState, PackedMomentsState))]
    for name, found in (("optax_state", adams), ("state", into)):
        if len(found) != 1:
            raise ValueError(f"`{name}` must contain the moments of one Adam, got {len(found)}")
    new = _stored_like(adams[0], into[0])
    state = jax.tree.map(lambda node: new if node is into[0] else node, state, is_leaf=lambda node: node is into[0])
    return optax.tree.set(state, count=adams[0].count)
