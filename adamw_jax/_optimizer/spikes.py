"""Skipping updates whose gradient is far larger than usual."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.optimizer import plan_of, with_plan_of
from adamw_jax._rules.freezing import frozen_flags
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._tree import checks
from adamw_jax._tree.fit import check_kind
from adamw_jax._tree.stage import params_or_updates
from adamw_jax._tree.typing import Params, Scalar, Updates
from adamw_jax._tree.width import arithmetic_dtype, as_scalar

LEAST_DEVIATION = 1e-3
"""The least standard deviation of the logarithm; below it, gradients that hardly vary would count as spikes."""


class SkipSpikesState(NamedTuple):
    """State of `skip_spikes`: scalars, and the state of the transformation inside.

    Attributes:
      inner_state: state of the transformation inside; a skipped update leaves it as it is.
      skipped: updates skipped so far, int32.
      in_a_row: updates skipped since the latest that was taken, int32.
      above: those of them whose norm was finite, int32.
      known: updates that the statistics know, int32, at most the window.
      mean: running mean of the logarithm of the norms of the gradients taken.
      variance: running variance of the same.
      loss_mean, loss_variance: those of the loss; 0 where it is not judged.
    """

    inner_state: optax.OptState
    skipped: chex.Array
    in_a_row: chex.Array
    above: chex.Array
    known: chex.Array
    mean: chex.Array
    variance: chex.Array
    loss_mean: chex.Array
    loss_variance: chex.Array


def _watched(tx: optax.GradientTransformation, updates: Updates, tree: chex.ArrayTree) -> list[Any]:
    """Return the gradients that can move a parameter: of floating leaves that `tx` is not known to freeze."""
    plan, leaves = plan_of(tx), jax.tree.leaves(updates)
    frozen = [False] * len(leaves) if plan is None else frozen_flags(plan.freeze, tree)
    if plan is not None and plan.lr_multipliers is not None:
        multipliers = multipliers_of(plan.lr_multipliers, tree)
        frozen = [flag or checks.equals(r, 0) for flag, r in zip(frozen, multipliers, strict=True)]
    rows = zip(leaves, frozen, strict=True)
    return [leaf for leaf, flag in rows if not flag and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]


def _log_norm(leaves: list[Any]) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Return log |g| over all leaves, in float32 or wider, and whether |g| is finite and not zero."""
    # A complex leaf has no arithmetic dtype; bfloat16 and float16 would overflow or round the sum.
    wide = [x if jnp.iscomplexobj(x) else jax.lax.convert_element_type(x, arithmetic_dtype(x)) for x in leaves]

    def square(scale: float) -> chex.Array:
        return jnp.asarray(optax.tree.norm([x * scale for x in wide], squared=True), jnp.result_type(float))

    # Squares of float32 overflow at 1e19 and underflow at 1e-19: three sums in one pass over the gradients.
    plain, small, large = square(1.0), square(2.0**-80), square(2.0**70)
    finite, positive = jnp.isfinite(small), large > 0
    scaled = jnp.where(jnp.isfinite(plain), large, small)
    shift = jnp.where(jnp.isfinite(plain), -70 * math.log(2), 80 * math.log(2))
    usual = jnp.isfinite(plain) & (plain > 1e-30)
    x = jnp.log(jnp.sqrt(jnp.where(usual & positive, plain, 1.0)))
    other = jnp.log(jnp.sqrt(jnp.where(finite & positive, scaled, 1.0))) + shift
    return jnp.where(usual, x, other), finite, positive


def _first(new: Any, old: Any) -> Any:
    del old
    return new


def _second(new: Any, old: Any) -> Any:
    del new
    return old


def _choose(flag: chex.Array, new: Any, old: Any) -> Any:
    if not checks.is_traced(flag):
        return new if flag else old
    # A branch, because a `where` inside the loops would change how XLA rounds the moments.
    return jax.lax.cond(flag, _first, _second, new, old)


def _zero_unless(flag: chex.Array, update: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(update), jnp.inexact):
        return update
    return jnp.where(flag, update, jnp.zeros_like(update))


def _loss_of(extra_args: dict[str, Any]) -> chex.Array:
    if extra_args.get("value") is None:
        raise ValueError("`value` must be given to update(updates, state, params, value=loss) to judge it, got None")
    return jnp.asarray(extra_args["value"], jnp.result_type(float))


