"""Sizes of weights, gradients and steps, and the angle of every step, kept in the state as scalars per leaf."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.matrix_norms import has_numbers
from adamw_jax._optimizer.optimizer import plan_of, wrapper_of
from adamw_jax._optimizer.residual import orthogonalizes
from adamw_jax._optimizer.sight import PerPath, Sight, sight_of
from adamw_jax._tree import checks
from adamw_jax._tree.fit import check_fit, check_kind
from adamw_jax._tree.stage import params_or_updates
from adamw_jax._tree.state import per_path
from adamw_jax._tree.typing import Params, Scalar, Updates


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
      residual: of Muon's leaves, how far that update is from orthogonal, see `observe`; () for other directions.
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
    residual: PerPath | tuple[()]
    inner_state: optax.OptState


def _seen(before: ObserveState, count: chex.Array, trees: tuple[Any, Any, Any], sight: Sight) -> ObserveState:
    """Return what is observed of an update with these weights, gradients and steps; no state here has an inner one."""
    has_doubled = count >= 2 * before.recent

    def later(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(has_doubled, x, y), new, old)

    fields = ("weight_rms", "gradient_rms", "step_rms")
    sizes = {name: sight.rms(tree, getattr(before, name)) for name, tree in zip(fields, trees, strict=True)}
    return before._replace(
        observed=count,
        **sizes,
        angle=sight.angles(trees[0], trees[2], before.angle),
        recent=later(count, before.recent),
        recent_rms=later(sizes["weight_rms"], before.recent_rms),
        past=later(before.recent, before.past),
        past_rms=later(before.recent_rms, before.past_rms),
    )


def observe(
    tx: optax.GradientTransformation, every: Scalar = 1, *, axes: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Keep in the state how large weight, gradient and step of every parameter are, and by which angle it turns.

    For every leaf with weights theta, gradient g and update u of `tx`, in the update whose number k = 1, 2, ... is a
    multiple of `every`:

        rms(theta),  rms(g),  rms(u),  angle = atan2(|u - a theta|, (1 + a) |theta|),   a = <theta, u> / |theta|^2

    and of a stack for every matrix in it. For the leaves of `scale_by_muon`, also the residual of the
    orthogonalization: the sine of the angle between the update without its decay and the orthogonal matrix with its
    singular vectors. It is 0 where all singular values are equal, and 0.1 to 0.4 after five steps of Muon's usual
    iteration.

    The updates in between cost nothing: they read and write what they do without `observe`. Under `jax.jit` an update
    that is observed is computed once more for it.

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

    >>> from adamw_jax import report
    >>> tx = observe(optax.sgd(0.5))
    >>> params = {"w": jnp.array([3.0, 4.0])}
    >>> _, state = tx.update({"w": jnp.array([6.0, 8.0])}, tx.init(params), params)
    >>> print(report(state).rows[0]["ratio"])
    1.0
    """
    checks.check_count("every", every)
    plan = plan_of(tx)
    letters = plan.axes if axes is None and plan is not None else axes
    has_residuals = orthogonalizes(plan)
    tx = checks.check_transformation("tx", tx)

    def first(params: Params, inner_state: optax.OptState) -> ObserveState:
        sight = sight_of(params, letters, plan)

        def zeros(shapes: Sequence[Any] = sight.shapes) -> PerPath:
            return per_path(params, [None if n is None else jnp.zeros(n, jnp.result_type(float)) for n in shapes])

        counts = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        earlier = (jnp.zeros([], jnp.int32), zeros(), jnp.zeros([], jnp.int32), zeros())
        residual = zeros(sight.residual_shapes) if has_residuals else ()
        return ObserveState(*counts, zeros(), zeros(), zeros(), zeros(), *earlier, residual, inner_state)

    def init(params: Params) -> ObserveState:
        return first(params, tx.init(params))

    def update(
        updates: Updates, state: ObserveState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ObserveState]:
        if params is None and jax.tree.leaves(updates):
            raise ValueError("`params` must be given to update(updates, state, params) to observe them, got None")
        check_kind(state, ObserveState)
        weights, gradients, count = params_or_updates(updates, params), updates, optax.safe_increment(state.count)
        sight = sight_of(weights, letters, plan)
        wanted = per_path(weights, sight.shapes) if sight.shapes else ()
        of_muon = per_path(weights, sight.residual_shapes) if sight.shapes and has_residuals else ()
        before = state._replace(inner_state=())
        if jax.tree.map(jnp.shape, (state.angle, state.residual)) != (wanted, of_muon):
            check_fit(before, first(weights, ()))
        # `count > 0` is always true: without it, XLA inlines a branch that it knows, and copies the arrays it reads.
        due = (count % jnp.asarray(every, jnp.int32) == 0) & (count > 0)

        def step(gradients: Updates, params: Params | None = params) -> tuple[Updates, optax.OptState]:
            new: tuple[Updates, optax.OptState] = tx.update(gradients, state.inner_state, params, **extra_args)
            return new

        def see(steps: Updates) -> ObserveState:
            seen = _seen(before, count, (weights, gradients, steps), sight)
            if not has_residuals:
                return seen
            # Without weights nothing decays: what is left of the update is Muon's, times a number.
            alone, _ = step(gradients, jax.tree.map(jnp.zeros_like, weights))
            return seen._replace(residual=sight.residuals(alone, before.residual))

        if checks.is_traced(due):
            # The update depends on the answer of the branch, so it comes after it and may overwrite what the branch
            # reads. Without that order, XLA would copy all parameters and moments at every update.
            answered, seen = jax.lax.cond(
                due, lambda: (count > 0, see(step(gradients)[0])), lambda: (count > 0, before)
            )
            updates = jax.tree.map(
                lambda g: jnp.where(answered, g, jnp.zeros_like(g)) if has_numbers(g) else g, gradients
            )
            updates, inner_state = step(updates)
        else:
            updates, inner_state = step(gradients)
            seen = see(updates) if due else before
        return updates, seen._replace(count=count, inner_state=inner_state)

    return wrapper_of(tx, optax.GradientTransformationExtraArgs(init, update), "observe", every=every, axes=axes)
