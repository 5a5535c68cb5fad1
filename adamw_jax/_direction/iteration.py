"""The options of `orthogonalize`, and the iteration over all leaves: alike ones as one stack, split or whole."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from adamw_jax._direction.distribute import CHIP_BYTES, MODES, Cost, cost, gathered, owned
from adamw_jax._direction.newton_schulz import PRECONDITIONINGS, Triples, newton_schulz, triples_of
from adamw_jax._direction.placement import Placement
from adamw_jax._direction.stacks import Kind, Layout, Names, Sizes, stacks_of
from adamw_jax._rules.axes import check_split
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar
from adamw_jax._tree.width import arithmetic_dtype, as_scalar


def one_of(name: str, value: Any, other: str, other_value: Any) -> Any:
    """Return the one of two spellings of an argument that is given."""
    if value is not None and other_value is not None:
        raise TypeError(f"`{name}` and `{other}` are one argument, got both, {value!r} and {other_value!r}")
    return other_value if value is None else value


class MatrixOptions(TypedDict, total=False):
    """The types of the options of `Orthogonalization`, for `**options`."""

    coefficients: Any
    steps: int | None
    eps: Scalar
    preconditioning: str
    compute_dtype: Any
    scale: str | None
    consistent_rms: Scalar | None
    adaptive: bool
    split: Any
    distribute: str | None
    shardings: Any
    avoid: str | Sequence[str]
    ns_coeffs: Any
    ns_steps: int | None
    weight_dimension_numbers: Any


@dataclasses.dataclass(eq=False)
class Orthogonalization:
    """The options of `orthogonalize`, which documents them, and the iteration that they describe.

    Attributes:
      letters, triples, dtype, avoided: from the options with two spellings, checked.
    """

    axes: Any = None
    _: dataclasses.KW_ONLY
    coefficients: Any = "jordan"
    steps: int | None = None
    eps: Scalar = 1e-8
    preconditioning: str = "frobenius"
    compute_dtype: Any = None
    scale: str | None = "shape"
    consistent_rms: Scalar | None = None
    adaptive: bool = False
    split: Any = None
    distribute: str | None = None
    shardings: Any = None
    avoid: str | Sequence[str] = ()
    ns_coeffs: Any = None
    ns_steps: int | None = None
    weight_dimension_numbers: Any = None
    letters: Any = dataclasses.field(init=False)
    triples: Triples = dataclasses.field(init=False)
    dtype: Any = dataclasses.field(init=False)
    avoided: Names = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.letters = one_of("axes", self.axes, "weight_dimension_numbers", self.weight_dimension_numbers)
        steps = one_of("steps", self.steps, "ns_steps", self.ns_steps)
        checks.check_number("eps", self.eps, low=0, open_low=True)
        checks.check_choice("preconditioning", self.preconditioning, PRECONDITIONINGS)
        self.dtype = None if self.compute_dtype is None else jnp.dtype(self.compute_dtype)
        if self.dtype is not None and self.dtype.name not in ("bfloat16", "float32", "float64"):
            raise ValueError(f"`compute_dtype` must be None, bfloat16, float32 or float64, got {self.compute_dtype!r}")
        self.triples = triples_of(self.coefficients if self.ns_coeffs is None else self.ns_coeffs, steps)
        if self.distribute is not None:
            checks.check_choice("distribute", self.distribute, MODES, others="None")
        self.avoided = (self.avoid,) if isinstance(self.avoid, str) else tuple(self.avoid or ())
        if not all(isinstance(name, str) for name in self.avoided):
            raise TypeError(f"`avoid` must be names of mesh axes, got {self.avoid!r}")
        checks.check_choice("scale", self.scale, (None, "shape"))
        checks.check_flag("adaptive", self.adaptive)
        check_split(self.split)
        if self.consistent_rms is not None:
            checks.check_number("consistent_rms", self.consistent_rms, low=0, open_low=True)
            if self.scale is None:
                raise ValueError(f"`scale` must be 'shape' with `consistent_rms`, got None and {self.consistent_rms}")

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> "Orthogonalization":
        """Return the options among the arguments of a direction."""
        names = [each.name for each in dataclasses.fields(cls) if each.init]
        return cls(**{name: arguments[name] for name in names})

    def factor(self, rows: int, columns: int) -> Any:
        """Return s, by which the orthogonal matrix of a shape is multiplied."""
        if self.consistent_rms is not None:
            return as_scalar(self.consistent_rms) * math.sqrt(max(rows, columns))
        return 1.0 if self.scale is None else math.sqrt(max(1, columns / rows))

    def scaled(self, y: chex.Array, layout: Layout, shape: Sequence[int]) -> chex.Array:
        """Return a leaf of orthogonal matrices times their factors; its whole shape is `shape`."""
        _, rows, columns = layout.dims(shape)
        if len(set(layout.widths)) < 2:
            return y * self.factor(rows, layout.widths[0] if layout.widths else columns)
        axis = layout.letters.index("o")
        each = [jnp.full(shape[axis] * width // columns, self.factor(rows, width)) for width in layout.widths]
        return y * jnp.concatenate(each).reshape([-1 if i == axis else 1 for i in range(y.ndim)])

    def iterate(self, x: chex.Array, widths: tuple[int, ...]) -> chex.Array:
        """Orthogonalize whole matrices (k, rows, columns), or where there are widths, each block of columns."""
        run = functools.partial(
            newton_schulz, triples=self.triples, eps=self.eps, dtype=self.dtype, preconditioning=self.preconditioning
        )
        if len(set(widths)) > 1:
            ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
            return jnp.concatenate([run(block) for block in jnp.split(x, ends, axis=2)], axis=2)
        if not widths:
            return run(x)
        blocks = x.reshape(*x.shape[:2], len(widths), -1).swapaxes(1, 2)
        return run(blocks.reshape(-1, *blocks.shape[2:])).reshape(blocks.shape).swapaxes(1, 2).reshape(x.shape)

    def costs(self, mode: str, kind: Kind, count: int, sizes: Sizes) -> Cost:
        """Return what a stack takes per chip."""
        itemsize = jnp.dtype(self.dtype or jnp.promote_types(kind.dtype, jnp.float32)).itemsize
        return cost(mode, kind, count, sizes, self.avoided, itemsize=itemsize, steps=len(self.triples))

    def mode(self, kind: Kind, count: int, sizes: Sizes) -> str:
        """Return where a stack is whole: on its "owned" chips, or by a "gather" on all."""
        if self.distribute != "auto":
            return self.distribute or "gather"
        return min(("owned", "gather"), key=lambda mode: self.costs(mode, kind, count, sizes).time)

    def on_parts(self, leaves: Sequence[chex.Array], layouts: Sequence[Layout], sizes: Sizes) -> list[chex.Array]:
        """Orthogonalize the parts of all leaves that this chip has; leaves of one kind are one stack."""
        results: dict[int, chex.Array] = {}
        for kind, members in stacks_of(leaves, layouts):
            dtype = self.dtype or arithmetic_dtype(leaves[members[0]])
            parts = [layouts[i].as_stack(leaves[i].astype(dtype)) for i in members]
            stack = jnp.concatenate(parts)
            run = functools.partial(self.iterate, widths=kind.widths)
            if self.mode(kind, len(stack), sizes) == "gather":
                stack = gathered(stack, run, kind, sizes)
            else:
                _warn_of_size(kind, sizes, dtype)
                stack = owned(stack, run, kind, sizes, self.avoided)
            start = 0
            for i, part in zip(members, parts, strict=True):
                results[i] = layouts[i].as_leaf(stack[start : start + len(part)], leaves[i])
                start += len(part)
        return [results[i] for i in range(len(leaves))]

    def run(self, leaves: Sequence[chex.Array], layouts: Sequence[Layout], placement: Placement) -> list[chex.Array]:
        """Orthogonalize leaves, split over a mesh or not."""
        local = functools.partial(self.on_parts, layouts=layouts, sizes=placement.sizes)
        if placement.mesh is None:
            return local(leaves)
        specs = [PartitionSpec(*(names or None for names in spec)) for spec in placement.specs]
        mapped: Any = jax.shard_map(local, mesh=placement.mesh, in_specs=(specs,), out_specs=specs)
        whole: list[chex.Array] = mapped(list(leaves))
        return whole


def _warn_of_size(kind: Kind, sizes: Sizes, dtype: Any) -> None:
    """Warn of matrices that one chip does not hold as a whole."""
    rows, columns = kind.whole(sizes)
    size = rows * columns * jnp.dtype(dtype).itemsize
    if size > CHIP_BYTES:
        warnings.warn(
            f"`distribute='owned'` makes each matrix whole on one chip, and one of {rows} x {columns} has {size} "
            f"bytes, more than the {CHIP_BYTES:.0f} of a small chip: split= cuts matrices that lie side by side",
            stacklevel=2,
        )
