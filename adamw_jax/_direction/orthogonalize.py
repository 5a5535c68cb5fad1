"""Orthogonalized matrices, a stage: Newton and Schulz's iteration on every matrix of every leaf."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from typing_extensions import Unpack

from adamw_jax._direction.direction import as_direction
from adamw_jax._direction.iteration import MatrixOptions, Orthogonalization
from adamw_jax._direction.placement import Placement, check_crossings, given_shardings, placement_of
from adamw_jax._direction.stacks import Layout
from adamw_jax._rules.axes import leaves_inside, widths_of
from adamw_jax._rules.leaf import Leaf, require_axes
from adamw_jax._tree.stage import stateless, structure_of
from adamw_jax._tree.typing import Params, Updates
from adamw_jax._tree.width import arithmetic_dtype


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


def _dual(x: chex.Array, y: chex.Array, layout: Layout, placement: Placement) -> chex.Array:
    """Return the inner product of a leaf with its orthogonalized matrices: the dual norm of x, one number a leaf."""
    wide = arithmetic_dtype(x)
    product: chex.Array = jnp.sum(x.astype(wide) * y.astype(wide))
    names = tuple(name for spec in layout.spec for name in spec)
    is_part = placement.mesh is None and names
    return jax.lax.psum(product, names) if is_part else product


@as_direction(options=Orthogonalization)
def orthogonalize(axes: Any = None, **options: Unpack[MatrixOptions]) -> optax.GradientTransformation:
    """Orthogonalize every matrix of every leaf: its singular values become nearly 1, its singular vectors stay.

        u <- s newton_schulz(u)         s = sqrt(max(1, outputs / inputs)),  or with `consistent_rms` c,
                                        s = c sqrt(max(inputs, outputs))

    A stack gives what a loop over its matrices gives. The result does not depend on the scale of u, from 1e-30 to 1e30.

    Args:
      axes: a letter for each axis of a leaf, "s" of a stack, "i" of inputs, "o" of outputs: "io" for a Dense kernel,
        "sio" for scanned layers, "ioo" for an attention's (in, heads, head_dim); for all leaves, {pattern: letters}, an
        `optax.contrib.MuonDimensionNumbers`, or a tree of them. None: those given to `decoupled`, else by names and
        numbers of axes; a leaf whose axes are not known is an error.
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
      shardings: those of the parameters, as `fsdp_shardings` returns them, where their types have none: on automatic
        mesh axes, and inside `jax.shard_map`.
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
    its = Orthogonalization(axes, **options)

    def check(params: Params) -> None:
        known = matrices_of(params, its.letters)
        widths_of(its.split, known)
        if its.shardings is not None:
            given_shardings(its.shardings, [leaf.path for leaf in known])

    def apply(updates: Updates, params: Params | None, extra_args: dict[str, Any]) -> Updates:
        leaves, structure = jax.tree.leaves(updates), structure_of(updates)
        known = matrices_of(updates, its.letters)
        chosen = [i for i, leaf in enumerate(leaves) if known[i].axes and leaf.size]
        if not chosen:
            return updates
        xs, paths = [leaves[i] for i in chosen], [known[i].path for i in chosen]
        placement = placement_of(xs, paths, its.shardings, distribute=its.distribute)
        for i, spec in zip(chosen, placement.specs, strict=True):
            known[i] = dataclasses.replace(known[i], shape=placement.whole(known[i].shape, spec))
        widths = widths_of(its.split, known)
        layouts = [
            Layout(known[i].axes or "", spec, widths[i]) for i, spec in zip(chosen, placement.specs, strict=True)
        ]
        check_crossings(paths, layouts, placement, its.avoided, its.distribute)
        for i, x, y, layout in zip(chosen, xs, its.run(xs, layouts, placement), layouts, strict=True):
            direction = its.scaled(y.astype(arithmetic_dtype(x)), layout, known[i].shape)
            leaves[i] = (direction * _dual(x, y, layout, placement) if its.adaptive else direction).astype(x.dtype)
        return structure.unflatten(leaves)

    return stateless(apply, check)
