"""Updates of bfloat16 parameters with stochastic rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj


def rounded(params, updates, count):
    """The parameters after updates that a stage gave, added by optax: the count seeds the rounding."""
    tx = aj.with_learning_rate(0.1, aj.round_to_params())
    state = tx.init(params)._replace(count=jnp.asarray(count, jnp.int32))
    return optax.apply_updates(params, tx.update(updates, state, params)[0])


def test_a_small_decay_moves_bfloat16_parameters_by_its_expectation():
    params = stuck = jnp.ones(4096, jnp.bfloat16)
    step = jax.jit(lambda p, count: rounded(p, -1e-3 * p.astype(jnp.float32), count))
    for count in range(100):
        params = step(params, jnp.int32(count))
        stuck = optax.apply_updates(stuck, -1e-3 * stuck.astype(jnp.float32))
    mean = np.mean(params.astype(jnp.float32))
    # A hundred roundings of standard deviation below 2^-9, averaged over 4096 parameters: 3e-4 in relative terms.
    np.testing.assert_allclose(mean, (1 - 1e-3) ** 100, rtol=2e-3)
    np.testing.assert_array_equal(stuck.astype(jnp.float32), 1.0)


def test_other_dtypes_are_updated_as_optax_does():
    params = {"a": jnp.arange(3.0), "b": jnp.arange(3, dtype=jnp.float16), "c": None, "d": jnp.ones(2, jnp.bfloat16)}
    updates = {"a": jnp.full(3, 0.1), "b": jnp.full(3, 0.1), "c": None, "d": jnp.zeros(2)}
    expected = optax.apply_updates(params, updates)
    got = rounded(params, updates, 3)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_rounding_differs_from_step_to_step_and_is_reproducible():
    params, updates = jnp.ones(64, jnp.bfloat16), jnp.full(64, -(2.0**-10))
    first, again, second = (rounded(params, updates, count) for count in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    assert not np.isfinite(rounded(jnp.ones(8, jnp.bfloat16), jnp.full(8, bad), 1).astype(jnp.float32)).any()


@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
def test_a_preset_lands_on_bfloat16_numbers_whatever_the_gradients_dtype(preset):
    tx = preset(1e-3, weight_decay=1e-3, round_params=True)
    for dtype in (jnp.bfloat16, jnp.float32):
        params = {"w": jnp.linspace(0.5, 3, 64, dtype=jnp.bfloat16)}
        updates, _ = tx.update({"w": jnp.ones(64, dtype)}, tx.init(params), params)
        exact = params["w"].astype(jnp.float32) + updates["w"].astype(jnp.float32)
        assert updates["w"].dtype == dtype
        np.testing.assert_array_equal(exact, optax.apply_updates(params, updates)["w"].astype(jnp.float32))


ROUNDED = {"w": jnp.bfloat16, "h": jnp.float16, "s": jnp.float32}
WRAPPERS = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step: step % 2 == 0),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step % 2 == 0),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_updates_have_the_gradients_dtypes_so_that_wrappers_can_leave_them_out(wrapper):
    params = {name: jnp.full(8, 1.5, dtype) for name, dtype in ROUNDED.items()}
    tx = WRAPPERS[wrapper](aj.adamw(1e-3, weight_decay=0.1, round_params=True))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        assert {name: update.dtype for name, update in updates.items()} == ROUNDED


def test_updates_in_bfloat16_have_the_mean_of_wide_ones_where_weights_change_sign():
    # Half of the differences to the rounded parameter are no bfloat16 number here.
    params = jnp.linspace(-0.02, 0.02, 4096).astype(jnp.bfloat16)
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=4096), jnp.bfloat16)
    tx = aj.sgdw(0.01, momentum=0.0, round_params=True)
    error = []
    for count in range(50):
        state = tx.init(params)._replace(count=jnp.int32(count))
        new = optax.apply_updates(params, tx.update(gradients, state, params)[0])
        error.append(
            np.asarray(new, np.float64) - np.asarray(params, np.float64) + 0.01 * np.asarray(gradients, np.float64)
        )
    # The noise of a rounding is below 2^-9 of 0.05; its mean over 50 x 4096 numbers is 450 times smaller.
    assert abs(np.mean(error)) < 0.05 * 2.0**-9 / 100


def test_rounding_that_can_do_nothing_says_so():
    with pytest.warns(UserWarning, match="`round_params` does nothing: it rounds bfloat16 parameters, .* are float32"):
        aj.adamw(1e-3, round_params=True).init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="`params` must be given"):
        aj.round_to_params().update({"w": jnp.ones(2)}, optax.EmptyState(), count=0)
    with pytest.raises(ValueError, match="`count` must be given: put the stage inside with_learning_rate"):
        aj.round_to_params().update({"w": jnp.ones(2)}, optax.EmptyState(), {"w": jnp.ones(2, jnp.bfloat16)})


def test_frameworks_that_add_the_updates_themselves_land_on_the_rounded_parameters():
    import keras
    from flax import nnx

    from adamw_jax.keras import OptaxOptimizer

    def make(rate):
        return aj.sgdw(rate, momentum=0.0, weight_decay=1e-3, round_params=True)

    steps, size = 200, 4096
    expected = (1 - 1e-3) ** steps
    model = nnx.Linear(64, 64, use_bias=False, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    model.kernel[...] = jnp.ones((64, 64), jnp.bfloat16)
    optimizer = nnx.Optimizer(model, make(0.1), wrt=nnx.Param)
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    step = nnx.jit(lambda model, optimizer: optimizer.update(model, zeros))
    for _ in range(steps):
        step(model, optimizer)
    # 200 roundings of standard deviation below 2^-9, averaged over 4096 parameters: 5e-4 in relative terms.
    np.testing.assert_allclose(np.mean(model.kernel[...].astype(jnp.float32)), expected, rtol=2e-3)

    variable = keras.Variable(np.ones(size), dtype="bfloat16")
    in_keras = OptaxOptimizer(make, 0.1)
    in_keras.build([variable])

    def body(carry, _):
        return in_keras.stateless_apply(carry[1], [jnp.zeros(size, jnp.bfloat16)], carry[0]), None

    start = ([variable.value], [v.value for v in in_keras.variables])
    (trained, _), _ = jax.jit(lambda carry: jax.lax.scan(body, carry, length=steps))(start)
    assert trained[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.mean(trained[0].astype(jnp.float32)), expected, rtol=2e-3)


def test_narrow_states_run_under_debug_nans_and_keep_scalars_wide():
    with jax.debug_nans(True):
        for params in (jnp.float32(1.0), jnp.ones(3), {"a": jnp.float32(1.0)}):
            tx = aj.with_narrow_state(aj.scale_by_nadam())
            state = tx.init(params)
            for step in (tx.update, jax.jit(tx.update)):
                _, state = step(params, state)
            assert state.inner_state.mu_product.dtype == jnp.float32
            for moments in (state.inner_state.mu, state.inner_state.nu):
                assert {leaf.dtype for leaf in jax.tree.leaves(moments)} == {jnp.dtype(jnp.bfloat16)}
