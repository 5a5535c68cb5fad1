"""The bytes that each device of a mesh holds of a tree, and a table of them by placement."""

import collections
import math
from typing import Any

import chex
import jax
import optax
from jax.sharding import NamedSharding

from adamw_jax._devices.host import in_host_memory
from adamw_jax._optimizer.exchanges import exchanges_of
from adamw_jax._optimizer.optimizer import plan_of
from adamw_jax._tree import checks, table


def _placed(tree: chex.ArrayTree, shardings: chex.ArrayTree | None) -> list[Any]:
    if shardings is None:
        return [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree)]
    return jax.tree.leaves(shardings)


def _shards(tree: chex.ArrayTree, shardings: chex.ArrayTree | None) -> list[tuple[str, str, int, int]]:
    """Return for every leaf its memory, its placement as text, its bytes, and the bytes of one shard."""
    rows = []
    for leaf, sharding in zip(jax.tree.leaves(tree), _placed(tree, shardings), strict=True):
        shard = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        axes = [str(entry) for entry in getattr(sharding, "spec", ()) if entry is not None]
        size = leaf.dtype.itemsize
        memory = "host" if in_host_memory(leaf if sharding is None else sharding) else "device"
        rows.append((memory, " x ".join(axes) or "whole", math.prod(leaf.shape) * size, math.prod(shard) * size))
    return rows


def bytes_per_device(tree: chex.ArrayTree, shardings: chex.ArrayTree | None = None, *, memory: str = "device") -> int:
    """Return the bytes that each device holds of a tree, equal on all devices because JAX splits evenly.

    Args:
      tree: arrays or `jax.ShapeDtypeStruct`s; a leaf without a sharding counts whole.
      shardings: a tree of shardings to count with in place of the leaves' own, from `state_shardings` for instance.
      memory: "device" for bytes in the device's memory, "host" for its share in the host's, see `with_host_state`.

    Raises:
      ValueError: a memory that is neither.

    >>> mesh = jax.sharding.AbstractMesh((8,), ("data",))
    >>> split = jax.sharding.NamedSharding(mesh, jax.P("data"))
    >>> bytes_per_device(jax.ShapeDtypeStruct((256, 8), "float32"), split)
    1024
    """
    checks.check_choice("memory", memory, ("device", "host"))
    return sum(shard for where, _, _, shard in _shards(tree, shardings) if where == memory)


def _orthogonalized(tx: Any, tree: chex.ArrayTree, shardings: chex.ArrayTree | None) -> list[str]:
    """Return a line for each shape of leaves that is orthogonalized, and way to make its matrices whole."""
    mesh = next((each.mesh for each in _placed(tree, shardings) if isinstance(each, NamedSharding)), None)
    if mesh is None:
        raise ValueError("`tree` must be placed on a mesh, or `shardings` given, to tell what `tx` moves, got neither")
    plan = plan_of(tx)
    direction, axes = (tx, None) if plan is None else (plan.direction, plan.axes)
    sums: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for leaf, each in zip(jax.tree.leaves(tree), exchanges_of(direction, tree, mesh, shardings, axes), strict=True):
        if each is not None:
            where = ("x".join(map(str, leaf.shape)), each.mode)
            sums[where] = [a + b for a, b in zip(sums[where], (1, each.bytes, each.operations), strict=True)]
    keys, names = (
        ("shape", "whole", "leaves", "moved", "operations"),
        ("shape", "leaves", "whole", "moved", "operations"),
    )
    titles = dict(zip(names, ("orthogonalized", "leaves", "whole", "bytes moved", "operations"), strict=True))
    cells = [dict(zip(keys, map(str, (*where, *numbers)), strict=True)) for where, numbers in sums.items()]
    return [table.to_text(titles, cells, right=("leaves", "moved", "operations"), ruled=False)] if cells else []


def placement_report(
    tree: chex.ArrayTree, shardings: chex.ArrayTree | None = None, *, tx: optax.GradientTransformation | None = None
) -> str:
    """Return a table of what each device holds of a tree: a line per set of mesh axes that split, and the total.

    Arrays in the host's memory have separate lines and a separate total.

    Args:
      tree, shardings: as in `bytes_per_device`.
      tx: an optimizer of this library or one of its directions, for these parameters: further lines say for each shape
        that it orthogonalizes where matrices are whole, and what one update takes per device: bytes that collectives
        return, and operations.

    >>> mesh = jax.sharding.AbstractMesh((8,), ("data",))
    >>> split, whole = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    >>> shapes = {"w": jax.ShapeDtypeStruct((256, 8), "float32"), "b": jax.ShapeDtypeStruct((8,), "float32")}
    >>> print(placement_report(shapes, {"w": split, "b": whole}))
    split over  leaves  bytes  bytes/device
    data             1   8192          1024
    whole            1     32            32
    total            2   8224          1056
    """
    rows: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for memory, axes, total, shard in _shards(tree, shardings):
        for name in (axes, "total"):
            where = (memory, name)
            rows[where] = [count + more for count, more in zip(rows[where], (1, total, shard), strict=True)]
    ordered = sorted(rows.items(), key=lambda row: (row[0][0], row[0][1] == "total", -row[1][2]))
    titles = {"axes": "split over", "leaves": "leaves", "bytes": "bytes", "shard": "bytes/device"}
    cells = [
        dict(zip(titles, (f"{name}, host" if memory == "host" else name, *map(str, numbers)), strict=True))
        for (memory, name), numbers in ordered
    ]
    text = table.to_text(titles, cells, right=("leaves", "bytes", "shard"), ruled=False)
    return "\n".join([text, *([] if tx is None else _orthogonalized(tx, tree, shardings))])
