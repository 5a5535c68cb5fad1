"""Two ways to make split matrices whole, on chips that own them or gathered on all, and their costs."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from adamw_jax._direction.newton_schulz import operations
from adamw_jax._direction.stacks import Kind, Names, Sizes, product_of

MODES = ("owned", "gather", "auto")

OPERATIONS_PER_BYTE = 1000
"""Operations in the time of receiving a byte, for "auto": a TPU v5e has 197 TFLOP/s, 180 GB/s; an H100 twice that."""

CHIP_BYTES = 16e9
"""Matrices that are larger are warned of: the memory of the smallest chip in use, a TPU v5e."""


class Cost(NamedTuple):
    """What orthogonalizing one stack takes, per chip: bytes that collectives return, and operations."""

    bytes: int
    operations: int

    @property
    def time(self) -> int:
        """In operations."""
        return self.bytes * OPERATIONS_PER_BYTE + self.operations


def cost(mode: str, kind: Kind, count: int, sizes: Sizes, avoid: Names, *, itemsize: int, steps: int) -> Cost:
    """Return what `count` matrices, as many as a chip has parts of, take per chip.

        owned:   2 b m n k' / S  (+ b m n k' / S over idle axes)       k' / N matrices,   k' = N ceil(k / N)
        gather:  b m n k                                               k matrices

    with b bytes a number, S parts of a matrix, N chips that own some; `operations` of a matrix each.

    >>> kind = Kind(96, 768, ("data",), (), (), jnp.float32, ())
    >>> cost("owned", kind, 12, {"data": 8}, (), itemsize=4, steps=5).bytes / (12 * 768 * 768 * 4)
    0.3333333333333333
    """
    rows, columns = kind.whole(sizes)
    each = sum(operations(steps, rows, width) for width in kind.widths or (columns,))
    part, parts = kind.rows * kind.columns * itemsize, product_of(sizes, kind.inputs + kind.outputs)
    if mode == "gather":
        return Cost(count * part * parts if parts > 1 else 0, count * each)
    others = product_of(sizes, kind.idle(sizes, avoid))
    share = -(-count // (parts * others))
    exchanged = 2 * share * parts * part if parts > 1 else 0
    shared = share * parts * others * part if others > 1 else 0
    return Cost(exchanged + shared, share * each)


def _joined(parts: chex.Array, kind: Kind, inputs: int) -> chex.Array:
    """Return whole matrices from their parts: (inputs * outputs, k, rows, columns) -> (k, all rows, all columns)."""
    parts = parts.reshape(inputs, -1, *parts.shape[1:]).transpose(2, 0, 3, 1, 4)
    return parts.reshape(len(parts), inputs * kind.rows, -1)


def gathered(x: chex.Array, run: Callable[[chex.Array], chex.Array], kind: Kind, sizes: Sizes) -> chex.Array:
    """Return this chip's part of `run` of matrices that every chip gathers: (k, rows, columns)."""
    names = kind.inputs + kind.outputs
    if not names:
        return run(x)
    y = run(_joined(jax.lax.all_gather(x, names), kind, product_of(sizes, kind.inputs)))
    for axis, side, size in ((1, kind.inputs, kind.rows), (2, kind.outputs, kind.columns)):
        if side:
            y = jax.lax.dynamic_slice_in_dim(y, jax.lax.axis_index(side) * size, size, axis)
    return y


def owned(x: chex.Array, run: Callable[[chex.Array], chex.Array], kind: Kind, sizes: Sizes, avoid: Names) -> chex.Array:
    """Return this chip's part of `run` of matrices that each have one owner: (k, rows, columns).

    One all-to-all over all axes that split the matrices brings every chip k / N whole ones, one brings the parts back.
    Chips along axes that split nothing have the same parts: each runs its share of them, and the shares are gathered.
    """
    names, idle, count, part = kind.inputs + kind.outputs, kind.idle(sizes, avoid), len(x), x.shape[1:]
    inputs, parts, others = (product_of(sizes, each) for each in (kind.inputs, names, idle))
    x = jnp.pad(x, ((0, -count % (parts * others)), (0, 0), (0, 0)))
    if idle:
        x = x.reshape(others, -1, *part)[jax.lax.axis_index(idle)]
    if names:
        x = _joined(jax.lax.all_to_all(x.reshape(parts, -1, *part), names, 0, 0), kind, inputs)
    y = run(x)
    if names:
        y = y.reshape(len(y), inputs, kind.rows, -1, kind.columns).transpose(1, 3, 0, 2, 4)
        y = jax.lax.all_to_all(y.reshape(parts, -1, *part), names, 0, 0).reshape(-1, *part)
    if idle:
        y = jax.lax.all_gather(y, idle, axis=0, tiled=True, to="invarying")
    return y[:count]
