"""Sizes of weights, gradients and steps, and the angle of every step, kept in the state as four scalars per leaf."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.matrix_norms import Axes, angle_of, has_numbers, rms_of
from adamw_jax._optimizer.optimizer import plan_of, with_plan_of
from adamw_jax._rules.axes import matrix_axes
from adamw_jax._rules.leaf import leaves_of
from adamw_jax._tree import checks
from adamw_jax._tree.fit import check_fit, check_kind
from adamw_jax._tree.stage import params_or_updates
from adamw_jax._tree.state import per_path
from adamw_jax._tree.typing import Params, Scalar, Updates
from adamw_jax._tree.width import placed_like

PerPath: TypeAlias = Mapping[str, chex.Array]
"""{path: scalar}, or of a stack {path: one number per matrix}"""


class Seen(NamedTuple):
    """The quantities of one update, and two of updates before it, as in `ObserveState`."""

    weight_rms: PerPath
    gradient_rms: PerPath
    step_rms: PerPath
    angle: PerPath
    recent: chex.Array
    recent_rms: PerPath
    past: chex.Array
    past_rms: PerPath


class ObserveState(NamedTuple):
    """State of `observe`: `report` reads it.

    Attributes:
      count: updates made, int32.
      observed: number of the latest observed update, counted from 1; 0 before the first. The mappings {path: scalar}
        are of that update; a stack has one number per matrix.
      weight_rms: root of the mean square of the weights before that update.
      gradient_rms: that of what came in, the gradients.
      step_rms: that of what went out, the updates to be added.
      angle: between the weights before and after, in radians from 0 to pi.
      recent, past: numbers of two earlier observed updates, 0 where there is none: the latest at which the count had
        doubled since the one before, and that one. So `past` is a quarter to a half of `observed`.
      recent_rms, past_rms: the root mean squares of the weights before them.
      inner_state: state of the transformation inside.
    """

    count: chex.Array
    observed: chex.Array
    weight_rms: PerPath
    gradient_rms: PerPath
    step_rms: PerPath
    angle: PerPath
    recent: chex.Array
    recent_rms: PerPath
    past: chex.Array
    past_rms: PerPath
    inner_state: optax.OptState


def _see(
    weights: Params, gradients: Updates, steps: Updates, over: Sequence[Axes], count: chex.Array, before: Seen
) -> Seen:
    rows = [jax.tree.leaves(tree) for tree in (weights, gradients, steps)]
    quantities = *(map(rms_of, row, over) for row in rows), map(angle_of, rows[0], rows[2], over)
    found = (per_path(gradients, quantity) for quantity in quantities)
    seen = [jax.tree.map(placed_like, new, old) for new, old in zip(found, before[:4], strict=True)]
    has_doubled = count >= 2 * before.recent
    kept = (count, seen[0]), (before.recent, before.recent_rms), (before.past, before.past_rms)
    recent, past = (
        jax.tree.map(lambda new, old: jnp.where(has_doubled, new, old), *pair) for pair in itertools.pairwise(kept)
    )
    return Seen(*seen, *recent, *past)


def observe(
    tx: optax.GradientTransformation, every: Scalar = 1, *, axes: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Keep in the state how large weight, gradient and step of every parameter are, and by which angle it turns.

    For every leaf with weights theta, gradient g and update u of `tx`, in the update whose number k = 1, 2, ... is a
    multiple of `every`:

        rms(theta),  rms(g),  rms(u),  angle = atan2(|u - a theta|, (1 + a) |theta|),   a = <theta, u> / |theta|^2

    and of a stack for every matrix in it. The updates in between cost nothing: they read and write what they do without
    `observe`. Under `jax.jit` an update that is observed is computed once more for it.

    Args:
      tx: any transformation; the outermost one, whose updates are added to the parameters.
      every: updates from one that is observed to the next, >= 1.
      axes: which axes of the leaves are stacks, as in `decoupled`; None is what the optimizer `tx` was given.

    Returns:
      A transformation with the updates of `tx`, whose state is an `ObserveState`, which adds scalars only, one for each
      matrix of a stack, so that shardings and checkpoints stay as they are.

    Raises:
      ValueError, TypeError: an `every` that is no integer >= 1; at an update, parameters missing.

    Source: rms(u) / rms(theta) as in You et al., arXiv 1708.03888, section 4; the angle as in Kosson et al., arXiv
    2305.17212, section 3.

    >>> from adamw_jax._explain.report import report
    >>> tx = observe(optax.sgd(0.5))
    >>> params = {"w": jnp.array([3.0, 4.0])}
    >>> _, state = tx.update({"w": jnp.array([6.0, 8.0])}, tx.init(params), params)
    >>> print(report(state).rows[0]["ratio"])
    1.0
    """
    checks.check_count("every", every)
    plan = plan_of(tx)
    letters = plan.axes if axes is None and plan is not None else axes
    tx = checks.check_transformation("tx", tx)

    def over(tree: chex.ArrayTree) -> list[Axes]:
        return list(map(matrix_axes, leaves_of(tree, letters)))

    def shapes_of(tree: chex.ArrayTree, matrices: Sequence[Axes]) -> list[tuple[int, ...]]:
        rows = zip(jax.tree.leaves(tree), matrices, strict=True)
        return [tuple(n for axis, n in enumerate(jnp.shape(leaf)) if axis not in each) for leaf, each in rows]

    def first(params: Params, inner_state: optax.OptState) -> ObserveState:
        shapes = shapes_of(params, over(params))

        def zeros() -> PerPath:
            return per_path(params, (jnp.zeros(shape, jnp.result_type(float)) for shape in shapes))

        counts = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        earlier = (jnp.zeros([], jnp.int32), zeros(), jnp.zeros([], jnp.int32), zeros())
        return ObserveState(*counts, zeros(), zeros(), zeros(), zeros(), *earlier, inner_state)

    def init(params: Params) -> ObserveState:
        return first(params, tx.init(params))

    def update(
        updates: Updates, state: ObserveState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ObserveState]:
        if params is None and jax.tree.leaves(updates):
            raise ValueError("`params` must be given to update(updates, state, params) to observe them, got None")
        check_kind(state, ObserveState)
        weights, gradients, count = params_or_updates(updates, params), updates, optax.safe_increment(state.count)
        matrices = over(weights)
        wanted = per_path(weights, shapes_of(weights, matrices)) if matrices else ()
        if jax.tree.map(jnp.shape, state.angle) != wanted:
            check_fit(state._replace(inner_state=()), first(weights, ()))
        # `count > 0` is always true: without it, XLA inlines a branch that it knows, and copies the arrays it reads.
        due = (count % jnp.asarray(every, jnp.int32) == 0) & (count > 0)
        seen = Seen(*(getattr(state, field) for field in Seen._fields))
        if checks.is_traced(due):

            def look() -> tuple[chex.Array, Seen]:
                steps, _ = tx.update(gradients, state.inner_state, params, **extra_args)
                return count > 0, _see(weights, gradients, steps, matrices, count, seen)

            # The update depends on the answer of the branch, so it comes after it and may overwrite what the branch
            # reads. Without that order, XLA would copy all parameters and moments at every update.
            answered, seen = jax.lax.cond(due, look, lambda: (count > 0, seen))
            updates = jax.tree.map(
                lambda g: jnp.where(answered, g, jnp.zeros_like(g)) if has_numbers(g) else g, gradients
            )
            updates, inner_state = tx.update(updates, state.inner_state, params, **extra_args)
        else:
            updates, inner_state = tx.update(gradients, state.inner_state, params, **extra_args)
            if due:
                seen = _see(weights, gradients, updates, matrices, count, seen)
        observed = jnp.where(due, count, state.observed)
        return updates, ObserveState(count, observed, *seen, inner_state=inner_state)

    return with_plan_of(tx, optax.GradientTransformationExtraArgs(init, update))
