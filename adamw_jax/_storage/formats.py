"""Storages of moments: in the dtype of the arithmetic, as bfloat16, or two moments in one word. Zeros, load, store."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._storage.rounding import HIGH, LOW, noisy_bits, round_bits, round_to_bfloat16, to_float32
from adamw_jax._storage.words8 import bounded, pack8, unpack8
from adamw_jax._tree.typing import MomentDtype, Moments, Params, Scalars
from adamw_jax._tree.width import zeros_like_params


def pack(mu: chex.Array, nu: chex.Array, bits: chex.Array) -> chex.Array:
    """Return uint32 words with mu in their upper and nu in their lower half, rounded to bfloat16 (see `round_bits`).

    Args:
      mu, nu: float32 arrays.
      bits: uint32 noise of the same shape: its upper half rounds mu, its lower half nu.
    """
    return round_bits(mu, bits >> np.uint32(16)) | (noisy_bits(nu, bits & LOW) >> np.uint32(16))


def unpack(words: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Return the float32 moments (mu, nu) that the words hold, exactly.

    >>> words = pack(jnp.array([0.5]), jnp.array([3.0]), jnp.array([0xFFFFFFFF], jnp.uint32))
    >>> print(*unpack(words))
    [0.5] [3.]
    """
    mu, nu = words & HIGH, words << np.uint32(16)
    return jax.lax.bitcast_convert_type(mu, jnp.float32), jax.lax.bitcast_convert_type(nu, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Storage:
    """Moments in a floating dtype, or in that of the arithmetic (None): loading and storing do nothing.

    Attributes:
      dtype: dtype of the trees in the state.
    """

    dtype: np.dtype[Any] | None = None
    is_narrow: ClassVar[bool] = False
    """Whether storing rounds; the state then counts its updates, because the count seeds the rounding."""
    packs: ClassVar[bool] = False
    """Whether the first two moments share a tree of words."""

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """The dtypes that a tree of moments may have in a state."""
        return (np.float32, np.float64) if self.dtype is None else (jax.dtypes.canonicalize_dtype(self.dtype),)

    def zeros(self, params: Params, number: int) -> tuple[chex.ArrayTree, ...]:
        """Return `number` zero moments as trees to be stored."""
        return tuple(zeros_like_params(params, self.dtype) for _ in range(number))

    def load(self, stored: Moments) -> list[chex.Array]:
        """Return the moments of a leaf, float32 or wider."""
        return list(stored)

    def store(self, moments: Moments, bits: chex.Array) -> list[chex.Array]:
        """Return the leaves to be stored; `bits` is uint32 noise of the leaf's shape, which rounds."""
        return list(moments)

    def bound(self, scalars: Scalars, moments: Moments) -> list[chex.Array]:
        """Return the loaded moments as a direction takes them; the first four scalars are `moment_weights`."""
        return list(moments)


_BFLOAT16 = np.dtype(jnp.bfloat16)


@dataclasses.dataclass(frozen=True)
class Bfloat16(Storage):
    """Moments as bfloat16, stochastically rounded."""

    dtype: np.dtype[Any] | None = _BFLOAT16
    is_narrow = True

    def load(self, stored: Moments) -> list[chex.Array]:
        """Return the moments as float32, exactly; leaves that `map_leaves` has widened already stay."""
        return [to_float32(leaf) if leaf.dtype == jnp.bfloat16 else leaf for leaf in stored]

    def store(self, moments: Moments, bits: chex.Array) -> list[chex.Array]:
        """Return the moments rounded: even ones by the upper half of the noise, odd ones by the lower."""
        halves = (bits >> np.uint32(16), bits & LOW)
        return [round_to_bfloat16(x.astype(jnp.float32), halves[i % 2]) for i, x in enumerate(moments)]


@dataclasses.dataclass(frozen=True)
class Words(Bfloat16):
    """The first two moments of a parameter in one word; a third one, or a single one, as bfloat16.

    Attributes:
      word: dtype of the words.
      pack: (mu, nu, noise) -> words.
      unpack: words -> (mu, nu).
      half: noise that makes `pack` round to nearest.
    """

    word: Any = jnp.uint32
    pack: Callable[..., chex.Array] = pack
    unpack: Callable[..., tuple[chex.Array, chex.Array]] = unpack
    half: int = 0x80008000
    packs = True

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """The words' dtype, and bfloat16."""
        return (self.word, *super().dtypes)

    def zeros(self, params: Params, number: int) -> tuple[chex.ArrayTree, ...]:
        """Return a tree of words for two moments, and bfloat16 trees for the rest."""
        if number < 2:
            return super().zeros(params, number)
        return zeros_like_params(params, self.word), *super().zeros(params, number - 2)

    def load(self, stored: Moments) -> list[chex.Array]:
        """Return the moments as float32, exactly."""
        first, *rest = stored
        return [*self.unpack(first), *super().load(rest)] if first.dtype == self.word else super().load(stored)

    def store(self, moments: Moments, bits: chex.Array) -> list[chex.Array]:
        """Return the word of two moments and the rest as bfloat16."""
        if len(moments) < 2:
            return super().store(moments, bits)
        mu, nu, *rest = (moment.astype(jnp.float32) for moment in moments)
        return [self.pack(mu, nu, bits), *super().store(rest, bits)]


@dataclasses.dataclass(frozen=True)
class Words8(Words):
    """Words of two 8-bit codes. The code of nu underflows at larger gradients than that of mu."""

    word: Any = jnp.uint16
    pack: Callable[..., chex.Array] = pack8
    unpack: Callable[..., tuple[chex.Array, chex.Array]] = unpack8
    half: int = 0x80100000

    def bound(self, scalars: Scalars, moments: Moments) -> list[chex.Array]:
        """Return the moments with nu, and its maximum, no smaller than mu allows, see `bounded`."""
        mu, *second = moments
        return [mu, *(bounded(scalars[:4], mu, nu) for nu in second)]


WORDS = {"packed": Words(), "packed8": Words8()}
"""The storages in words, by their names in `moment_dtype`."""


def storage_of(name: str, value: MomentDtype) -> Storage:
    """Return the storage for an argument like `moment_dtype`.

    Raises:
      TypeError, ValueError: neither None, nor "packed", "packed8", nor bfloat16, float32 or float64.

    >>> storage_of("moment_dtype", "bfloat16").is_narrow
    True
    """
    if value is None:
        return Storage()
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    try:
        dtype: np.dtype[Any] = jnp.dtype(value)
    except TypeError as error:
        raise TypeError(f"`{name}` must be None, 'packed', 'packed8' or a floating dtype, got {value!r}") from error
    if dtype == jnp.bfloat16:
        return Bfloat16()
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 4:
        raise ValueError(f"`{name}` must be None, 'packed', 'packed8', bfloat16, float32 or float64, got {dtype.name}")
    return Storage(dtype)
