"""The iteration over all leaves: alike ones as one stack, whole matrices wherever they are to be whole."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from adamw_jax._direction.distribute import CHIP_BYTES, Cost, check_options, cost, gathered, owned
from adamw_jax._direction.newton_schulz import PRECONDITIONINGS, newton_schulz, triples_of
from adamw_jax._direction.placement import Placement
from adamw_jax._direction.stacks import Kind, Layout, Names, Sizes, stacks_of
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar
from adamw_jax._tree.width import arithmetic_dtype


def one_of(name: str, value: Any, other: str, other_value: Any) -> Any:
    """Return the one of two spellings of an argument that is given."""
    if value is not None and other_value is not None:
        raise TypeError(f"`{name}` and `{other}` are one argument, got both, {value!r} and {other_value!r}")
    return other_value if value is None else value


def warn_of_size(kind: Kind, sizes: Sizes, dtype: Any) -> None:
    """Warn of matrices that one chip does not hold as a whole."""
    rows, columns = kind.whole(sizes)
    size = rows * columns * jnp.dtype(dtype).itemsize
    if size > CHIP_BYTES:
        warnings.warn(
            f"`distribute='owned'` makes each matrix whole on one chip, and one of {rows} x {columns} has {size} "
            f"bytes, more than the {CHIP_BYTES:.0f} of a small chip: split= cuts matrices that lie side by side",
            stacklevel=2,
        )


def dual(x: chex.Array, y: chex.Array, layout: Layout, placement: Placement) -> chex.Array:
    """Return the inner product of a leaf with its orthogonalized matrices: the dual norm of x, one number a leaf."""
    wide = arithmetic_dtype(x)
    product = jnp.sum(x.astype(wide) * y.astype(wide))
    names = tuple(name for spec in layout.spec for name in spec)
    inside = placement.mesh is None and names
    total: chex.Array = jax.lax.psum(product, names) if inside else product
    return total


@dataclasses.dataclass(frozen=True)
class Iteration:
    """How matrices are orthogonalized, and where: the options of `orthogonalize` that all leaves share."""

    triples: Any
    eps: Scalar
    preconditioning: str
    dtype: Any
    distribute: str | None
    avoid: Names

    def __call__(self, x: chex.Array, widths: tuple[int, ...]) -> chex.Array:
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
        return cost(mode, kind, count, sizes, self.avoid, itemsize=itemsize, steps=len(self.triples))

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
            run = functools.partial(self, widths=kind.widths)
            if self.mode(kind, len(stack), sizes) == "gather":
                stack = gathered(stack, run, kind, sizes)
            else:
                warn_of_size(kind, sizes, dtype)
                stack = owned(stack, run, kind, sizes, self.avoid)
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


def iteration_of(
    *,
    coefficients: Any,
    steps: int | None,
    eps: Scalar,
    preconditioning: str,
    compute_dtype: Any,
    distribute: str | None,
    avoid: Any,
    ns_coeffs: Any,
    ns_steps: int | None,
    **others: Any,
) -> Iteration:
    """Return the iteration that arguments of `orthogonalize` tell, `others` aside.

    Raises:
      ValueError, TypeError: an argument of another kind or out of range.
    """
    del others
    steps = one_of("steps", steps, "ns_steps", ns_steps)
    checks.check_number("eps", eps, low=0, open_low=True)
    checks.check_choice("preconditioning", preconditioning, PRECONDITIONINGS)
    dtype = None if compute_dtype is None else jnp.dtype(compute_dtype)
    if dtype is not None and dtype.name not in ("bfloat16", "float32", "float64"):
        raise ValueError(f"`compute_dtype` must be None, bfloat16, float32 or float64, got {compute_dtype!r}")
    triples = triples_of(coefficients if ns_coeffs is None else ns_coeffs, steps)
    return Iteration(triples, eps, preconditioning, dtype, distribute, check_options(distribute, avoid))
