"""Newton and Schulz's iteration: singular values of matrices brought near 1, with products of matrices only."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar
from adamw_jax._tree.width import arithmetic_dtype

JORDAN = (3.4445, -4.7750, 2.0315)
"""Jordan et al., "Muon", 2024: one polynomial for all steps; singular values end between 0.7 and 1.2."""

_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
POLAR_EXPRESS = (*((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in _POLAR_EXPRESS), (1.875, -1.25, 0.375))
"""Amsel et al., arXiv 2505.16932, Algorithm 1, with its margin of 1 % for rounding."""

NAMED = {"jordan": (JORDAN,), "polar_express": POLAR_EXPRESS}
PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")

Triples = tuple[tuple[Scalar, Scalar, Scalar], ...]


def triples_of(coefficients: Any, steps: int | None) -> Triples:
    """Return (a, b, c) for every step, see `orthogonalize`; named coefficients repeat their last triple.

    Raises:
      ValueError, TypeError: an unknown name, no triples, steps that are no plain integer or another number of them.

    >>> [len(triples_of(*given)) for given in (("jordan", None), ("polar_express", 10), ([JORDAN] * 3, None))]
    [5, 10, 3]
    """
    if steps is not None:
        if checks.is_traced(steps):
            raise TypeError(
                "`steps` must be a plain integer, which fixes the program, got a tracer: name it in `static_args` of "
                "optax.inject_hyperparams"
            )
        checks.check_count("steps", steps)
    if isinstance(coefficients, str):
        named = NAMED[checks.check_choice("coefficients", coefficients, NAMED, others="triples (a, b, c)")]
        count = 5 if steps is None else int(steps)
        return (*named[:count], *(named[-1],) * (count - len(named)))
    rule = "`coefficients` must be 'jordan', 'polar_express', a triple (a, b, c) or a sequence of triples"
    try:
        rows = list(coefficients)
        is_single = all(map(checks.is_number, rows))
        triples: Any = [tuple(rows)] if is_single else [tuple(row) for row in rows]
    except TypeError as error:
        raise TypeError(f"{rule}, got {coefficients!r}") from error
    if not rows or any(len(triple) != 3 for triple in triples):
        raise ValueError(f"{rule}, got {coefficients!r}")
    for number in (number for triple in triples for number in triple):
        checks.check_number("coefficients", number)
    if is_single:
        return (*triples,) * (5 if steps is None else int(steps))
    if steps is not None and int(steps) != len(triples):
        raise ValueError(
            f"`steps` must be the number of triples in `coefficients`, {len(triples)}, or None, got {steps}"
        )
    return (*triples,)


def operations(steps: int, rows: int, columns: int) -> int:
    """Return the multiplications and additions that `steps` steps take for one matrix of rows x columns.

        steps (4 m^2 n + 2 m^3),   m = min(rows, columns),   n = max(rows, columns)

    >>> operations(5, 768, 3072)
    40768634880
    """
    m, n = sorted((rows, columns))
    return steps * (4 * m * m * n + 2 * m**3)


def _scaled(y: chex.Array, eps: Any, preconditioning: str) -> chex.Array:
    """Return matrices whose singular values are at most 1, or with "aol" and "schatten" near it."""
    over: Any = {"axis": (-2, -1), "keepdims": True}
    largest = jnp.max(jnp.abs(y), initial=0, **over)
    # After this division no square over- or underflows; zeros stay zeros.
    y = y / jnp.where(largest > 0, largest, 1)
    if preconditioning == "spectral":
        return y / (jnp.linalg.norm(y, ord=2, **over) + eps)
    if preconditioning == "frobenius":
        return y / (jnp.sqrt(jnp.sum(y * y, **over)) + eps)
    gram = y @ y.mT
    if preconditioning == "aol":
        return y * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.abs(gram), axis=-1, keepdims=True), eps))
    return y * jax.lax.rsqrt(jnp.maximum(jnp.sqrt(jnp.sum(gram * gram, **over)), eps))


@functools.partial(jax.jit, static_argnames=("dtype", "preconditioning"))
def newton_schulz(
    x: chex.Array, triples: Any, eps: Any, *, dtype: Any = None, preconditioning: str = "frobenius"
) -> chex.Array:
    """Return matrices with the singular vectors of x and singular values near 1.

        Y_0 = X / (|X| + eps),    A = Y Y^T,    Y <- a Y + (b A + c A A) Y         for every (a, b, c)

    A tall matrix is transposed first, so that A is the smaller of the two Gram matrices. Each matrix is divided by its
    largest |x| before anything is squared, so that the result does not depend on the scale of x.

    Args:
      x: (..., rows, columns), floating.
      triples: (a, b, c) of every step, see `triples_of`.
      eps: added to the norm of a matrix whose largest element is 1.
      dtype: of the products; None is x's, but no narrower than float32. Norms are summed in float32 or wider.
      preconditioning: how X is scaled before the first step: "frobenius", by its norm, as above; "spectral", by its
        largest singular value; "aol", row by row by the sums of |A|'s rows; "schatten", by the root of |A|.

    Returns:
      The matrices, of x's shape, in `dtype`.

    Source: Jordan et al., "Muon", 2024; for "aol" Boissin et al., arXiv 2512.04632, for "schatten" Grishina et al.,
    arXiv 2506.10935.

    >>> y = newton_schulz(jnp.diag(jnp.array([1e-30, 1e-31])), (JORDAN,) * 5, 1e-8)
    >>> print(jnp.linalg.svdvals(y).round(1))
    [0.7 0.7]
    """
    wide = arithmetic_dtype(x)
    is_tall = x.shape[-2] > x.shape[-1]
    y = _scaled((x.mT if is_tall else x).astype(wide), eps, preconditioning).astype(dtype or wide)
    for triple in triples:
        a, b, c = (jnp.asarray(number, y.dtype) for number in triple)
        gram = y @ y.mT
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y.mT if is_tall else y
