"""Where the state of an optimizer lives on a mesh of devices: like the parameters, split (ZeRO-1), or replicated.

Every field of a state is a scalar or has the shape of the parameter whose path ends its own path, so a placement is one
rule on shapes, the same for this library's transforms and for optax's.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import chex
import jax
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from adamw_jax.typing import Params

Mode = Literal["like_params", "zero1", "replicated"]
Spec = tuple[Any, ...]


def state_shardings(
    tx: optax.GradientTransformation,
    params_or_shapes: Params,
    *,
    mesh: Mesh | AbstractMesh,
    mode: Mode = "like_params",
    axis: str | Sequence[str] = "data",
    min_size: int = 1024,
) -> chex.ArrayTree:
    """The sharding of every leaf of an optimizer's state, for ``jax.jit(..., out_shardings=)`` or a restore.

    With S the bytes of the state and N the number of devices on ``axis``, a device holds::

        replicated    S
        like_params   what it holds of the parameters, times S over the bytes of the parameters
        zero1         S / N, and whole what no dimension of which N divides, or what is smaller than min_size

    Giving the shardings as ``out_shardings`` of the training step pins them: the gradients and the parameters meet the
    moments split, and only the new parameters are gathered.

    Args:
        tx: any optax transformation; of its state only the shapes are computed.
        params_or_shapes: the parameters, or ``jax.ShapeDtypeStruct``s; a leaf without a ``NamedSharding`` of its own
            counts as replicated.
        mesh: the devices, with axes of any type (Auto or Explicit).
        mode: "like_params": a leaf is placed as its parameter is; "zero1": and is then also split over the part of
            ``axis`` that its parameter does not use, along the first dimension that is whole and divisible;
            "replicated": every device holds all of the state.
        axis: name, or names, of the mesh axes over which zero1 splits.
        min_size: number of elements below which zero1 leaves a leaf as it is.

    Returns:
        A tree of ``NamedSharding`` with the structure of ``tx.init(params)``. Their ``spec``s are the ``in_specs`` and
        ``out_specs`` of a ``jax.shard_map``.

    Raises:
        ValueError: an unknown mode, an axis that the mesh lacks, or a parameter placed on a mesh of another shape.

    Source: Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*
    (arXiv 1910.02054), section 5.1: stage 1, optimizer states partitioned.

    >>> mesh = AbstractMesh((8,), ("data",))
    >>> tx, shapes = optax.trace(0.9), {"w": jax.ShapeDtypeStruct((256, 8), "float32")}
    >>> state_shardings(tx, shapes, mesh=mesh, mode="zero1").trace["w"].spec
    P('data',)
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {get_args(Mode)}, got {mode!r}")
    axes = _axes(axis, mesh)
    owners = {path: (leaf.shape, _spec(path, leaf, mesh)) for path, leaf in jax.tree.leaves_with_path(params_or_shapes)}

    def place(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        spec = (None,) * leaf.ndim
        if mode != "replicated":
            suffixes = (path[start:] for start in range(len(path) + 1))
            spec = next((owners[s][1] for s in suffixes if s in owners and owners[s][0] == leaf.shape), spec)
        return _named(mesh, _split(leaf.shape, spec, mesh, axes, min_size) if mode == "zero1" else spec)

    return jax.tree.map_with_path(place, jax.eval_shape(tx.init, jax.tree.map(_bare, params_or_shapes)))


def fsdp_shardings(
    params_or_shapes: Params,
    *,
    mesh: Mesh | AbstractMesh,
    axis: str | Sequence[str] = "data",
    min_size: int = 1024,
) -> chex.ArrayTree:
    """The rule by which ``state_shardings(mode="zero1")`` splits the state, applied to the parameters themselves.

    Parameters placed so, with the state in mode "like_params", are fully sharded data parallelism (ZeRO-3).

    Args:
        params_or_shapes: the parameters, or ``jax.ShapeDtypeStruct``s; shardings that they have are refined.
        mesh: the devices.
        axis: name, or names, of the mesh axes over which to split.
        min_size: number of elements below which a leaf stays as it is.

    Returns:
        A tree of ``NamedSharding`` with the structure of the parameters.

    Raises:
        ValueError: an axis that the mesh lacks, or a parameter placed on a mesh of another shape.

    Source: arXiv 1910.02054, section 5.3.

    >>> mesh = AbstractMesh((8,), ("data",))
    >>> fsdp_shardings({"w": jax.ShapeDtypeStruct((3, 800), "float32")}, mesh=mesh)["w"].spec
    P(None, 'data')
    """
    axes = _axes(axis, mesh)

    def place(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        return _named(mesh, _split(leaf.shape, _spec(path, leaf, mesh), mesh, axes, min_size))

    return jax.tree.map_with_path(place, params_or_shapes)


def init_sharded(
    tx: optax.GradientTransformation,
    params: Params,
    *,
    mesh: Mesh,
    mode: Mode = "like_params",
    axis: str | Sequence[str] = "data",
    min_size: int = 1024,
) -> optax.OptState:
    """``tx.init(params)``, compiled so that every device creates its own part: nothing is gathered or copied.

    Args:
        tx: any optax transformation.
        params: the parameters, on ``mesh`` or not yet committed to a device.
        mesh: as in `state_shardings`.
        mode: as in `state_shardings`.
        axis: as in `state_shardings`.
        min_size: as in `state_shardings`.

    Returns:
        The state, placed as `state_shardings` says.

    Raises:
        ValueError: as `state_shardings`.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> state = init_sharded(optax.trace(0.9), {"w": jax.numpy.ones((256, 8))}, mesh=mesh, mode="zero1")
    >>> state.trace["w"].sharding.spec, bytes_per_device(state)
    (P('data', None), 8192)
    """
    return jax.jit(
        tx.init, out_shardings=state_shardings(tx, params, mesh=mesh, mode=mode, axis=axis, min_size=min_size)
    )(params)


def bytes_per_device(tree: chex.ArrayTree, shardings: chex.ArrayTree | None = None) -> int:
    """Bytes that each device of the mesh holds of a tree: the sum of the leaves' shards.

    Args:
        tree: arrays or ``jax.ShapeDtypeStruct``s; a leaf without a sharding counts as a whole copy on each device.
        shardings: a tree of shardings to use in place of the leaves' own.

    Returns:
        The number of bytes, equal on all devices because JAX splits evenly.

    >>> bytes_per_device({"w": jax.ShapeDtypeStruct((256, 8), "float32")})
    8192
    """
    return sum(shard for _, _, shard in _shards(tree, shardings))


def placement_report(tree: chex.ArrayTree, shardings: chex.ArrayTree | None = None) -> str:
    """A table of what each device holds of a tree: one line per way of splitting, the largest first.

    Args:
        tree: as in `bytes_per_device`.
        shardings: as in `bytes_per_device`.

    Returns:
        Lines of text: spec, number of leaves, bytes of the whole, bytes per device, and their totals.

    >>> print(placement_report({"w": jax.ShapeDtypeStruct((256, 8), "float32"), "b": jax.numpy.ones(8)}))
    placement          leaves            bytes   bytes/device
    P()                     2             8224           8224
    total                   2             8224           8224
    """
    rows: dict[str, list[int]] = {}
    for spec, whole, shard in _shards(tree, shardings):
        row = rows.setdefault(spec, [0, 0, 0])
        row[:] = row[0] + 1, row[1] + whole, row[2] + shard
    ordered = sorted(rows.items(), key=lambda item: -item[1][2])
    ordered.append(("total", [sum(column) for column in zip(*rows.values(), strict=True)] or [0, 0, 0]))
    lines = [f"{'placement':<18}{'leaves':>7}{'bytes':>17}{'bytes/device':>15}"]
    return "\n".join(lines + [f"{name:<18}{n:>7}{whole:>17}{shard:>15}" for name, (n, whole, shard) in ordered])


def _shards(tree: chex.ArrayTree, shardings: chex.ArrayTree | None) -> list[tuple[str, int, int]]:
    """For every leaf: its spec as text, its bytes, and the bytes of one shard."""
    leaves = jax.tree.leaves(tree)
    placed = [getattr(leaf, "sharding", None) for leaf in leaves] if shardings is None else jax.tree.leaves(shardings)
    out = []
    for leaf, sharding in zip(leaves, placed, strict=True):
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        spec = _trim(getattr(sharding, "spec", ()))
        out.append((str(spec), math.prod(leaf.shape) * leaf.dtype.itemsize, math.prod(shape) * leaf.dtype.itemsize))
    return out


def _split(shape: tuple[int, ...], spec: Spec, mesh: Mesh | AbstractMesh, axes: tuple[str, ...], min_size: int) -> Spec:
    """The spec refined over the axes that it does not use yet, along the first dimension that is whole and divisible.

    The first, because the shards of a leading dimension are contiguous: gathering them moves no element twice.
    """
    used = {name for entry in spec for name in (entry if isinstance(entry, tuple) else (entry,))}
    free = tuple(name for name in axes if name not in used)
    parts = math.prod(mesh.shape[name] for name in free)
    if free and math.prod(shape) >= min_size:
        for dim, (length, entry) in enumerate(zip(shape, spec, strict=True)):
            if entry is None and length % parts == 0:
                return (*spec[:dim], free[0] if len(free) == 1 else free, *spec[dim + 1 :])
    return spec


def _spec(path: Any, leaf: Any, mesh: Mesh | AbstractMesh) -> Spec:
    """The placement that a parameter has, one entry per dimension; replicated where it has none."""
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return (None,) * leaf.ndim
    if dict(sharding.mesh.shape) != dict(mesh.shape):
        raise ValueError(
            f"mesh must be the one on which the parameters are placed, got {dict(mesh.shape)}, "
            f"but {jax.tree_util.keystr(path, simple=True, separator='/')} is on {dict(sharding.mesh.shape)}"
        )
    return (*sharding.spec, *[None] * (leaf.ndim - len(sharding.spec)))


def _named(mesh: Mesh | AbstractMesh, spec: Spec) -> NamedSharding:
    """The sharding, spelled as JAX spells it on a compiled function's output, so that a second call is no new type.

    With Explicit axes that is one entry per dimension, with Auto axes no trailing None.
    """
    explicit = AxisType.Explicit in mesh.axis_types
    return NamedSharding(mesh, PartitionSpec(*spec) if explicit else _trim(spec))


def _trim(spec: Spec) -> PartitionSpec:
    """The spec without its trailing None."""
    while spec and spec[-1] is None:
        spec = spec[:-1]
    return PartitionSpec(*spec)


def _axes(axis: str | Sequence[str], mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """The axis names as a tuple, each one checked against the mesh."""
    axes = (axis,) if isinstance(axis, str) else tuple(axis)
    if missing := [name for name in axes if name not in mesh.axis_names]:
        raise ValueError(f"axis must name axes of the mesh, {mesh.axis_names}, got {missing[0]!r}")
    return axes


def _bare(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype alone: only they decide the shapes of the state."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
