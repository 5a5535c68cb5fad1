"""The parts of a state: the innermost states, and the scalars of those around them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from adamw_jax._tree.checks import path_text
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import unique_paths

STORED = frozenset(("moments", "mu", "nu", "nu_max", "trace"))
"""Fields of a direction's state whose layout depends on `moment_dtype`."""


def _is_whole(node: Any) -> bool:
    """Return True for the innermost states, whose fields belong together."""
    fields = getattr(node, "_fields", None)
    return fields is not None and not any(name.startswith("inner") for name in fields)


def whole_structure(state: Any) -> Any:
    """Return the structure whose leaves are the parts of a state, in the order of `parts_of`."""
    return structure_of(state, _is_whole)


def parts_of(node: Any, key: tuple[str, ...] = (), path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, str, Any]]:
    """Yield (key, path, part) for every innermost state and every scalar around them, in the order of the leaves.

    The key omits `inner_state`, so that a part has one key inside and outside of another state.
    """
    if _is_whole(node) or jax.tree_util.all_leaves([node]):
        yield key, path_text(path), node
        return
    for (entry,), child in jax.tree.leaves_with_path(node, is_leaf=lambda x: x is not node):
        name, fields = path_text((entry,)), hasattr(node, "_fields")
        transparent = fields and name in ("inner_state", "inner_opt_state")
        step = () if transparent else (type(node).__name__, name) if fields else (name,)
        yield from parts_of(child, (*key, *step), (*path, entry))


def form_of(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype of a leaf, as they are under `jax.jit`."""
    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype
    dtype = jax.dtypes.result_type(leaf)
    return jnp.shape(leaf), dtype if jnp.issubdtype(dtype, jax.dtypes.extended) else jax.dtypes.canonicalize_dtype(
        dtype
    )


def forms_of(node: Any) -> dict[str, Any]:
    return dict(zip(unique_paths(node), map(form_of, jax.tree.leaves(node)), strict=True))


def is_alike(a: Any, b: Any, any_width: bool = False) -> bool:
    """Return True for equal shapes and dtypes; scalars may be float32 or float64, which depends on x64 alone."""
    widths = (jnp.float32, jnp.float64)
    return bool(a == b or (a[0] == b[0] and (any_width or a[0] == ()) and a[1] in widths and b[1] in widths))


def is_cast(a: Any, b: Any) -> bool:
    """Return True for floating leaves of one shape, of which one is stored narrow."""
    return bool(a[0] == b[0] and a[1] != b[1] and all(jnp.issubdtype(each[1], jnp.floating) for each in (a, b)))


def moments_in(state: Any) -> frozenset[str]:
    """Return the names of a direction's moments and scalars in its state, or its class, however stored; else none."""
    fields = frozenset(getattr(state, "_fields", ()))
    if not fields & STORED:
        return frozenset()
    return (fields | {"mu", "nu"} if "moments" in fields else fields) - {"moments", "count"}


def is_stored_otherwise(a: Any, b: Any) -> bool:
    """Return True for two states of one direction that differ in how its moments are stored."""
    if not hasattr(a, "_fields"):
        return False
    if type(a) is not type(b):
        return bool(moments_in(a)) and moments_in(a) == moments_in(b)
    before, after = forms_of(a), forms_of(b)
    shared = (path for path in before.keys() & after.keys() if before[path][0] == after[path][0])
    return any(not is_alike(before[path], after[path]) for path in shared)


def name_of(part: Any) -> str:
    return type(part).__name__ if hasattr(part, "_fields") else "an array"
