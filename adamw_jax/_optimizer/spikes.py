"""Skipping updates whose gradient or loss is far larger than usual."""

import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.log_norm import log_norm, watched
from adamw_jax._optimizer.optimizer import wrapper_of
from adamw_jax._tree import checks
from adamw_jax._tree.fit import check_kind
from adamw_jax._tree.stage import params_or_updates
from adamw_jax._tree.typing import Params, Scalar, Updates
from adamw_jax._tree.width import as_scalar

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
      loss_known, loss_mean, loss_variance: the same of the loss; 0 where it is not judged.
    """

    inner_state: optax.OptState
    skipped: chex.Array
    in_a_row: chex.Array
    above: chex.Array
    known: chex.Array
    mean: chex.Array
    variance: chex.Array
    loss_known: chex.Array
    loss_mean: chex.Array
    loss_variance: chex.Array


def _choose(flag: chex.Array, new: Any, old: Any) -> Any:
    if not checks.is_traced(flag):
        return new if flag else old
    # A branch, because a `where` inside the loops would change how XLA rounds the moments.
    return jax.lax.cond(flag, lambda *pair: pair[0], lambda *pair: pair[1], new, old)


def _zero_unless(flag: chex.Array, update: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(update), jnp.inexact):
        return update
    return jnp.where(flag, update, jnp.zeros_like(update))


def _loss_of(value: Any) -> chex.Array:
    if value is None:
        raise ValueError("`value` must be given to update(updates, state, params, value=loss) to judge it, got None")
    if not checks.is_number(value):
        raise TypeError(f"`value` must be a number or a JAX scalar, the loss to be judged, got {value!r}")
    return jnp.asarray(value, jnp.result_type(float))


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
        counts = (jnp.zeros([], jnp.int32) for _ in range(3))
        statistics = ((jnp.zeros([], jnp.int32), *jnp.zeros([2], jnp.result_type(float))) for _ in range(2))
        return SkipSpikesState(tx.init(params), *counts, *itertools.chain(*statistics))

    def update(
        updates: Updates, state: SkipSpikesState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, SkipSpikesState]:
        check_kind(state, SkipSpikesState)
        full = jnp.asarray(window, jnp.int32)
        x, finite, positive = log_norm(watched(tx, updates, params_or_updates(updates, params)))
        y = _loss_of(extra_args.get("value")) if loss else jnp.zeros_like(x)
        # A gradient of zero has no logarithm.
        has_norm, finite = finite & positive, finite & jnp.isfinite(y)

        def is_high(value: Any, known: Any, mean: Any, variance: Any, unit: Any) -> chex.Array:
            limit = mean + as_scalar(sigma) * jnp.maximum(jnp.sqrt(variance), LEAST_DEVIATION * unit)
            return (known >= full) & (value > limit)

        norms = state.known, state.mean, state.variance
        losses = state.loss_known, state.loss_mean, state.loss_variance
        spike = has_norm & is_high(x, *norms, 1.0) if loss != "only" else jnp.asarray(False)
        if loss:
            spike |= is_high(y, *losses, jnp.abs(state.loss_mean))
        accepted = spike & (state.above >= full)
        taken = finite & (~spike | accepted)

        def moved(enters: Any, value: Any, known: Any, mean: Any, variance: Any) -> list[chex.Array]:
            number = jnp.minimum(jnp.where(accepted, 0, known) + 1, full)
            share, distance = 1 / number.astype(value.dtype), value - mean
            new = jnp.where(accepted, value, mean + share * distance)
            spread = (1 - share) * (variance + share * jnp.square(distance))
            pairs = zip((number, new, spread), (known, mean, variance), strict=True)
            return [jnp.where(enters, after, before) for after, before in pairs]

        known, mean, variance = moved(taken & has_norm, x, *norms)
        loss_known, loss_mean, loss_variance = moved(taken, y, *losses) if loss else losses
        new_updates, inner_state = tx.update(updates, state.inner_state, params, **extra_args)
        return jax.tree.map(lambda u: _zero_unless(taken, u), new_updates), SkipSpikesState(
            inner_state=_choose(taken, inner_state, state.inner_state),
            skipped=jnp.where(taken, state.skipped, optax.safe_increment(state.skipped)),
            in_a_row=jnp.where(taken, 0, optax.safe_increment(state.in_a_row)),
            above=jnp.where(taken, 0, jnp.where(finite, optax.safe_increment(state.above), state.above)),
            known=known,
            mean=mean,
            variance=variance,
            loss_known=loss_known,
            loss_mean=loss_mean,
            loss_variance=loss_variance,
        )

    made = optax.GradientTransformationExtraArgs(init, update)
    return wrapper_of(tx, made, "skip_spikes", sigma=sigma, window=window, loss=loss)
