"""The loop over moments: load, advance, store, and the direction that they give."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax

from adamw_jax._storage.formats import Storage
from adamw_jax._storage.rounding import bits_of, noise, seed_of
from adamw_jax._tree.fit import check_dtype
from adamw_jax._tree.loop import Kernel, map_leaves
from adamw_jax._tree.typing import Moments, Scalars, Updates

Direction = Callable[[Scalars, chex.Array, Moments, Moments], chex.Array]
"""direction(scalars, g, new moments, old moments) -> d"""


class PackedMomentsState(NamedTuple):
    """State of `scale_by_adam` with packed moments.

    Attributes:
      count: updates made, int32.
      moments: mu and nu in one word per parameter, uint32 or uint16, a tree like the parameters; see `read_moments`.
    """

    count: chex.Array
    moments: Updates


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def refuse_derivative(x: chex.Array, rule: str) -> chex.Array:
    """Return x; raise a ValueError that begins with `rule` where a derivative is taken through it."""
    return x


@refuse_derivative.defjvp
def _refuse(rule: str, primals: Any, tangents: Any) -> Any:
    raise ValueError(
        f"{rule} to take derivatives through an update, got a narrow one, whose stochastic rounding has none"
    )


_WIDE = "`moment_dtype` must be None, float32 or float64"


def _with_value(scalars: Scalars, rest: Sequence[Any]) -> tuple[Scalars, Sequence[Any]]:
    """Return the shared scalars followed by those of the leaf, and the moments."""
    if rest and isinstance(rest[-1], tuple):
        return (*scalars, *rest[-1]), rest[:-1]
    return scalars, rest


@functools.cache
def _kernel(advance: Kernel, direction: Direction, storage: Storage) -> Kernel:
    if not storage.is_narrow:

        def wide_kernel(scalars: Scalars, g: chex.Array, *rest: Any) -> tuple[chex.Array, ...]:
            scalars, old = _with_value(scalars, rest)
            new = advance(scalars, g, *old)
            return direction(scalars, g, new, old), *new

        return wide_kernel

    def kernel(scalars: Scalars, g: chex.Array, *rest: Any) -> tuple[chex.Array, ...]:
        (seed, *numbers), stored = _with_value(scalars, rest)
        old = [moment.astype(g.dtype) for moment in storage.load(stored)]
        new = [refuse_derivative(moment, _WIDE) for moment in advance(numbers, g, *old)]
        rounded = storage.store(new, noise(g.shape, seed, bits_of(g)))
        loaded = [moment.astype(g.dtype) for moment in storage.load(rounded)]
        return direction(numbers, g, storage.bound(numbers, loaded), old), *rounded

    return kernel


def map_moments(
    advance: Kernel,
    direction: Direction,
    scalars: Sequence[chex.Array],
    updates: Updates,
    stored: Sequence[chex.ArrayTree],
    count: chex.Array | None,
    storage: Storage,
    of_leaf: Sequence[tuple[Any, ...]] | None = None,
) -> tuple[chex.ArrayTree, ...]:
    """Advance the moments by the updates, and take the direction from them as they are stored.

        moments <- round(advance(g, moments))           d = direction(g, moments, the moments before)

    Moments that are narrower than the arithmetic are rounded stochastically, and the direction gets the rounded ones.
    So a direction that ignores gradient and old moments runs as one loop over the stored words.

    Args:
      advance: kernel(scalars, g, *moments) -> new moments.
      direction: (scalars, g, new moments, old moments) -> d.
      scalars: what all leaves share.
      updates: the gradients g.
      stored: the moments' trees, as `Storage.zeros` lays them out.
      count: number of this update; with an element's place and gradient it seeds the rounding. None if nothing rounds.
      storage: how the moments are stored.
      of_leaf: a tuple of further scalars per leaf, appended to the shared ones; None for none.

    Returns:
      The directions, and the new moments as stored.
    """
    check_dtype(stored[0], storage.dtypes)
    kernel = _kernel(advance, direction, storage)
    if count is not None and storage.is_narrow:
        scalars = (seed_of(count), *scalars)
    return map_leaves(kernel, scalars, (updates, *stored), of_leaf)
