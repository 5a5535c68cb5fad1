"""What all stages share: the one loop over the leaves, and the dtype of their arithmetic."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax.checks import is_traced
from adamw_jax.typing import Params, Updates

Kernel = Callable[..., tuple[chex.Array, ...]]
"""kernel(scalars, *leaves, *values) -> new leaves, all in one dtype."""

GROUP = 16
"""Leaves of one kind that share one call: calls get fewer, while a group costs little more to trace than a leaf."""

FEW = 2
"""So few leaves of one kind are traced in place: a program of their own would cost more than it saves."""


def wide(x: Any) -> Any:
    """Return a number as a floating scalar of the default width, so that traced and plain ones act alike.

    A plain number stays one, NumPy's: `map_leaves` makes it a constant of the loops. What is JAX's stays JAX's.
    """
    dtype = jnp.result_type(float)
    return jnp.asarray(x, dtype) if isinstance(x, jax.Array) else np.asarray(x, dtype)[()]


@functools.cache
def _widest(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    return jnp.result_type(jnp.float32, *(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)))


def arithmetic_dtype(*leaves: Any) -> np.dtype[Any]:
    """Return the dtype to calculate in: the widest of the floating leaves', but no narrower than float32."""
    return _widest(*map(jnp.result_type, leaves))


def _cast(leaf: Any, dtype: Any) -> Any:
    floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jax.lax.convert_element_type(leaf, dtype) if floating else leaf


def zeros_like_params(params: chex.ArrayTree, dtype: Any = None) -> chex.ArrayTree:
    """Return zeros of the parameters' shapes and shardings, in `dtype` or else the dtype to calculate in."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or arithmetic_dtype(p)), params)


def _split(value: Any, is_unknown: Callable[[Any], bool] = is_traced) -> tuple[Any, list[chex.Array]]:
    """Return what is known of some numbers while the program is built, hashable, and what is not."""
    numbers, structure = jax.tree.flatten(value)
    known = tuple(None if is_unknown(number) else float(number) for number in numbers)
    return (structure, known), [number for number in numbers if is_unknown(number)]


def _is_array(number: Any) -> bool:
    return isinstance(number, jax.Array)


def _join(known: Any, unknown: Sequence[chex.Array], dtype: Any) -> Any:
    structure, numbers = known
    rest = iter(unknown)
    return structure.unflatten([next(rest) if number is None else np.asarray(number, dtype)[()] for number in numbers])


def _run(kernel: Kernel, known: Any, scalars: Any, leaves: Any, unknown: Any) -> list[chex.Array]:
    known_scalars, known_value = known
    dtype = arithmetic_dtype(*leaves)
    value = _join(known_value, [jax.lax.convert_element_type(number, dtype) for number in unknown], dtype)
    new = kernel(_join(known_scalars, scalars, dtype), *(_cast(leaf, dtype) for leaf in leaves), *value)
    return [jax.lax.convert_element_type(out, jnp.result_type(leaf)) for out, leaf in zip(new, leaves, strict=False)]


_leaf = jax.jit(_run, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _group(kernel: Kernel, known: Any, scalars: Any, inputs: Any) -> list[list[chex.Array]]:
    return [_leaf(kernel, known, scalars, *each) for each in inputs]


def _kind(leaf: Any) -> Any:
    return jax.typeof(leaf), None if is_traced(leaf) else getattr(leaf, "sharding", None)


def map_leaves(
    kernel: Kernel,
    scalars: Sequence[chex.Array],
    trees: Sequence[chex.ArrayTree],
    values: Sequence[Any] | None = None,
) -> tuple[chex.ArrayTree, ...]:
    """Apply `kernel` to the corresponding leaves of `trees`: one cast in, one cast out, and integers as they are.

    Leaves alike in shape, dtype and value share one traced program, and many of them one call of it: what tracing
    costs depends on how many kinds of leaves there are, and little on how many leaves.

    Args:
      kernel: `kernel(scalars, *leaves)`, or `kernel(scalars, *leaves, value)` where `values` are given. It returns a
        tuple; its i-th entry becomes a leaf of the i-th result, in the dtype of the i-th tree's leaf. It is a function
        of its module, no closure: its identity finds the traced program again.
      scalars: what all leaves share, computed once.
      trees: the first gives the structure; the others have it, too.
      values: one entry per leaf: a number, or a tuple of numbers. Those known while the program is built arrive in the
        kernel as NumPy scalars, traced ones as JAX scalars.

    Returns:
      As many trees as the kernel returns leaves; with no leaf at all, `trees` as they are.

    Raises:
      ValueError: the trees' structures differ.
    """
    structure: Any = jax.tree.structure(trees[0])
    for tree in trees[1:]:
        if jax.tree.structure(tree) != structure:
            raise ValueError(
                "updates, parameters and the state's moments must have one structure, "
                f"got {structure} and {jax.tree.structure(tree)}"
            )
    if structure.num_leaves == 0:
        return tuple(trees)
    rows = list(zip(*(jax.tree.leaves(tree) for tree in trees), strict=True))
    splits = [_split(())] * len(rows) if values is None else [_split((value,)) for value in values]
    known_scalars, unknown_scalars = _split(tuple(scalars), _is_array)
    kinds: dict[Any, list[int]] = {}
    for index, (row, (known, _)) in enumerate(zip(rows, splits, strict=True)):
        kinds.setdefault((known, tuple(map(_kind, row))), []).append(index)
    results: dict[int, list[chex.Array]] = {}
    for (known, _), indices in kinds.items():
        row = rows[indices[0]]
        dtype = arithmetic_dtype(*row)
        call = functools.partial(_run if len(indices) <= FEW and any(map(is_traced, row)) else _leaf, kernel)
        shared = (known_scalars, known), [_cast(scalar, dtype) for scalar in unknown_scalars]
        inputs = [(rows[index], splits[index][1]) for index in indices]
        whole = len(inputs) - len(inputs) % GROUP
        new = [_group(kernel, *shared, inputs[start : start + GROUP]) for start in range(0, whole, GROUP)]
        new.append([call(*shared, *each) for each in inputs[whole:]])
        results.update(zip(indices, (row for group in new for row in group), strict=True))
    columns = zip(*(results[index] for index in range(len(rows))), strict=True)
    return tuple(jax.tree.unflatten(structure, column) for column in columns)


def in_wide_arithmetic(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run `inner` on updates widened to float32, and give its updates back in the dtypes that came in.

    Between the stages of a chain nothing is rounded to the gradients' dtype then.
    """
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        widened = jax.tree.map(lambda u: jax.lax.convert_element_type(u, arithmetic_dtype(u)), updates)
        new_updates, state = inner.update(widened, state, params, **extra_args)
        narrowed = jax.tree.map(
            lambda new, u: jax.lax.convert_element_type(new, jnp.result_type(u)), new_updates, updates
        )
        return narrowed, state

    return optax.GradientTransformationExtraArgs(inner.init, update)
