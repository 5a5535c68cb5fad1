"""The leaves of an optimizer state as Keras Variables."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.tree_util import DictKey, GetAttrKey, tree_flatten_with_path


@dataclass(frozen=True)
class Slots:
    """One Variable per leaf of a state, in the state's own order.

    Attributes:
      treedef: the structure of the state.
      variables: the Variable of each leaf, or the constant that stands for a scalar which is not kept.
      owners: id of the trainable variable that a leaf belongs to, or None.
      key_types: the implementation of a leaf that is a random key, which is stored as integers; else None.
    """

    treedef: Any
    variables: list[Any]
    owners: list[int | None]
    key_types: list[Any]

    def read(self, values: Mapping[int, Any]) -> Any:
        """Return the state; a leaf whose position is in `values` takes that value."""
        own = [v.value if isinstance(v, keras.Variable) else v for v in self.variables]
        leaves = [values.get(position, leaf) for position, leaf in enumerate(own)]
        return jax.tree.unflatten(
            self.treedef,
            [
                leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)
                for leaf, kind in zip(leaves, self.key_types, strict=True)
            ],
        )

    def write(self, state: Any, updated: Collection[int], assign: Callable[[Any, Any], None]) -> None:
        """Give the state to `assign`, by Variable, except leaves of trainable variables that are not in `updated`."""
        leaves = jax.tree.leaves(state)
        for leaf, variable, owner in zip(leaves, self.variables, self.owners, strict=True):
            if isinstance(variable, keras.Variable) and (owner is None or owner in updated):
                assign(variable, _data(leaf)[0])


@dataclass(frozen=True)
class Trained:
    """What is made when the trainable variables are known; Keras would track lists that are set as attributes.

    Attributes:
      variables: the trainable variables.
      keys: the keys of their values as parameters.
      slots: the state's Variables.
      bound: positions of the state's leaves that other Variables give, by the names of their fields.
    """

    variables: Sequence[Any]
    keys: list[Any]
    slots: Slots
    bound: Mapping[str, list[int]]

    def parameters(self) -> dict[str, jax.Array]:
        """Return the variables' values by their keys."""
        return {key: v.value for key, v in zip(self.keys, self.variables, strict=True)}

    def values(self, given: Mapping[str, Any]) -> dict[int, Any]:
        """Return what is given by the names of fields, by the positions of their leaves."""
        return {position: value for name, value in given.items() for position in self.bound.get(name, ())}


def add_slots(
    optimizer: Any, state: Any, keys: Sequence[str], variables: Sequence[Any], holders: Mapping[int, Any]
) -> Slots:
    """Make the Variables of a state and add them to the optimizer.

    The Variables of one field are made in the order of their weights, whatever the order of its mapping: saved states
    are read by position, and names change.

    Args:
      optimizer: a `keras.optimizers.Optimizer`.
      state: what `init` gave for parameters {key: value}.
      keys: the parameters' keys, in an order that JAX keeps (`Weights.keys`).
      variables: the trainable variables, in the order of `keys`.
      holders: the Variable that others use, too, or the constant that stands for a leaf, by the leaf's position.

    Returns:
      The slots.
    """
    flat, treedef = tree_flatten_with_path(state)
    position_of = {key: position for position, key in enumerate(keys)}
    at = [next((i for i in reversed(range(len(path))) if _key(path[i]) in position_of), None) for path, _ in flat]
    fields: dict[Any, int] = {}

    def place(leaf: int) -> tuple[int, int, int]:
        path, end = flat[leaf][0], at[leaf]
        if end is None:
            return leaf, 0, leaf
        return fields.setdefault(tuple(path[:end]), leaf), position_of[_key(path[end])], leaf

    def owner_of(leaf: int) -> Any:
        path, end = flat[leaf][0], at[leaf]
        return None if end is None else variables[position_of[_key(path[end])]]

    made: list[Any] = [None] * len(flat)
    for leaf in sorted(range(len(flat)), key=place):
        (path, value), owner = flat[leaf], owner_of(leaf)
        name = _name(path[: at[leaf]])
        full = name if owner is None else f"{owner.path.replace('/', '_')}_{name}"
        made[leaf] = holders[leaf] if leaf in holders else _add(optimizer, full, _data(value)[0], owner)
    ids = [None if end is None else id(owner_of(leaf)) for leaf, end in enumerate(at)]
    return Slots(treedef, made, ids, [_data(value)[1] for _, value in flat])


def scalars_named(state: Any, names: Collection[str], keys: Collection[str]) -> dict[str, list[int]]:
    """Return the positions of a state's leaves by the names of their fields, where they belong to no parameter."""
    found: dict[str, list[int]] = {}
    for position, (path, _) in enumerate(tree_flatten_with_path(state)[0]):
        name = _name(path)
        if name in names and not any(_key(entry) in keys for entry in path):
            found.setdefault(name, []).append(position)
    return found


def _add(optimizer: Any, name: str, value: jax.Array, owner: Any) -> Any:
    def initializer(shape: Any, dtype: Any) -> jax.Array:
        # A state leaf that shares its buffer with a parameter, or with another leaf, could not be donated.
        return jnp.array(value, dtype=dtype, copy=True)

    return optimizer.add_variable(
        shape=value.shape,
        initializer=initializer,
        dtype=str(value.dtype),
        layout=_layout(value, owner),
        name=_free(name, {variable.name for variable in optimizer.variables}),
    )


def _free(name: str, taken: Collection[str]) -> str:
    """Return the name, numbered where it is taken: an HDF5 file has each name once."""
    numbers = (f"{name}_{number}" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], numbers) if each not in taken)


def _layout(value: jax.Array, owner: Any) -> Any:
    """Return the owner's layout for a leaf of its shape, else replicated: never one found by the slot's own path."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    layout = getattr(owner, "_layout", None)
    if layout is not None and owner.shape == value.shape:
        return layout
    return keras.distribution.TensorLayout([None] * value.ndim, distribution.device_mesh)


def _data(leaf: Any) -> tuple[jax.Array, Any]:
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf), jax.random.key_impl(leaf)
    return leaf, None


def _key(entry: Any) -> Any:
    return entry.key if isinstance(entry, DictKey) else None


def _name(path: Sequence[Any]) -> str:
    """Return the last attribute or dictionary key of a path, as a Variable's name."""
    for entry in reversed(path):
        if isinstance(entry, GetAttrKey):
            return str(entry.name)
        if isinstance(entry, DictKey):
            return str(entry.key).replace("/", "_")
    return "state"
