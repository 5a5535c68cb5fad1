"""The loop over the leaves that every stage uses, and the extra arguments that owners pass to stages."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from adamw_jax._tree.checks import is_traced, path_text
from adamw_jax._tree.constants import in_dtype, is_argument, is_array, is_passed, is_seed, join, split
from adamw_jax._tree.typing import Params, Updates
from adamw_jax._tree.width import arithmetic_dtype, cast, is_floating

Kernel = Callable[..., tuple[chex.Array, ...]]
"""kernel(scalars, *leaves, *values) -> new leaves, all in one dtype."""

GROUP = 16
"""Equal leaves per jitted call. With 2000 leaves, single calls took 40 % longer to trace and 29 % longer eagerly."""

FEW = 2
"""Up to this many equal leaves are inlined instead of sharing a jitted call."""

OWNERS = {
    "alpha": "with_learning_rate",
    "count": "with_learning_rate",
    "eta": "with_schedule",
    "period": "with_schedule of cosine_warm_restarts",
}
"""Extra argument of `update` -> the owner that passes it to the stages inside."""


def extra_arg(name: str, extra_args: dict[str, Any]) -> Any:
    """Return the extra argument `name`, a scalar.

    Raises:
      ValueError: the stage is not inside the owner that passes it.
    """
    if extra_args.get(name) is None:
        raise ValueError(f"the extra argument `{name}` must be given: put the stage inside {OWNERS[name]}, got None")
    return extra_args[name]


def structure_of(tree: chex.ArrayTree, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Return the structure of a tree, `jax.tree.structure`, whose type has no methods in the stubs."""
    return jax.tree.structure(tree, is_leaf=is_leaf)


def with_gradients(updates: Updates, params: Params | None) -> Params | None:
    """Return the parameters that have a gradient: None where the updates are None, as for a model's functions.

    >>> with_gradients({"weight": 1.0, "activation": None}, {"weight": 2.0, "activation": abs})
    {'activation': None, 'weight': 2.0}
    """
    if params is None or structure_of(params) == structure_of(updates):
        return params
    try:
        return jax.tree.map(lambda u, p: None if u is None else p, updates, params, is_leaf=lambda u: u is None)
    except ValueError:
        return params


def params_or_updates(updates: Updates, params: Params | None) -> chex.ArrayTree:
    """Return the parameters, or the updates where `update` was given no parameters: rules are resolved on this tree.

    Raises:
      ValueError: the two differ in structure or in a shape, so that their leaves do not correspond. TypeError: the
        update of a floating parameter is not floating.
    """
    if params is None:
        return updates
    if structure_of(params) != structure_of(updates):
        given, wanted = ([path_text(path) for path, _ in jax.tree.leaves_with_path(tree)] for tree in (params, updates))
        pairs = itertools.zip_longest(given, wanted)
        where = next((f", first {a!r} against {b!r}" for a, b in pairs if a != b), "")
        kinds = "" if where else f": {jax.tree.structure(params)} against {jax.tree.structure(updates)}"
        raise ValueError(
            "`params` must have the structure of the updates, the same leaves in the same order, got "
            f"{len(given)} leaves against {len(wanted)}{where}{kinds}"
        )
    for i, (p, u) in enumerate(zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True)):
        is_alike = jnp.shape(p) == jnp.shape(u)
        if not is_floating(p) or (is_alike and is_floating(u)):
            continue
        where = path_text(jax.tree.leaves_with_path(params)[i][0])
        if not is_alike:
            raise ValueError(
                f"`updates` must have the shapes of `params`, {jnp.shape(p)} at {where!r}, got {jnp.shape(u)}"
            )
        raise TypeError(
            f"`updates` must have real floating leaves where `params` has, got "
            f"{jax.dtypes.result_type(u).name} at {where!r}"
        )
    return params


def _run(kernel: Kernel, known: Any, scalars: Any, leaves: Any, unknown: Any) -> list[chex.Array]:
    known_scalars, known_value = known
    dtype = arithmetic_dtype(*leaves)
    shape = jnp.shape(leaves[0])
    value = join(known_value, [jnp.broadcast_to(x, shape) if jnp.ndim(x) else x for x in unknown], dtype)
    new = kernel(join(known_scalars, scalars, dtype), *(cast(leaf, dtype) for leaf in leaves), *value)
    return [jax.lax.convert_element_type(out, jnp.result_type(leaf)) for out, leaf in zip(new, leaves, strict=False)]


