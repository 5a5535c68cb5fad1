"""What orthogonalization moves between chips, and where its matrices are whole, from shapes alone."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
from jax.sharding import NamedSharding

from adamw_jax._direction.by_path import direction_per_leaf
from adamw_jax._direction.direction import about
from adamw_jax._direction.iteration import iteration_of
from adamw_jax._direction.placement import given_shardings
from adamw_jax._direction.stacks import Layout, names_of, product_of, stacks_of
from adamw_jax._rules.axes import widths_of
from adamw_jax._rules.leaf import leaves_of
from adamw_jax._tree.typing import Directions

NAMES = ("muon", "orthogonalize")
"""The directions that tell."""


class Exchange(NamedTuple):
    """What one update takes for a leaf, per chip: its share of the stack that it is in.

    Attributes:
      mode: where its matrices are whole, "owned" by one chip each or on all of them by "gather".
      bytes: of the results of collectives.
      operations: multiplications and additions of the iteration.
    """

    mode: str
    bytes: int
    operations: int

    @property
    def row(self) -> dict[str, Any]:
        """The columns of `explain`."""
        return {"whole": self.mode, "moved": self.bytes, "operations": self.operations}


def exchanges_of(
    direction: Directions, params: chex.ArrayTree, mesh: Any, shardings: Any = None, axes: Any = None
) -> list[Exchange | None]:
    """Return for every leaf, in the order of `jax.tree.leaves`, what its orthogonalization takes.

    Args:
      direction: one for all leaves, or {pattern: direction}.
      params: the parameters, or their shapes.
      mesh: the chips.
      shardings: where the parameters are; None for what the direction was given, else for the leaves' own.
      axes: the letters of the optimizer around.

    Returns:
      None for a leaf whose direction orthogonalizes nothing, or does not tell.
    """
    arrays, rows, sizes = jax.tree.leaves(params), leaves_of(params, axes), dict(mesh.shape)
    members: Mapping[int, list[int]] = defaultdict(list)
    every = direction_per_leaf(direction, params)
    for i, each in enumerate(every):
        if about(each).name in NAMES and about(each).arguments and arrays[i].size:
            members[id(each)].append(i)
    found: list[Exchange | None] = [None] * len(arrays)
    for indices in members.values():
        options: Any = about(every[indices[0]]).arguments
        own = options["axes"] if options["weight_dimension_numbers"] is None else options["weight_dimension_numbers"]
        known = rows if own is None else leaves_of(params, own)
        leaves = [known[i] for i in indices]
        if any(not {"i", "o"} <= set(leaf.axes or "") for leaf in leaves):
            continue
        given = options["shardings"] if shardings is None else shardings
        placed = (
            [getattr(arrays[i], "sharding", None) for i in indices]
            if given is None
            else given_shardings(given, [leaf.path for leaf in leaves])
        )
        specs = [tuple(each.spec) if isinstance(each, NamedSharding) else tuple(each or ()) for each in placed]
        split = [
            tuple(map(names_of, (*spec, *(None,) * (len(leaf.shape) - len(spec)))))
            for spec, leaf in zip(specs, leaves, strict=True)
        ]
        layouts = [
            Layout(leaf.axes or "", spec, widths)
            for leaf, spec, widths in zip(leaves, split, widths_of(options["split"], leaves), strict=True)
        ]
        parts = [
            jax.ShapeDtypeStruct(
                [n // product_of(sizes, names) for n, names in zip(leaf.shape, spec, strict=True)], arrays[i].dtype
            )
            for i, leaf, spec in zip(indices, leaves, split, strict=True)
        ]
        iteration = iteration_of(**options)
        for kind, within in stacks_of(parts, layouts):
            counts = [layouts[j].dims(parts[j].shape)[0] for j in within]
            mode = iteration.mode(kind, sum(counts), sizes)
            total = iteration.costs(mode, kind, sum(counts), sizes)
            for j, count in zip(within, counts, strict=True):
                share = count / sum(counts)
                found[indices[j]] = Exchange(mode, round(total.bytes * share), round(total.operations * share))
    return found
