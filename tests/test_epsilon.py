"""eps and eps_root leaf by leaf: each leaf gets what it would get alone with its numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj
from tests.running import quick_jit

PARAMS = {"a": jnp.ones((3, 2)), "b": jnp.ones(2), "c": {"k": jnp.ones((2, 2))}}
GRADS = jax.tree.map(lambda p: 1e-3 * jax.random.normal(jax.random.key(1), p.shape), PARAMS)
DIRECTIONS = {
    "adam": aj.scale_by_adam,
    "adam, epsilon hat": functools.partial(aj.scale_by_adam, epsilon_hat=True),
    "adam, packed": functools.partial(aj.scale_by_adam, moment_dtype="packed"),
    "amsgrad": aj.scale_by_amsgrad,
    "amsgrad of nu hat": functools.partial(aj.scale_by_amsgrad, max_of="nu_hat"),
    "nadam": aj.scale_by_nadam,
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_each_leaf_has_its_own_epsilons(name):
    def second(eps, eps_root, grads):
        tx = DIRECTIONS[name](eps=eps, eps_root=eps_root)
        _, state = tx.update(grads, tx.init(grads))
        return tx.update(grads, state)[0]

    rules = {"a": 1e-2, "c": {"k": 1e-3}, "b": 1e-8}
    together = quick_jit(lambda: second(rules, {"b": 1e-5}, GRADS))()
    alone = quick_jit(lambda e, r, g: second(e, r, {"leaf": g}))
    for key, eps, root in (("a", 1e-2, 0.0), ("b", 1e-8, 1e-5), ("c", 1e-3, 0.0)):
        (found,), (grad,) = jax.tree.leaves(together[key]), jax.tree.leaves(GRADS[key])
        # float32, a few operations.
        np.testing.assert_allclose(found, alone(eps, root, grad)["leaf"], rtol=1e-6)


def test_rules_may_be_patterns_functions_and_trees_and_agree():
    forms = [{"a": 1e-2}, lambda path, leaf: 1e-2 if path == "a" else 1e-8, {"a": 1e-2, "b": 1e-8, "c": {"k": 1e-8}}]
    found = [aj.scale_by_adam(eps=rules).update(GRADS, aj.scale_by_adam().init(PARAMS))[0] for rules in forms]
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)


def test_a_number_and_a_rule_that_gives_it_to_all_are_the_same_bits():
    number, rule = (
        aj.scale_by_adam(eps=eps).update(GRADS, aj.scale_by_adam().init(PARAMS))[0] for eps in (1e-3, {"": 1e-3})
    )
    jax.tree.map(np.testing.assert_array_equal, number, rule)


def test_a_tree_serves_a_direction_that_sees_some_leaves_only():
    tree = {"a": 1e-2, "b": 1e-3, "c": {"k": 1e-4}}
    whole = aj.adamw(0.1, eps=tree)
    for part in (
        aj.adamw(0.1, eps=tree, freeze="a"),
        aj.decoupled({"a": aj.scale_by_momentum(), "": aj.scale_by_adam(eps=tree)}, 0.1),
    ):
        found, _ = part.update(GRADS, part.init(PARAMS), PARAMS)
        wanted, _ = whole.update(GRADS, whole.init(PARAMS), PARAMS)
        np.testing.assert_array_equal(found["c"]["k"], wanted["c"]["k"])


def test_traced_epsilons_compile_once():
    update = jax.jit(lambda eps: aj.scale_by_adam(eps={"a": eps}).update(GRADS, aj.scale_by_adam().init(PARAMS))[0])
    first, second = update(1e-2), update(1e-3)
    assert update._cache_size() == 1
    assert float(jnp.abs(second["a"]).min()) > float(jnp.abs(first["a"]).min())
    np.testing.assert_array_equal(first["b"], second["b"])
