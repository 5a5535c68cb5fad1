"""Leaves as stacks of matrices (k, rows, columns), split over a mesh; leaves of one kind share a stack."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex

Names = tuple[str, ...]
"""Axes of a mesh."""

Sizes = Mapping[str, int]
"""The sizes of a mesh's axes."""

STACK = 2**26
"""Elements on a chip up to which separate leaves are put into one stack, which needs room beside them."""


def product_of(sizes: Sizes, names: Sequence[str]) -> int:
    """Return how many chips lie along some axes of a mesh."""
    return math.prod(sizes[name] for name in names)


def names_of(entry: Any) -> Names:
    """Return the mesh axes in an entry of a PartitionSpec."""
    return () if entry is None else tuple(entry) if isinstance(entry, tuple) else (entry,)


class Kind(NamedTuple):
    """The properties by which leaves share a stack.

    Attributes:
      rows, columns: of the part of a matrix that one chip holds.
      inputs, outputs: the mesh axes that split the matrices' rows and columns.
      stack: the mesh axes that split the axes of the stack; matrices do not move along them.
      dtype: of the leaves.
      widths: columns of the matrices that lie side by side in a leaf, () if it is one matrix.
    """

    rows: int
    columns: int
    inputs: Names
    outputs: Names
    stack: Names
    dtype: Any
    widths: tuple[int, ...]

    def whole(self, sizes: Sizes) -> tuple[int, int]:
        """Return rows and columns of a whole matrix."""
        return self.rows * product_of(sizes, self.inputs), self.columns * product_of(sizes, self.outputs)

    def idle(self, sizes: Sizes, avoid: Names) -> Names:
        """Return the mesh axes along which every chip has the same: they can share the work."""
        used = (*self.inputs, *self.outputs, *self.stack, *avoid)
        return tuple(name for name, size in sizes.items() if name not in used and size > 1)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A leaf as a stack of matrices (k, rows, columns): its axes in the order stack, inputs, outputs.

    Within a side, axes that the mesh splits come first. The iteration commutes with permutations of rows and columns,
    so their order does not matter, as long as all chips have the same.

    Attributes:
      letters: "s", "i" or "o" for each axis of the leaf.
      spec: the mesh axes that split each axis.
      widths: columns of the matrices side by side along the outputs, () if there is one.
    """

    letters: str
    spec: tuple[Names, ...]
    widths: tuple[int, ...] = ()

    @property
    def order(self) -> list[int]:
        """The leaf's axes in the order of the stack."""

        def place(axis: int) -> tuple[int, bool]:
            return "sio".index(self.letters[axis]), not self.widths and not self.spec[axis]

        return sorted(range(len(self.letters)), key=place)

    @property
    def outputs(self) -> list[int]:
        """The axes of outputs, in the order of the leaf."""
        return [axis for axis, letter in enumerate(self.letters) if letter == "o"]

    def of(self, side: str) -> Names:
        """Return the mesh axes that split a side."""
        return tuple(name for axis in self.order if self.letters[axis] == side for name in self.spec[axis])

    def dims(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return (k, rows, columns) of a leaf, or of a part of one."""
        stack, rows, columns = (
            math.prod(n for n, letter in zip(shape, self.letters, strict=True) if letter == side) for side in "sio"
        )
        return stack, rows, columns

    def as_stack(self, x: chex.Array) -> chex.Array:
        """Return the leaf's matrices, or parts of them."""
        return x.transpose(self.order).reshape(self.dims(x.shape))

    def as_leaf(self, y: chex.Array, like: chex.Array) -> chex.Array:
        """Return matrices as the leaf that they come from."""
        y = y.reshape([like.shape[axis] for axis in self.order])
        return y.transpose([self.order.index(axis) for axis in range(y.ndim)]).astype(like.dtype)

    def kind(self, leaf: Any) -> Kind:
        """Return the kind of a leaf, or of a part of one."""
        _, rows, columns = self.dims(leaf.shape)
        return Kind(rows, columns, self.of("i"), self.of("o"), self.of("s"), leaf.dtype, self.widths)


def stacks_of(leaves: Sequence[Any], layouts: Sequence[Layout]) -> list[tuple[Kind, list[int]]]:
    """Return the stacks: the kind of its leaves, and their indices."""
    kinds: dict[Kind, list[list[int]]] = defaultdict(lambda: [[]])
    for i, (leaf, layout) in enumerate(zip(leaves, layouts, strict=True)):
        stacks = kinds[layout.kind(leaf)]
        if stacks[-1] and sum(math.prod(leaves[j].shape) for j in [*stacks[-1], i]) > STACK:
            stacks.append([])
        stacks[-1].append(i)
    return [(kind, members) for kind, stacks in kinds.items() for members in stacks]
