"""Placing the state of an optimizer on a mesh: like the parameters, split over the devices (ZeRO-1), or replicated.

A leaf of a state belongs to a parameter by its path (see `parameter_of`): a placement is one rule on paths and shapes,
the same for this library's transforms and for optax's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import chex
import jax
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from adamw_jax._devices.host import with_memory_of
from adamw_jax._tree import checks
from adamw_jax._tree.state import parameter_of
from adamw_jax._tree.typing import Params

MODES = ("like_params", "zero1", "replicated")

Spec: TypeAlias = tuple[Any, ...]
"""The entries of a PartitionSpec, one per dimension."""


def state_shardings(
    tx: optax.GradientTransformation,
    params_or_shapes: Params,
    *,
    mesh: Mesh | AbstractMesh,
    mode: str = "like_params",
    axis: str | Sequence[str] = "data",
    min_size: int = 1024,
) -> chex.ArrayTree:
    """Return the sharding of every leaf of an optimizer's state.

    As `out_shardings` of the compiled training step they pin the state where it is: gradients and parameters meet the
    moments split, and only the new parameters are gathered. Their specs are the `in_specs` and `out_specs` of a
    `jax.shard_map`.

    Args:
      tx: any optax transformation; of its state only the shapes are computed.
      params_or_shapes: the parameters, or `jax.ShapeDtypeStruct`s; a leaf that has no `NamedSharding` is replicated.
      mesh: the devices; its axes may be Auto or Explicit.
      mode: "like_params" places a leaf of its parameter's shape as the parameter, and any other whole on every device;
        "zero1" then splits it over that part of `axis` which its parameter leaves unused, along the first dimension
        that is whole and divisible; "replicated" puts the whole state on every device.
      axis: the mesh axis, or axes, over which "zero1" splits.
      min_size: the fewest elements of a leaf that "zero1" splits, >= 0. It does not split a leaf without a dimension
        that the devices divide, nor statistics smaller than their parameter.

    Returns:
      A tree of `NamedSharding` with the structure of `tx.init(params)`.

    Raises:
      ValueError, TypeError: an unknown mode, an axis that the mesh lacks, a parameter placed on a mesh of other axes.

    Source: Rajbhandari et al., arXiv 1910.02054, section 5.1 (ZeRO stage 1: the optimizer's state partitioned).

    >>> mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))
    >>> tx, shapes = optax.trace(0.9), {"w": jax.ShapeDtypeStruct((256, 8), "float32")}
    >>> state_shardings(tx, shapes, mesh=mesh, mode="zero1").trace["w"].spec
    P('data',)
    """
    checks.check_choice("mode", mode, MODES)
    split = _splitter(mesh, axis, min_size)
    params = _with_shapes(params_or_shapes)
    owners = {path: (leaf, _spec_of(path, leaf, mesh)) for path, leaf in jax.tree.leaves_with_path(params)}

    def place(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        found = parameter_of(path, owners)
        owner, spec = (leaf, ()) if found is None else owners[found]
        if mode == "replicated" or owner.shape != leaf.shape or not spec:
            spec = (None,) * leaf.ndim
        if mode == "zero1" and leaf.size >= owner.size:
            spec = split(leaf.shape, spec)
        return _named(mesh, spec)

    bare = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    shardings = jax.tree_util.tree_map_with_path(place, jax.eval_shape(tx.init, bare))
    return with_memory_of(tx.init, bare, shardings)


def fsdp_shardings(
    params_or_shapes: Params, *, mesh: Mesh | AbstractMesh, axis: str | Sequence[str] = "data", min_size: int = 1024
) -> chex.ArrayTree:
    """Return shardings of the parameters themselves, split by the rule by which mode "zero1" splits the state.

    Parameters placed so, and the state like the parameters, are fully sharded data parallelism (ZeRO stage 3).

    Args:
      params_or_shapes, mesh, axis, min_size: as in `state_shardings`. Placements that a parameter has are kept.

    Returns:
      A tree of `NamedSharding` with the parameters' structure.

    Raises:
      ValueError, TypeError: as `state_shardings`.

    Source: Rajbhandari et al., arXiv 1910.02054, section 5.3.

    >>> mesh = AbstractMesh((8,), ("data",))
    >>> fsdp_shardings({"w": jax.ShapeDtypeStruct((3, 800), "float32")}, mesh=mesh)["w"].spec
    P(None, 'data')
    """
    split = _splitter(mesh, axis, min_size)

    def place(path: Any, leaf: Any) -> NamedSharding:
        return _named(mesh, split(leaf.shape, _spec_of(path, leaf, mesh)))

    return jax.tree_util.tree_map_with_path(place, _with_shapes(params_or_shapes))


def init_sharded(
    tx: optax.GradientTransformation,
    params: Params,
    *,
    mesh: Mesh,
    mode: str = "like_params",
    axis: str | Sequence[str] = "data",
    min_size: int = 1024,
) -> optax.OptState:
    """Return `tx.init(params)`, every device having created its own part: nothing is gathered or copied.

    Args:
      params: the parameters, on `mesh` or not yet committed to a device.
      tx, mesh, mode, axis, min_size: as in `state_shardings`.

    Returns:
      The state, placed as `state_shardings` says.

    Raises:
      ValueError, TypeError: as `state_shardings`.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> state = init_sharded(optax.trace(0.9), {"w": jax.numpy.ones((256, 8))}, mesh=mesh, mode="zero1")
    >>> state.trace["w"].sharding.spec
    P('data', None)
    """
    shardings = state_shardings(tx, params, mesh=mesh, mode=mode, axis=axis, min_size=min_size)
    return jax.jit(tx.init, out_shardings=shardings)(params)


def _with_shapes(params: Params) -> chex.ArrayTree:
    """Return the parameters with plain numbers as arrays, which have a shape, a dtype, and no placement."""
    return jax.tree.map(lambda leaf: leaf if hasattr(leaf, "shape") else jax.numpy.asarray(leaf), params)


def _splitter(mesh: Mesh | AbstractMesh, axis: str | Sequence[str], min_size: int) -> Callable[[Any, Spec], Spec]:
    """Return the function (shape, placement) -> the placement, split over the axes that it leaves unused."""
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise TypeError(f"`mesh` must be a mesh, as jax.make_mesh returns it, got {mesh!r}")
    axes = (axis,) if isinstance(axis, str) else tuple(axis)
    for name in axes:
        checks.check_choice("axis", name, mesh.axis_names)
    least = checks.check_count("min_size", min_size, low=0)

    def split(shape: tuple[int, ...], spec: Spec) -> Spec:
        used = {name for entry in spec for name in (entry if isinstance(entry, tuple) else (entry,))}
        free = tuple(name for name in axes if name not in used)
        parts = math.prod(mesh.shape[name] for name in free)
        if free and math.prod(shape) >= least:
            # The first dimension that divides, because shards of a leading dimension are contiguous in memory.
            for dim, (length, entry) in enumerate(zip(shape, spec, strict=True)):
                if entry is None and length % parts == 0:
                    refined: Spec = (*spec[:dim], free[0] if len(free) == 1 else free, *spec[dim + 1 :])
                    return refined
        return spec

    return split


def _spec_of(path: Any, leaf: Any, mesh: Mesh | AbstractMesh) -> Spec:
    """Return a parameter's placement, one entry per dimension; replicated where it has none."""
    sharding: Any = getattr(leaf, "sharding", None)
    is_placed = isinstance(sharding, NamedSharding)
    if is_placed and dict(sharding.mesh.shape) != dict(mesh.shape):
        raise ValueError(
            f"`mesh` must have the axes of the mesh that the parameters are on, got {dict(mesh.shape)}, "
            f"and {checks.path_text(path)!r} is on {dict(sharding.mesh.shape)}"
        )
    given = tuple(sharding.spec) if is_placed else ()
    spec: Spec = (*given, *(None,) * (leaf.ndim - len(given)))
    return spec


def _named(mesh: Mesh | AbstractMesh, spec: Spec) -> NamedSharding:
    """Return the sharding as JAX spells it for outputs of compiled functions, so that a second call compiles nothing.

    With Explicit axes that is one entry per dimension, with Auto axes no None at the end.
    """
    if AxisType.Explicit not in mesh.axis_types:
        while spec and spec[-1] is None:
            spec = spec[:-1]
    return NamedSharding(mesh, PartitionSpec(*spec))
