"""Updates of bfloat16 parameters with stochastic rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj


def test_a_small_decay_moves_bfloat16_parameters_by_its_expectation():
    params = stuck = jnp.ones(4096, jnp.bfloat16)

    @jax.jit
    def step(p, count):
        return aj.apply_updates(p, -1e-3 * p.astype(jnp.float32), count)

    for count in range(100):
        params = step(params, jnp.int32(count))
        stuck = optax.apply_updates(stuck, -1e-3 * stuck.astype(jnp.float32))
    mean = np.mean(params.astype(jnp.float32))
    # A hundred roundings of standard deviation below 2^-9, averaged over 4096 parameters: 3e-4 in relative terms.
    np.testing.assert_allclose(mean, (1 - 1e-3) ** 100, rtol=2e-3)
    np.testing.assert_array_equal(stuck.astype(jnp.float32), 1.0)


def test_other_dtypes_are_updated_as_optax_does():
    params = {"a": jnp.arange(3.0), "b": jnp.arange(3, dtype=jnp.float16), "c": None}
    updates = {"a": jnp.full(3, 0.1), "b": jnp.full(3, 0.1), "c": None}
    expected = optax.apply_updates(params, updates)
    got = aj.apply_updates(params, updates, 3)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_rounding_differs_from_step_to_step_and_is_reproducible():
    params, updates = jnp.ones(64, jnp.bfloat16), jnp.full(64, -(2.0**-10))
    first, again, second = (aj.apply_updates(params, updates, count) for count in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    assert not np.isfinite(aj.apply_updates(jnp.ones(8, jnp.bfloat16), jnp.full(8, bad), 1).astype(jnp.float32)).any()


@pytest.mark.parametrize("count", [-1, 1.5, "one"])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises((ValueError, TypeError), match="`count` must be"):
        aj.apply_updates(jnp.ones(1), jnp.ones(1), count)
