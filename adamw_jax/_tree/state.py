"""Finding things in a state: nodes by their type, and the parameter that a leaf belongs to."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import chex
import jax
import optax

from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.width import own

State = TypeVar("State")
Node = TypeVar("Node")


def state_in(holder: Any) -> Any:
    """Return the state that a Keras optimizer or a compiled Keras model holds; anything else as it is."""
    optimizer = getattr(holder, "optimizer", holder) if hasattr(holder, "trainable_variables") else holder
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return optimizer.optax_state() if hasattr(optimizer, "optax_state") else holder


def nodes_of(state: Any, kind: type[Node] | tuple[type[Node], ...]) -> list[Node]:
    """Return the nodes of some types in a state, outermost first, those in their `inner_state` among them."""
    nodes = [node for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind)) if isinstance(node, kind)]
    return nodes + [below for node in nodes for below in nodes_of(getattr(node, "inner_state", None), kind)]


def edit_nodes(state: State, kind: type[Node], new: Callable[[Node], Mapping[str, Any]]) -> State:
    """Return a state in which `new(node)`, {field: scalar}, replaces fields of all nodes of a NamedTuple.

    A framework's boxes around the leaves stay.
    """

    def fill(old: Any, value: Any) -> Any:
        # The state of several runs keeps its leading axis.
        return jax.tree.map(lambda leaf: own(jax.numpy.broadcast_to(value, leaf.shape).astype(leaf.dtype)), old)

    def visit(node: Any) -> Any:
        if not isinstance(node, kind):
            return node
        edited: Any = node
        fields = {name: fill(getattr(edited, name), value) for name, value in new(node).items()}
        if hasattr(edited, "inner_state"):
            fields["inner_state"] = edit_nodes(edited.inner_state, kind, new)
        return edited._replace(**fields)

    edited: State = jax.tree.map(visit, state, is_leaf=lambda node: isinstance(node, kind))
    return edited


def value_of(field: Any) -> Any:
    """Return the array of a scalar field, without the box that a framework may have put around it."""
    (leaf,) = jax.tree.leaves(field)
    return leaf


def is_hole(node: Any) -> bool:
    """Return True for `optax.MaskedNode()`, which stands where a leaf is frozen."""
    return isinstance(node, optax.MaskedNode)


def unique_paths(tree: chex.ArrayTree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Return the path of every leaf, with "#2", "#3" behind those that an earlier leaf has already.

    >>> unique_paths({"a/b": 0.0, "a": {"b": 1.0}})
    ['a/b', 'a/b#2']
    """
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for path in leaf_paths(tree, is_leaf):
        seen[path] += 1
        names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


def per_path(tree: chex.ArrayTree, values: Iterable[Any]) -> dict[str, Any]:
    """Return {path: value}, the form of scalars per leaf in a state; None as a value leaves the leaf out.

    For a tree without leaves it is the scalar 0: `optax.tree.map_params` calls `init` with such a tree, and would
    require an empty mapping to be empty in the state, too.

    >>> per_path({"dense": {"kernel": 2.0, "bias": 3.0}}, [1, None])
    {'dense/bias': 1}
    """
    paths = unique_paths(tree)
    if not paths:
        return cast("dict[str, Any]", jax.numpy.zeros([], jax.numpy.result_type(float)))
    return {path: value for path, value in zip(paths, values, strict=False) if value is not None}


KeyPath = tuple[Any, ...]


def parameter_of(path: KeyPath, params: Mapping[KeyPath, Any]) -> KeyPath | None:
    """Return the longest key of `params` with which the key path of a leaf of a state ends.

    So ("mu", "dense", "kernel") belongs to the parameter ("dense", "kernel"), and a count to None. A bare array as
    parameters has the path (), with which every path ends: the caller compares the shapes.

    >>> import optax
    >>> params = {"dense": {"kernel": jax.numpy.ones(2)}}
    >>> paths = dict(jax.tree.leaves_with_path(params))
    >>> state = jax.tree.leaves_with_path(optax.adam(0.1).init(params))
    >>> [jax.tree_util.keystr(parameter_of(path, paths) or ()) for path, _ in state]
    ['', "['dense']['kernel']", "['dense']['kernel']"]
    """
    suffixes = (path[start:] for start in range(len(path) + 1))
    return next((suffix for suffix in suffixes if suffix in params), None)
