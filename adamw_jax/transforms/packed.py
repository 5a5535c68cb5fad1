"""Moments in half the memory or less, and the loop that updates them: load, advance, store, direction."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.transforms.eight_bits import pack8, unpack8
from adamw_jax.transforms.leaves import Kernel, arithmetic_dtype, map_leaves, zeros_like_params
from adamw_jax.transforms.rounding import HIGH, LOW, bits_of, noise, noisy_bits, round_bits, round_to_bfloat16, widen
from adamw_jax.typing import Params, Updates

MomentDtype: TypeAlias = str | np.dtype[Any] | None
"""What `checks.check_moment_dtype` returns: "packed", "packed8", a floating dtype, or None for the arithmetic's."""

WORDS = {"packed": jnp.uint32, "packed8": jnp.uint16}
"""The words that hold both moments of a parameter."""


class PackedMomentsState(NamedTuple):
    """State of `scale_by_adam` with packed moments.

    Attributes:
      count: updates made, int32.
      moments: mu and nu in one word per parameter, uint32 or uint16, a tree like the parameters; see `unpack`,
        `read_moments`.
    """

    count: chex.Array
    moments: Updates


def pack(mu: chex.Array, nu: chex.Array, bits: chex.Array) -> chex.Array:
    """Return uint32 words with mu in their upper and nu in their lower half, rounded to bfloat16 (see `round_bits`).

    Args:
      mu, nu: float32 arrays.
      bits: uint32 noise of the same shape: its upper half rounds mu, its lower half nu.
    """
    return round_bits(mu, bits >> np.uint32(16)) | (noisy_bits(nu, bits & LOW) >> np.uint32(16))


def unpack(words: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Return the float32 moments (mu, nu) that the words hold, exactly: halves of uint32, codes in uint16.

    >>> words = pack(jnp.array([0.5]), jnp.array([3.0]), jnp.array([0xFFFFFFFF], jnp.uint32))
    >>> print(*unpack(words))
    [0.5] [3.]
    """
    if words.dtype == jnp.uint16:
        return unpack8(words)
    mu, nu = words & HIGH, words << np.uint32(16)
    return jax.lax.bitcast_convert_type(mu, jnp.float32), jax.lax.bitcast_convert_type(nu, jnp.float32)


def zero_moments(params: Params, number: int, dtype: MomentDtype) -> tuple[chex.ArrayTree, ...]:
    """Return `number` zero moments as trees to be stored; packed, the first two share a tree of words."""
    if not isinstance(dtype, str):
        return tuple(zeros_like_params(params, dtype) for _ in range(number))
    words = [zeros_like_params(params, WORDS[dtype])] if number > 1 else []
    return (*words, *(zeros_like_params(params, jnp.bfloat16) for _ in range(number - 2 * len(words))))


def _load(stored: Sequence[chex.Array], dtype: Any) -> list[chex.Array]:
    moments: list[chex.Array] = []
    for leaf in stored:
        moments.extend(
            unpack(leaf) if leaf.dtype in WORDS.values() else [widen(leaf) if leaf.dtype == jnp.bfloat16 else leaf]
        )
    return [moment.astype(dtype) for moment in moments]


def _store(moments: Sequence[chex.Array], dtype: MomentDtype, bits: chex.Array) -> list[chex.Array]:
    narrow = [moment.astype(jnp.float32) for moment in moments]
    into_words = {"packed": pack, "packed8": pack8}[dtype] if isinstance(dtype, str) and len(narrow) > 1 else None
    words = [] if into_words is None else [into_words(narrow[0], narrow[1], bits)]
    halves = (bits >> np.uint32(16), bits & LOW)
    return words + [round_to_bfloat16(x, halves[i % 2]) for i, x in enumerate(narrow) if i >= 2 * len(words)]


@functools.cache
def _wide_kernel(advance: Kernel, direction: Callable[..., chex.Array]) -> Kernel:
    def kernel(scalars: Any, g: Any, *moments: Any) -> tuple[chex.Array, ...]:
        moments = advance(scalars, g, *moments)
        return direction(scalars, g, *moments), *moments

    return kernel


@functools.cache
def _narrow_kernel(advance: Kernel, direction: Callable[..., chex.Array], dtype: MomentDtype) -> Kernel:
    def kernel(scalars: Any, g: Any, *stored: Any) -> tuple[chex.Array, ...]:
        count, *numbers = scalars
        moments = advance(numbers, g, *_load(stored, g.dtype))
        rounded = _store(moments, dtype, noise(g.shape, count, bits_of(g)))
        return direction(numbers, g, *_load(rounded, g.dtype)), *rounded

    return kernel


def map_moments(
    advance: Kernel,
    direction: Callable[..., chex.Array],
    scalars: Sequence[chex.Array],
    updates: Updates,
    stored: Sequence[chex.ArrayTree],
    count: chex.Array,
    dtype: MomentDtype,
) -> tuple[chex.ArrayTree, ...]:
    """Advance the moments by the updates, and take the direction from them as they are stored.

        moments <- round(advance(g, moments))           d = direction(g, moments)

    Moments that are narrower than the arithmetic are rounded stochastically, and the direction sees the rounded ones:
    then a loop that computes it reads one word per parameter and neither the old moments nor the gradients.

    Args:
      advance: kernel(scalars, g, *moments) -> new moments.
      direction: kernel(scalars, g, *moments) -> d.
      scalars: what all leaves share.
      updates: the gradients g.
      stored: the moments' trees, as `zero_moments` lays them out.
      count: number of this update; with an element's place and gradient it seeds the rounding.
      dtype: how the moments are stored.

    Returns:
      The directions, and the new moments as stored.
    """
    if dtype is None or (not isinstance(dtype, str) and np.dtype(dtype).itemsize >= 4):
        return map_leaves(_wide_kernel(advance, direction), scalars, (updates, *stored))
    kernel = _narrow_kernel(advance, direction, dtype)
    return map_leaves(kernel, (count, *scalars), (updates, *stored))


def _holds_moments(node: Any) -> bool:
    fields = getattr(node, "_fields", ())
    return "moments" in fields or ("mu" in fields and "nu" in fields)


def read_moments(state: Any) -> tuple[chex.ArrayTree, chex.ArrayTree]:
    """Return the moments (mu, nu) of an optimizer state as float32 trees, however they are stored.

    Args:
      state: any optimizer state that contains exactly one pair of moments.

    Raises:
      ValueError: no moments in the state, or several pairs.

    >>> from adamw_jax import adamw
    >>> tx = adamw(0.1, b1=0.5, b2=0.75, moment_dtype="packed")
    >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> print(*read_moments(state))
    [0.5] [0.25]
    """
    nodes = [node for node in jax.tree.leaves(state, is_leaf=_holds_moments) if _holds_moments(node)]
    if len(nodes) != 1:
        raise ValueError(f"`state` must contain one pair of moments, got {len(nodes)}")
    (node,) = nodes
    if "moments" not in node._fields:
        mu, nu = (jax.tree.map(lambda x: x.astype(arithmetic_dtype(x)), tree) for tree in (node.mu, node.nu))
        return mu, nu
    mu, nu = (jax.tree.map(lambda words, half=half: unpack(words)[half], node.moments) for half in (0, 1))
    return mu, nu
