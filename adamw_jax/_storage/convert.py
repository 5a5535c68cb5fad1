"""Reading the moments of a state, and converting them to another storage."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._storage.formats import WORDS
from adamw_jax._storage.loop import PackedMomentsState
from adamw_jax._tree.parts import STORED, is_stored_otherwise, parts_of, whole_structure
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import is_hole, unique_paths
from adamw_jax._tree.width import arithmetic_dtype, with_own_buffers


def _holds_moments(node: Any) -> bool:
    return bool({"moments", "mu", "trace"} & set(getattr(node, "_fields", ())))


def _moment_nodes(state: Any) -> list[Any]:
    return [node for node in jax.tree.leaves(state, is_leaf=_holds_moments) if _holds_moments(node)]


def _storage_in(dtype: Any) -> Any:
    return next(each for each in WORDS.values() if each.word == dtype)


def _fields_of(node: Any) -> dict[str, chex.ArrayTree]:
    """Return the trees of a direction's state by moment; in words, mu and nu are one tree."""
    trees = {name: getattr(node, name) for name in node._fields if name in STORED}
    words = trees.pop("moments", None)
    return trees if words is None else {"mu": words, "nu": words, **trees}


def _read(node: Any) -> dict[str, chex.ArrayTree]:
    """Return the moments of one direction's state as trees as wide as the arithmetic."""

    def read(leaf: Any, half: int) -> chex.Array:
        is_word = jnp.issubdtype(leaf.dtype, jnp.unsignedinteger)
        moment: chex.Array = _storage_in(leaf.dtype).unpack(leaf)[half] if is_word else leaf
        return moment.astype(arithmetic_dtype(moment))

    fields = _fields_of(node).items()
    return {name: jax.tree.map(functools.partial(read, half=int(name == "nu")), tree) for name, tree in fields}


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


def _check_moments(node: Any, like: Any) -> None:
    """Raise a ValueError if two states have not the same moments of the same parameters."""
    trees, wanted = _fields_of(node), _fields_of(like)
    if sorted(trees) != sorted(wanted):
        raise ValueError(
            f"`like` must have the moments of the state, {sorted(trees)} in a {type(node).__name__}, got "
            f"{sorted(wanted)} in a {type(like).__name__}"
        )
    shapes, others = (
        dict(zip(unique_paths(each, is_hole), jax.tree.leaves(each, is_leaf=is_hole), strict=True))
        for each in (trees, wanted)
    )
    for path in sorted(shapes | others):
        leaves = (shapes.get(path), others.get(path))
        if any(map(is_hole, leaves)):
            continue
        want, got = ("none" if leaf is None else leaf.shape for leaf in leaves)
        if got != want:
            raise ValueError(f"`like` must have the shapes of the state's moments, {want} at {path!r}, got {got}")


def _with_dtypes(tree: chex.ArrayTree, like: chex.ArrayTree, default: Any) -> list[tuple[Any, Any]]:
    """Return every leaf with the dtype at its path in `like`; that of another leaf where the path is frozen there."""
    dtypes = {path: leaf.dtype for path, leaf in zip(unique_paths(like), jax.tree.leaves(like), strict=True)}
    other = next(iter(dtypes.values()), np.dtype(default))
    pairs = zip(unique_paths(tree), jax.tree.leaves(tree), strict=True)
    return [(leaf, dtypes.get(path, other)) for path, leaf in pairs]


def _pack(pair: tuple[Any, Any], dtype: Any) -> chex.Array:
    storage = _storage_in(dtype)
    mu, nu = (moment.astype(jnp.float32) for moment in pair)
    words: chex.Array = storage.pack(mu, nu, jnp.full(mu.shape, storage.half, jnp.uint32))
    return words


def _stored_like(node: Any, like: Any) -> Any:
    """Return the state of a direction with its moments stored as in `like`, rounded to nearest."""
    if type(node) is not type(like) or _holds_moments(node):
        _check_moments(node, like)
    trees = _read(node)
    fields = {}
    for name in like._fields:
        target = getattr(like, name)
        if name == "moments":
            halves = zip(_with_dtypes(trees["mu"], target, jnp.uint32), jax.tree.leaves(trees["nu"]), strict=True)
            words = [_pack((mu, nu), dtype) for (mu, dtype), nu in halves]
            fields[name] = structure_of(trees["mu"]).unflatten(words)
        elif name in trees or name in node._fields:
            tree = trees[name] if name in trees else getattr(node, name)
            cast = [leaf.astype(dtype) for leaf, dtype in _with_dtypes(tree, target, jnp.float32)]
            fields[name] = structure_of(tree).unflatten(cast)
        else:
            fields[name] = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), target)
    return type(like)(**fields)


def convert_moments(state: optax.OptState, like: optax.OptState) -> optax.OptState:
    """Return a state with its moments stored as those of `like` are: packed, narrow or wide.

    Storing rounds each moment once, to the nearest number of the format; reading is exact. Narrow moments have a count,
    which seeds their rounding: it begins at 0 where the state had none.

    Args:
      state: a state, restored with the shapes of the optimizer that wrote it.
      like: a fresh state, or the shapes of one, of an optimizer with the same directions and another `moment_dtype`.
        Other differences are for `carry_over` afterwards.

    Returns:
      `state`, in which only the moments are new.

    Raises:
      ValueError: the states do not fit: other directions, other moments, other shapes.

    >>> from adamw_jax import adamw
    >>> wide, packed = adamw(0.1), adamw(0.1, moment_dtype="packed")
    >>> _, state = wide.update(jnp.ones(2), wide.init(jnp.zeros(2)))
    >>> print(read_moments(convert_moments(state, packed.init(jnp.zeros(2))))[0].round(3))
    [0.1 0.1]
    """
    wanted = {key: part for key, _, part in parts_of(like)}
    parts, found = [], False
    for key, _, part in parts_of(state):
        moments = _holds_moments(part)
        if moments and key not in wanted:
            stages, others = map(whole_structure, (state, like))
            raise ValueError(f"`like` must be a state of the same stages as `state`, {stages}, got {others}")
        converts = moments or is_stored_otherwise(part, wanted.get(key))
        found = found or converts
        parts.append(_stored_like(part, wanted[key]) if converts else part)
    if not found:
        raise ValueError(f"`state` must contain moments to be stored, got {type(state).__name__} without any")
    return whole_structure(state).unflatten(parts)


def from_optax_adam(optax_state: optax.OptState, state: optax.OptState) -> optax.OptState:
    """Return `state` with the moments and the count of an Adam state of optax, stored as in `state`.

    No buffer of the returned state is shared, so that it can be donated.

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
            got = type(optax_state if name == "optax_state" else state).__name__
            raise ValueError(f"`{name}` must contain the moments of one Adam, got {len(found)} in a {got}")
    new = _stored_like(adams[0], into[0])
    state = jax.tree.map(lambda node: new if node is into[0] else node, state, is_leaf=lambda node: node is into[0])
    return with_own_buffers(optax.tree.set(state, count=adams[0].count), optax_state)