def skip_spikes(
    tx: optax.GradientTransformation, *, sigma: Scalar = 6.0, window: Scalar = 100, loss: bool | str = False
) -> optax.GradientTransformationExtraArgs:
    """Leave out updates whose gradient norm is not finite or far above what it was.

    With x = log |g| over the leaves that are trained, m and v the running mean and variance of x, an update is skipped
    if

        |g| is not finite,   or   x > m + sigma sqrt(v)   once `window` updates are known

    A skipped update is zero, and nothing in the state of `tx` moves: moments, counts, the schedule's position, decay.
    An update that is taken enters the statistics: with k = min(updates known, `window`), itself included,

        m <- m + (x - m) / k          v <- (1 - 1 / k) (v + (x - m)^2 / k)         (m on the right: the old one)

    which is the mean and variance of all up to `window` updates and forgets as an average over `window` from then on.
    sqrt(v) counts as 1e-3 at least; a gradient of zero is taken and enters nothing.

    With `loss`, the loss y that `update(..., value=y)` is given is judged over the same window: y > m + sigma sqrt(v)
    with its own mean and variance, where sqrt(v) counts as 1e-3 |m| at least. One that is not finite is skipped.

    A level that changed for good is accepted: after `window` finite spikes without an update taken between them, the
    next one is taken whatever its norm, and the statistics begin anew with it. A gradient that is not finite never is.

    Args:
      tx: any transformation. Leaves that an optimizer of this library freezes, by `freeze=` or a multiplier 0, are
        not looked at.
      sigma: standard deviations above the mean from which on a norm is a spike, > 0.
      window: updates that must be known before any finite one is skipped, and over which the statistics run, >= 2.
      loss: True judges the loss besides the norm, "only" in its place; a gradient that is not finite is skipped anyway.

    Returns:
      A transformation with the updates of `tx`, bit for bit where nothing is skipped; its state is a
      `SkipSpikesState`. It needs memory for a second state of `tx` while it decides.

    Raises:
      ValueError, TypeError: a number out of range; `update` without `value` where the loss is judged.

    Source: the rule of OLMo-core's `SkipStepOptimizer` (six standard deviations above the last 128), on the logarithm
    and without a buffer; the running moments are West's, Communications of the ACM 22 (1979).

    >>> tx = skip_spikes(optax.sgd(1.0), window=2)
    >>> state = tx.init(jnp.zeros(1))
    >>> for gradient in (1.0, 1.1, 1000.0, 0.9):
    ...     update, state = tx.update(jnp.array([gradient]), state)
    ...     print(update, state.skipped, state.in_a_row)
    [-1.] 0 0
    [-1.1] 0 0
    [0.] 1 1
    [-0.9] 1 0
    """
    checks.check_number("sigma", sigma, low=0, open_low=True)
    checks.check_count("window", window, low=2)
    checks.check_choice("loss", loss, (False, True, "only"))
    tx = checks.check_transformation("tx", tx)

    def init(params: Params) -> SkipSpikesState:
        counts = (jnp.zeros([], jnp.int32) for _ in range(4))
        statistics = (jnp.zeros([], jnp.result_type(float)) for _ in range(4))
        return SkipSpikesState(tx.init(params), *counts, *statistics)

    def update(
        updates: Updates, state: SkipSpikesState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, SkipSpikesState]:
        check_kind(state, SkipSpikesState)
        full = jnp.asarray(window, jnp.int32)
        x, finite, positive = _log_norm(_watched(tx, updates, params_or_updates(updates, params)))
        y = _loss_of(extra_args) if loss else jnp.zeros_like(x)
        counts, finite = finite & positive, finite & jnp.isfinite(y)

        def is_high(value: chex.Array, mean: chex.Array, variance: chex.Array, unit: Any) -> chex.Array:
            return value > mean + as_scalar(sigma) * jnp.maximum(jnp.sqrt(variance), LEAST_DEVIATION * unit)

        high = (counts & is_high(x, state.mean, state.variance, 1.0)) if loss != "only" else jnp.asarray(False)
        if loss:
            high |= is_high(y, state.loss_mean, state.loss_variance, jnp.abs(state.loss_mean))
        spike = high & (state.known >= full)
        accepted = spike & (state.above >= full)
        taken = finite & (~spike | accepted)

        known = jnp.minimum(jnp.where(accepted, 0, state.known) + 1, full)
        share = 1 / known.astype(x.dtype)
        enters = taken & counts

        def moved(value: chex.Array, mean: chex.Array, variance: chex.Array) -> tuple[chex.Array, chex.Array]:
            distance = value - mean
            new = jnp.where(accepted, value, mean + share * distance)
            spread = (1 - share) * (variance + share * jnp.square(distance))
            return jnp.where(enters, new, mean), jnp.where(enters, spread, variance)

        mean, variance = moved(x, state.mean, state.variance)
        loss_mean, loss_variance = moved(y, state.loss_mean, state.loss_variance)
        new_updates, inner_state = tx.update(updates, state.inner_state, params, **extra_args)
        return jax.tree.map(lambda u: _zero_unless(taken, u), new_updates), SkipSpikesState(
            inner_state=_choose(taken, inner_state, state.inner_state),
            skipped=jnp.where(taken, state.skipped, optax.safe_increment(state.skipped)),
            in_a_row=jnp.where(taken, 0, optax.safe_increment(state.in_a_row)),
            above=jnp.where(taken, 0, jnp.where(finite, optax.safe_increment(state.above), state.above)),
            known=jnp.where(enters, known, state.known),
            mean=mean,
            variance=variance,
            loss_mean=loss_mean,
            loss_variance=loss_variance,
        )

    return with_plan_of(tx, optax.GradientTransformationExtraArgs(init, update))