_leaf = jax.jit(_run, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _group(kernel: Kernel, known: Any, scalars: Any, inputs: Any) -> list[list[chex.Array]]:
    return [_leaf(kernel, known, scalars, *each) for each in inputs]


def _kind(leaf: Any) -> Any:
    return jax.typeof(leaf), None if is_traced(leaf) else getattr(leaf, "sharding", None)


def map_leaves(
    kernel: Kernel,
    scalars: Sequence[chex.Array],
    trees: Sequence[chex.ArrayTree],
    values: Sequence[Any] | None = None,
) -> tuple[chex.ArrayTree, ...]:
    """Apply `kernel` to the corresponding leaves of `trees`: one cast in, one cast out, integers unchanged.

    Leaves equal in shape, dtype and value share one traced program, and `GROUP` of them one call of it, so the cost of
    tracing depends on the number of different leaves more than on the number of leaves.

    Args:
      kernel: `kernel(scalars, *leaves)`, or `kernel(scalars, *leaves, value)` where `values` are given. It returns a
        tuple; its i-th entry becomes a leaf of the i-th result, in the dtype of the i-th tree's leaf. It must be a
        function at the top of its module, no closure, for the traced program is cached by its identity.
      scalars: numbers that all leaves share, computed once.
      trees: trees of one structure.
      values: one entry per leaf: a number, an array that broadcasts against the leaf, or a tuple of them. While a
        program is traced, plain numbers are its constants (NumPy scalars in the kernel) and the others its arguments;
        without one, only 0 and 1 are constants.

    Returns:
      As many trees as the kernel returns leaves; with no leaf at all, `trees` as they are.

    Raises:
      ValueError: the trees' structures, or the shapes of corresponding leaves, differ.
    """
    structure: Any = jax.tree.structure(trees[0])
    for tree in trees[1:]:
        if jax.tree.structure(tree) != structure:
            raise ValueError(
                "updates, parameters and the state's moments must have one structure, "
                f"got {structure} and {jax.tree.structure(tree)}"
            )
    if structure.num_leaves == 0:
        return tuple(trees)
    rows = list(zip(*(jax.tree.leaves(tree) for tree in trees), strict=True))
    for index, row in enumerate(rows):
        if len({jnp.shape(leaf) for leaf in row}) > 1:
            path = path_text(jax.tree.leaves_with_path(trees[0])[index][0])
            raise ValueError(
                f"updates, parameters and the state's moments must have one shape, "
                f"got {[*map(jnp.shape, row)]} at {path!r}"
            )
    is_program = any(map(is_traced, (leaf for row in rows for leaf in row)))
    split_value = functools.partial(split, is_unknown=is_argument if is_program else is_passed)
    splits = [split_value(())] * len(rows) if values is None else [split_value((value,)) for value in values]
    known_scalars, unknown_scalars = split(tuple(scalars), is_array if is_program else is_passed)
    kinds: dict[Any, list[int]] = {}
    for index, (row, (known, _)) in enumerate(zip(rows, splits, strict=True)):
        kinds.setdefault((known, tuple(map(_kind, row))), []).append(index)
    results: dict[int, list[chex.Array]] = {}
    for (known, _), indices in kinds.items():
        row = rows[indices[0]]
        dtype = arithmetic_dtype(*row)
        call = functools.partial(_run if len(indices) <= FEW and any(map(is_traced, row)) else _leaf, kernel)
        shared = (known_scalars, known), [x if is_seed(x) else in_dtype(x, dtype) for x in unknown_scalars]
        inputs = [(rows[index], [in_dtype(number, dtype) for number in splits[index][1]]) for index in indices]
        whole = len(inputs) - len(inputs) % GROUP
        new = [_group(kernel, *shared, inputs[start : start + GROUP]) for start in range(0, whole, GROUP)]
        new.append([call(*shared, *each) for each in inputs[whole:]])
        results.update(zip(indices, (row for group in new for row in group), strict=True))
    columns = zip(*(results[index] for index in range(len(rows))), strict=True)
    return tuple(jax.tree.unflatten(structure, column) for column in columns)
