"""States: where scalars per leaf stand, and which state fits which optimizer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import AxisType

import adamw_jax as aj

# Boxes: what is not of the parameter's shape does not stand in the parameter's box.


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Named:
    """A box that knows the axes of its array, and refuses any other array."""

    array: object
    axes: tuple

    def __post_init__(self):
        if hasattr(self.array, "shape") and self.array.shape != self.axes:
            raise ValueError(f"axes {self.axes} for an array {self.array.shape}")

    def tree_flatten(self):
        return (self.array,), self.axes

    @classmethod
    def tree_unflatten(cls, axes, children):
        return cls(*children, axes)


def matrix(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(4, 4)), jnp.float32)


PLAIN = {"body": {"kernel": matrix(0), "scale": jnp.float32(2.0)}, "head": {"kernel": matrix(1)}}
NAMED = jax.tree.map(lambda x: Named(x, x.shape), PLAIN)
GRADIENTS = jax.tree.map(lambda x: jnp.cos(3 * x), PLAIN)
NAMED_GRADIENTS = jax.tree.map(lambda x: Named(x, x.shape), GRADIENTS)

WITH_SCALARS = {
    "freeze": lambda: aj.adamw(0.1, freeze="body"),
    "freeze by path": lambda: aj.decoupled(
        {"body": aj.scale_by_momentum(), "": aj.scale_by_adam()}, 0.1, freeze="body"
    ),
    "hold_norm": lambda: aj.adamw(0.1, hold_norm="kernel"),
    "observe": lambda: aj.observe(aj.nadamw(0.1)),
    "all": lambda: aj.observe(aj.skip_spikes(aj.sgdw(0.1, freeze="scale", hold_norm="kernel", moment_dtype="packed"))),
}


@pytest.mark.parametrize("name", WITH_SCALARS)
def test_boxes_hold_arrays_of_the_parameters_shape_only(name):
    tx = WITH_SCALARS[name]()

    @jax.jit
    def two_steps(params, gradients):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params, state = two_steps(PLAIN, GRADIENTS)
    named, named_state = two_steps(NAMED, NAMED_GRADIENTS)
    jax.tree.map(np.testing.assert_array_equal, params, jax.tree.map(lambda x: x.array, named, is_leaf=is_named))
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [leaf.shape for leaf in jax.tree.leaves(named_state)]


def is_named(node):
    return isinstance(node, Named)


@pytest.mark.parametrize("name", WITH_SCALARS)
def test_optax_maps_over_the_parameters_in_a_state(name):
    tx = WITH_SCALARS[name]()
    state = tx.init(PLAIN)
    leaves = jax.tree.leaves(PLAIN)
    seen = []
    mapped = optax.tree.map_params(
        tx, lambda x: seen.append(x.shape) or x + 1, state, transform_non_params=lambda x: x, is_leaf=None
    )
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    shapes = {leaf.shape for leaf in leaves}
    assert seen
    assert set(seen) <= shapes


@pytest.mark.parametrize("name", WITH_SCALARS)
def test_nnx_places_a_state_on_a_mesh(name):
    def split(axes):
        return nnx.with_partitioning(nnx.initializers.lecun_normal(), axes)

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.body = nnx.Linear(4, 4, use_bias=False, rngs=rngs, kernel_init=split(("data", None)))
            self.head = nnx.Linear(4, 4, use_bias=False, rngs=rngs, kernel_init=split((None, "data")))
            self.scale = nnx.Param(jnp.float32(2.0))

        def __call__(self, x):
            return self.head(self.body(x)) * self.scale

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        model = Model(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, WITH_SCALARS[name](), wrt=nnx.Param)
        gradients = nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 4))) ** 2))(model)
        optimizer.update(model, gradients)
    assert np.isfinite(model(jnp.ones((2, 4)))).all()


@pytest.mark.parametrize("name", WITH_SCALARS)
def test_linen_reads_the_shardings_of_a_state(name):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])

    def boxed(x):
        return linen.Partitioned(x, names=("data", None)[: x.ndim], mesh=mesh)

    tx = WITH_SCALARS[name]()
    params = jax.tree.map(boxed, PLAIN)
    shardings = linen.get_sharding(jax.eval_shape(tx.init, params), mesh)
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


def test_two_leaves_of_one_path_are_two_entries():
    params = {"a/b": matrix(0), "a": {"b": 2 * matrix(0)}}
    _, state = aj.observe(optax.sgd(0.1)).update(params, aj.observe(optax.sgd(0.1)).init(params), params)
    assert float(state.weight_rms["a/b#2"]) * 2 == pytest.approx(float(state.weight_rms["a/b"]))


# Held norms: a radius is known or is taken from the weights, never 0.


def held_after(tx, params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def test_a_radius_that_is_not_known_is_taken_at_the_first_held_update():
    tx = aj.adamw(0.1, hold_norm="kernel")
    state = tx.init(PLAIN)
    unknown = jax.tree.map(lambda x: x, state)
    holds = aj_nodes(unknown, aj.states.HoldNormState)
    assert sorted(holds[0].norms) == ["body/kernel", "head/kernel"]
    holds[0].norms["head/kernel"] = jnp.zeros([])
    for step in (tx.update, jax.jit(tx.update)):
        expected, known = step(GRADIENTS, state, PLAIN)
        updates, new = step(GRADIENTS, unknown, PLAIN)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        jax.tree.map(np.testing.assert_array_equal, new, known)


def aj_nodes(state, kind):
    return [node for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind)) if isinstance(node, kind)]


def test_a_held_leaf_of_zeros_gets_its_length_from_the_first_step():
    tx, plain = aj.adamw(0.1, hold_norm="kernel"), aj.adamw(0.1)
    params = {"kernel": jnp.zeros((2, 2))}
    gradients = {"kernel": matrix(2)[:2, :2]}
    moved, state = held_after(tx, params, jax.jit(tx.init)(params), gradients)
    free, _ = held_after(plain, params, plain.init(params), gradients)
    np.testing.assert_array_equal(moved["kernel"], free["kernel"])
    length = np.linalg.norm(moved["kernel"])
    for _ in range(3):
        moved, state = held_after(tx, moved, state, gradients)
    assert np.linalg.norm(moved["kernel"]) == pytest.approx(length, rel=1e-6)  # float32's rounding


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_the_size_of_a_gradient_does_not_matter_to_a_held_leaf(size):
    tx = aj.decoupled(optax.identity(), 0.1, hold_norm="kernel")
    params, gradients = ({"kernel": tree["body"]["kernel"]} for tree in (PLAIN, GRADIENTS))
    large = jax.tree.map(lambda g: g * jnp.float32(size), gradients)
    moved, expected = (held_after(tx, params, tx.init(params), g)[0]["kernel"] for g in (large, gradients))
    # The gradient is rounded once more, by its factor.
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)
    tiny = jax.tree.map(lambda p: p * jnp.float32(1e-25), params)
    small, _ = held_after(tx, tiny, tx.init(tiny), gradients)
    np.testing.assert_allclose(small["kernel"] * jnp.float32(1e25), expected, rtol=1e-5, atol=1e-6)


def test_a_held_leaf_has_no_threshold():
    with pytest.raises(ValueError, match=r"`hold_norm` must not hold .* a `proximal_l1` of 0.1 at 'body/kernel'"):
        aj.adamw(0.1, hold_norm="body/kernel", proximal_l1={"body": 0.1}).init(PLAIN)
    aj.adamw(0.1, hold_norm="body/kernel", proximal_l1={"head": 0.1}).init(PLAIN)
    made = optax.inject_hyperparams(aj.adamw)(1e-3, hold_norm="kernel")
    jax.jit(made.init)(PLAIN)
