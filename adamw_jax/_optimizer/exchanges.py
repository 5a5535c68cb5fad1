"""What orthogonalization moves between chips, and where its matrices are whole, from shapes alone."""

from typing import Any, NamedTuple

import chex
import jax

from adamw_jax._direction.placement import given_shardings, spec_of
from adamw_jax._direction.stacks import Layout, product_of, stacks_of
from adamw_jax._optimizer.residual import orthogonalized
from adamw_jax._rules.axes import widths_of
from adamw_jax._rules.leaf import leaves_of
from adamw_jax._tree.typing import Directions


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
      None for a leaf whose direction orthogonalizes nothing, or has no known arguments.
    """
    arrays, sizes = jax.tree.leaves(params), dict(mesh.shape)
    found: list[Exchange | None] = [None] * len(arrays)
    for facts, options, indices, leaves in orthogonalized(direction, params, leaves_of(params, axes)):
        if not facts.arguments or any(not {"i", "o"} <= set(leaf.axes or "") for leaf in leaves):
            continue
        placed = [getattr(arrays[i], "sharding", None) for i in indices]
        given = options.shardings if shardings is None else shardings
        if given is not None:
            placed = given_shardings(given, [leaf.path for leaf in leaves])
        layouts, parts = [], []
        for i, leaf, sharding, widths in zip(indices, leaves, placed, widths_of(options.split, leaves), strict=True):
            spec = spec_of(sharding, len(leaf.shape))
            shape = [n // product_of(sizes, names) for n, names in zip(leaf.shape, spec, strict=True)]
            layouts.append(Layout(leaf.axes or "", spec, widths))
            parts.append(jax.ShapeDtypeStruct(shape, arrays[i].dtype))
        for kind, within in stacks_of(parts, layouts):
            counts = [layouts[j].dims(parts[j].shape)[0] for j in within]
            mode = options.mode(kind, sum(counts), sizes)
            total = options.costs(mode, kind, sum(counts), sizes)
            for j, count in zip(within, counts, strict=True):
                share = count / sum(counts)
                found[indices[j]] = Exchange(mode, round(total.bytes * share), round(total.operations * share))
    return found
