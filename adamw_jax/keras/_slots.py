"""The leaves of an optimizer state as Keras Variables."""

import itertools
from collections.abc import Collection, Sequence
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
      names: the last name on the way to each leaf: "mu", "count", ...
      owners: id of the trainable variable that a leaf belongs to, or None.
      key_types: the implementation of a leaf that is a random key, which is stored as integers; else None.
    """

    treedef: Any
    variables: list[Any]
    names: list[str]
    owners: list[int | None]
    key_types: list[Any]

    def read(self, values: dict[str, Any]) -> Any:
        """Return the state; a leaf named in `values` takes that value."""
        own = [v.value if isinstance(v, keras.Variable) else v for v in self.variables]
        leaves = [values.get(name, leaf) for name, leaf in zip(self.names, own, strict=True)]
        return jax.tree.unflatten(
            self.treedef,
            [
                leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)
                for leaf, kind in zip(leaves, self.key_types, strict=True)
            ],
        )

    def write(self, state: Any, updated: Collection[int]) -> None:
        """Assign the state, except leaves of trainable variables that are not in `updated`."""
        leaves = jax.tree.leaves(state)
        for leaf, variable, owner in zip(leaves, self.variables, self.owners, strict=True):
            if isinstance(variable, keras.Variable) and (owner is None or owner in updated):
                variable.assign(_data(leaf)[0])


@dataclass(frozen=True)
class Trained:
    """What is made when the trainable variables are known; Keras would track lists that are set as attributes.

    Attributes:
      variables: the trainable variables.
      keys: the keys of their values as parameters.
      slots: the state's Variables.
    """

    variables: list[Any]
    keys: list[Any]
    slots: Slots

    def parameters(self) -> dict[str, jax.Array]:
        """Return the variables' values by their keys."""
        return {key: v.value for key, v in zip(self.keys, self.variables, strict=True)}


def add_slots(optimizer: Any, state: Any, keys: Sequence[str], variables: Sequence[Any]) -> Slots:
    """Make the Variables of a state and add them to the optimizer, in the order of the state's leaves.

    Args:
      optimizer: a `keras.optimizers.Optimizer` with `_holders()`.
      state: what `init` gave for parameters {key: value}.
      keys: the parameters' keys, in an order that JAX keeps (`unique_paths`).
      variables: the trainable variables, in the order of `keys`.

    Returns:
      The slots.
    """
    flat, treedef = tree_flatten_with_path(state)
    variable_of = dict(zip(keys, variables, strict=True))
    holders = optimizer._holders()
    made, names, owners, kinds = [], [], [], []
    for path, leaf in flat:
        at = next((i for i in reversed(range(len(path))) if _key(path[i]) in variable_of), None)
        owner = None if at is None else variable_of[_key(path[at])]
        name = _name(path[:at])
        data, kind = _data(leaf)
        held = owner is None and name in holders
        full = name if owner is None else f"{owner.path.replace('/', '_')}_{name}"
        made.append(holders[name] if held else _add(optimizer, full, data, owner))
        names.append(name)
        owners.append(None if owner is None else id(owner))
        kinds.append(kind)
    return Slots(treedef, made, names, owners, kinds)


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
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


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
            # Only an injected rate, a dictionary's entry, is the optimizer's: alpha is what the latest update used.
            return "alpha" if entry.name == "learning_rate" else str(entry.name)
        if isinstance(entry, DictKey):
            return str(entry.key).replace("/", "_")
    return "state"
