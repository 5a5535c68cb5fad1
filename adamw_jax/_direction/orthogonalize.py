"""Orthogonalized matrices, a stage: Newton and Schulz's iteration on every matrix of every leaf."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._direction.direction import as_direction
from adamw_jax._direction.iteration import dual, iteration_of, one_of
from adamw_jax._direction.placement import check_crossings, given_shardings, placement_of
from adamw_jax._direction.stacks import Layout
from adamw_jax._rules.axes import check_split, leaves_inside, widths_of
from adamw_jax._rules.leaf import Leaf, require_axes
from adamw_jax._tree import checks
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.typing import Params, Scalar, Updates
from adamw_jax._tree.width import arithmetic_dtype, as_scalar


def matrices_of(tree: chex.ArrayTree, axes: Any) -> list[Leaf]:
    """Return the `Leaf` of every leaf, each a matrix or a stack of them.

    Raises:
      ValueError: a leaf without inputs or outputs, or whose axes are not known.
    """
    known = leaves_inside(tree, axes)
    for leaf in known:
        if leaf.is_matrix:
            require_axes("orthogonalize", leaf)
        elif not {"i", "o"} <= set(leaf.axes or ""):
            raise ValueError(
                "`orthogonalize`, and so `scale_by_muon`, is for matrices, leaves with inputs and outputs, got the "
                f"{leaf.role} {leaf.path!r} of shape {leaf.shape}, which is one by its {leaf.why}: give other leaves "
                'another direction by their paths, as in {"kernel": scale_by_muon(), "": scale_by_adam()}'
            )
    return known


_SHAPES = (None, "shape")


@as_direction()
def orthogonalize(
    axes: Any = None,
    *,
    coefficients: Any = "jordan",
    steps: int | None = None,
    eps: Scalar = 1e-8,
    preconditioning: str = "frobenius",
    compute_dtype: Any = None,
    scale: str | None = "shape",
    consistent_rms: Scalar | None = None,
    adaptive: bool = False,
    split: Any = None,
    distribute: str | None = None,
    shardings: Any = None,
    avoid: str | Sequence[str] = (),
    ns_coeffs: Any = None,
    ns_steps: int | None = None,
    weight_dimension_numbers: Any = None,
) -> optax.GradientTransformation:
    """Orthogonalize every matrix of every leaf: its singular values become nearly 1, its singular vectors stay.

        u <- s newton_schulz(u)         s = sqrt(max(1, outputs / inputs)),  or with `consistent_rms` c,
                                        s = c sqrt(max(inputs, outputs))

    A stack is what a loop over its matrices is, and the scale of u does not matter, from 1e-30 to 1e30.

    Args:
      axes: a letter for each axis of a leaf, "s" of a stack, "i" of inputs, "o" of outputs: "io" for a Dense kernel,
        "sio" for scanned layers, "ioo" for an attention's (in, heads, head_dim); for all leaves, {pattern: letters}, an
        `optax.contrib.MuonDimensionNumbers`, or a tree of them. None takes those of the optimizer around, see
        `decoupled`, and where there are none what names and axes tell; what they do not tell is an error.
      coefficients: "jordan"; "polar_express", nearer to 1 for as many steps; (a, b, c) for all steps, or one per step.
      steps: of the iteration, >= 1; None is 5, or as many as `coefficients` has.
      eps: added to the norm of a matrix whose largest element is 1, > 0.
      preconditioning: before the first step: "frobenius", "spectral", "aol" or "schatten", see
        `optax.contrib.scale_by_muon`.
      compute_dtype: of the products, and of what moves between devices: None for float32, or float64 for such leaves;
        "bfloat16". Norms are summed in float32 or wider.
      scale: "shape", or None for s = 1.
      consistent_rms: c, > 0, for steps as large as Adam's: 0.2 is usual.
      adaptive: multiply a leaf by its inner product with the incoming u, too, as optax has it.
      split: matrices that lie side by side in one leaf, such as a kernel of query, key and value: how many along the
        first axis of outputs, or their sizes; for all leaves or {pattern: parts}.
      distribute: where matrices split over devices are whole. None and "gather": on every device; "owned": each on
        one, by an all-to-all there and one back, so that devices share the work; "auto": what takes less, by stack.
      shardings: those of the parameters, where types do not tell them: on automatic mesh axes, as `fsdp_shardings`
        gives them, and inside `jax.shard_map`.
      avoid: mesh axes that are not to be crossed, such as those between slices.
      ns_coeffs, ns_steps, weight_dimension_numbers: optax's names of `coefficients`, `steps`, `axes`.

    Returns:
      A stateless transformation; updates keep shape, dtype and placement.

    Raises:
      ValueError, TypeError: an argument out of range; leaves that are no matrices, or whose axes are not known; a
        placement that is needed and not known; a matrix split over an axis to be avoided.

    Warns:
      UserWarning: leaves that are split and gathered without `distribute`; a whole matrix of more than 16 GB;
        shardings that the leaves do not have.

    Source: Jordan et al., "Muon", 2024; Liu et al., arXiv 2502.16982, for `consistent_rms`.

    >>> tx = optax.chain(optax.trace(0.9), orthogonalize())
    >>> params = jnp.diag(jnp.array([3.0, 1.0]))
    >>> direction, _ = tx.update(params, tx.init(params))
    >>> print(jnp.linalg.svdvals(direction).round(1))
    [1.1 0.8]
    """
    axes = one_of("axes", axes, "weight_dimension_numbers", weight_dimension_numbers)
    iteration = iteration_of(
        coefficients=coefficients,
        steps=steps,
        eps=eps,
        preconditioning=preconditioning,
        compute_dtype=compute_dtype,
        distribute=distribute,
        avoid=avoid,
        ns_coeffs=ns_coeffs,
        ns_steps=ns_steps,
    )
    checks.check_choice("scale", scale, _SHAPES)
    checks.check_flag("adaptive", adaptive)
    check_split(split)
    if consistent_rms is not None:
        checks.check_number("consistent_rms", consistent_rms, low=0, open_low=True)
        if scale is None:
            raise ValueError(f"`scale` must be 'shape' with `consistent_rms`, got None and {consistent_rms}")

    def factor(rows: int, columns: int) -> Any:
        if consistent_rms is not None:
            return as_scalar(consistent_rms) * math.sqrt(max(rows, columns))
        return 1.0 if scale is None else math.sqrt(max(1, columns / rows))

    def scaled(y: chex.Array, layout: Layout, shape: Sequence[int]) -> chex.Array:
        _, rows, columns = layout.dims(shape)
        if len(set(layout.widths)) < 2:
            return y * factor(rows, layout.widths[0] if layout.widths else columns)
        axis = layout.letters.index("o")
        each = [jnp.full(shape[axis] * width // columns, factor(rows, width)) for width in layout.widths]
        return y * jnp.concatenate(each).reshape([-1 if i == axis else 1 for i in range(y.ndim)])

    def init(params: Params) -> optax.EmptyState:
        known = matrices_of(params, axes)
        widths_of(split, known)
        if shardings is not None:
            given_shardings(shardings, [leaf.path for leaf in known])
        return optax.EmptyState()

    def update(
        updates: Updates, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Updates, optax.EmptyState]:
        del params
        leaves, structure = jax.tree.leaves(updates), structure_of(updates)
        known = matrices_of(updates, axes)
        chosen = [i for i, leaf in enumerate(leaves) if known[i].axes and leaf.size]
        if not chosen:
            return updates, state
        xs, paths = [leaves[i] for i in chosen], [known[i].path for i in chosen]
        placement = placement_of(xs, paths, shardings, distribute=distribute)
        for i, spec in zip(chosen, placement.specs, strict=True):
            known[i] = dataclasses.replace(known[i], shape=placement.whole(known[i].shape, spec))
        widths = widths_of(split, known)
        layouts = [
            Layout(known[i].axes or "", spec, widths[i]) for i, spec in zip(chosen, placement.specs, strict=True)
        ]
        check_crossings(paths, layouts, placement, iteration.avoid, distribute)
        for i, x, y, layout in zip(chosen, xs, iteration.run(xs, layouts, placement), layouts, strict=True):
            direction = scaled(y.astype(arithmetic_dtype(x)), layout, known[i].shape)
            leaves[i] = (direction * dual(x, y, layout, placement) if adaptive else direction).astype(x.dtype)
        return structure.unflatten(leaves), state

    return optax.GradientTransformation(init, update)
