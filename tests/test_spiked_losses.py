"""Spikes of the loss: judged besides the gradient's norm, or in its place."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj


def skipped(loss, losses, gradients=None, window=3):
    """Which updates are skipped."""
    tx = aj.skip_spikes(optax.sgd(1.0), window=window, loss=loss)
    state, found = tx.init(jnp.zeros(1)), []
    for k, y in enumerate(losses):
        g = 1.0 + 0.01 * k if gradients is None else gradients[k]
        before = int(state.skipped)
        _, state = tx.update(jnp.array([g]), state, value=jnp.float32(y))
        found.append(int(state.skipped) > before)
    return found, state


CALM = [2.0, 1.9, 2.1, 2.0, 1.95]


def test_a_loss_far_above_its_window_is_skipped_and_stays_out_of_it():
    found, state = skipped(True, [*CALM, 9.0, 2.0])
    assert found == [False] * 5 + [True, False]
    taken, mean, variance, known = [*CALM, 2.0], 0.0, 0.0, 0
    for y in taken:
        known = min(known + 1, 3)
        mean, variance = mean + (y - mean) / known, (1 - 1 / known) * (variance + (y - mean) ** 2 / known)
    np.testing.assert_allclose([state.loss_mean, state.loss_variance], [mean, variance], rtol=1e-5)  # float32


def test_a_loss_that_is_not_finite_is_skipped_at_once():
    assert skipped(True, [2.0, np.nan, np.inf, 2.0])[0] == [False, True, True, False]


def test_the_gradient_is_judged_besides_or_not():
    gradients = [1.0, 1.1, 0.9, 1.0, 1000.0, 1.0]
    losses = [2.0, 1.9, 2.1, 2.0, 2.0, 2.0]
    assert skipped(True, losses, gradients)[0] == [False] * 4 + [True, False]
    assert skipped("only", losses, gradients)[0] == [False] * 6
    assert skipped("only", losses, [1.0, 1.0, np.nan, 1.0, 1.0, 1.0])[0] == [False, False, True] + [False] * 3
    assert skipped(False, [2.0] * 3 + [1e9] * 3)[0] == [False] * 6


def test_a_level_that_changed_for_good_is_accepted():
    found, _ = skipped(True, CALM + [9.0] * 6)
    assert found == [False] * 5 + [True] * 3 + [False] * 3


def test_negative_losses_have_a_least_deviation_too():
    assert skipped(True, [-2.0] * 5 + [-1.999, -1.0])[0] == [False] * 6 + [True]


def test_a_loss_is_judged_where_there_is_no_gradient():
    assert skipped("only", [*CALM, 9.0], [0.0] * 6)[0] == [False] * 5 + [True]


def test_a_loss_judged_from_the_middle_of_a_run_on_has_a_window_first():
    gradients = [jnp.array([1.0 + 0.01 * k]) for k in range(12)]
    before, after = (aj.skip_spikes(optax.sgd(1.0), window=3, loss=loss) for loss in (False, True))
    state = before.init(jnp.zeros(1))
    for gradient in gradients[:5]:
        _, state = before.update(gradient, state)
    for gradient, y in zip(gradients[5:], [*CALM, 9.0, 2.0], strict=True):
        _, state = after.update(gradient, state, value=jnp.float32(y))
    assert int(state.skipped) == 1


def test_bad_input():
    with pytest.raises(ValueError, match="`loss` must be one of False, True, 'only', got 'both'"):
        aj.skip_spikes(optax.sgd(1.0), loss="both")
    tx = aj.skip_spikes(optax.sgd(1.0), loss=True)
    with pytest.raises(ValueError, match="`value` must be given to update"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    with pytest.raises(TypeError, match="`value` must be a number or a JAX scalar, the loss to be judged"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), value=jnp.ones(2))
