"""The mesh axes that split leaves: from their types on explicit axes, from `shardings` elsewhere."""

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from adamw_jax._direction.stacks import Layout, Names, Sizes, names_of, product_of
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths


class Placement(NamedTuple):
    """The mesh that leaves are split over.

    Attributes:
      mesh: to enter by `jax.shard_map`; None where there is none, or where the stage is inside one already.
      sizes: of the mesh's axes, {} where no mesh is known.
      specs: the mesh axes that split each axis of each leaf.
    """

    mesh: Any
    sizes: Sizes
    specs: list[tuple[Names, ...]]

    def whole(self, shape: Sequence[int], spec: Sequence[Names]) -> tuple[int, ...]:
        """Return the shape of a leaf, which inside `jax.shard_map` is seen in parts."""
        if self.mesh is not None:
            return tuple(shape)
        return tuple(n * product_of(self.sizes, names) for n, names in zip(shape, spec, strict=True))


def given_shardings(shardings: chex.ArrayTree, paths: Sequence[str]) -> list[Any]:
    """Return the sharding or spec at every path; the tree may have further leaves."""

    def is_leaf(node: Any) -> bool:
        return isinstance(node, (NamedSharding, PartitionSpec))

    leaves = jax.tree.leaves(shardings, is_leaf=is_leaf)
    if not all(map(is_leaf, leaves)):
        raise TypeError(f"`shardings` must be a tree of NamedSharding, as fsdp_shardings returns it, got {shardings!r}")
    if len(leaves) == 1 and leaves[0] is shardings:
        return leaves * len(paths)
    by_path = dict(zip(leaf_paths(shardings, is_leaf), leaves, strict=True))
    for path in paths:
        if path not in by_path:
            nearest = difflib.get_close_matches(path, by_path, n=3, cutoff=0.0)
            raise ValueError(
                f"`shardings` must have the parameters' paths, got none for {path!r}; the nearest are "
                f"{', '.join(map(repr, nearest))}"
            )
    return [by_path[path] for path in paths]


def spec_of(sharding: Any, ndim: int) -> tuple[Names, ...]:
    """Return the mesh axes that split each of a leaf's axes, by a sharding or a spec; none by a sharding of no mesh."""
    spec = tuple(sharding if isinstance(sharding, PartitionSpec) else getattr(sharding, "spec", ()))
    return (*map(names_of, spec), *((),) * (ndim - len(spec)))


def _placed(leaf: Any) -> Any:
    """Return a leaf's sharding, from its type or as a concrete array; None where it is not known."""
    typed = jax.typeof(leaf).sharding
    if AxisType.Explicit in typed.mesh.axis_types:
        return typed
    sharding = None if checks.is_traced(leaf) else getattr(leaf, "sharding", None)
    return sharding if isinstance(sharding, NamedSharding) else None


def placement_of(
    leaves: Sequence[Any], paths: Sequence[str], shardings: chex.ArrayTree | None, *, distribute: str | None
) -> Placement:
    """Return where leaves are split: by their types on explicit mesh axes, else by `shardings`.

    Args:
      leaves: arrays, traced or not.
      paths: their paths.
      shardings, distribute: as given to the stage; where both are None, no placement need be known.

    Raises:
      ValueError, TypeError: no placement where there must be one; shardings without a path, or of several meshes.

    Warns:
      UserWarning: shardings that are not those of the leaves, where these are known.
    """
    here = jax.sharding.get_abstract_mesh()
    given = None if shardings is None else given_shardings(shardings, paths)

    def specs(found: Sequence[Any]) -> list[tuple[Names, ...]]:
        return [spec_of(each, leaf.ndim) for each, leaf in zip(found, leaves, strict=True)]

    if here.manual_axes:
        if given is None:
            raise ValueError(
                "`shardings` must be given to orthogonalize inside jax.shard_map, where a leaf may be a part of its "
                "matrix: those of the whole parameters, or jax.P() where each device has all of it, got None"
            )
        return Placement(None, {name: here.shape[name] for name in here.manual_axes}, specs(given))
    for leaf, path, sharding in () if given is None else zip(leaves, paths, given, strict=True):
        placed = _placed(leaf)
        if placed is not None and spec_of(placed, leaf.ndim) != spec_of(sharding, leaf.ndim):
            warnings.warn(
                f"`shardings` has {path!r} as {getattr(sharding, 'spec', sharding)}, but it is {placed.spec}: the "
                "update's numbers are right, and it is moved",
                stacklevel=2,
            )
    typed = [jax.typeof(leaf).sharding for leaf in leaves]
    explicit = [each.mesh for each in typed if AxisType.Explicit in each.mesh.axis_types]
    if explicit:
        return Placement(explicit[0], dict(explicit[0].shape), specs(typed))
    if given is not None:
        meshes = {getattr(each, "mesh", None) for each in given}
        if len(meshes) > 1 or None in meshes:
            raise ValueError(f"`shardings` must be NamedShardings of one mesh, got those of {len(meshes)}: {meshes}")
        return Placement(given[0].mesh, dict(given[0].mesh.shape), specs(given))
    if distribute is not None:
        raise ValueError(
            f"`distribute={distribute!r}` must know where the leaves are: types say it on explicit mesh axes only, so "
            "give shardings=, such as fsdp_shardings(params, mesh=mesh), got None"
        )
    return Placement(None, {}, specs([None] * len(leaves)))


def check_crossings(
    paths: Sequence[str], layouts: Sequence[Layout], placement: Placement, avoid: Names, distribute: str | None
) -> None:
    """Check what will move between devices: axes to be avoided that split a matrix; leaves gathered by default."""
    if not placement.sizes:
        return
    for name in avoid:
        checks.check_choice("avoid", name, tuple(placement.sizes))
    split = []
    for path, layout in zip(paths, layouts, strict=True):
        names = [name for name in layout.of("i") + layout.of("o") if placement.sizes[name] > 1]
        split += [path] * bool(names)
        if set(names) & set(avoid):
            raise ValueError(
                f"`avoid` must not have an axis that splits a matrix, which is whole only across it, got {avoid} and "
                f"{path!r}, split over {tuple(names)}: split stacks over it, or nothing"
            )
        if layout.widths and any(layout.spec[axis] for axis in layout.outputs[1:]):
            raise ValueError(
                f"`split` takes leaves whose outputs are split over devices along their first axis only, got {path!r} "
                f"with axes {layout.letters!r}, split as {layout.spec}"
            )
    if split and distribute is None:
        warnings.warn(
            f"{len(split)} leaves are split over devices, and gathered whole on each to be orthogonalized, first "
            f"{split[0]!r}: distribute='owned' moves less and shares the work, 'gather' says that this is meant",
            stacklevel=2,
        )
