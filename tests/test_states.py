"""States: where scalars per leaf stand, and which state fits which optimizer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
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


# A state fits the optimizer, or the error says what makes it fit.

MODEL = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "head": 2 * jnp.ones((2, 2)), "gate": jnp.ones(())}
SCHEDULES = {"": None, " restarts": aj.cosine_warm_restarts(5), " 0.5": 0.5}
PRESETS = {
    "adamw": aj.adamw,
    "nadamw": aj.nadamw,
    "sgdw": aj.sgdw,
    "amsgrad": lambda *a, **o: aj.adamw(*a, amsgrad=True, **o),
}
VARIANTS = {
    "frozen": {"freeze": "dense|gate"},
    "head frozen": {"freeze": "head"},
    "held": {"hold_norm": "kernel"},
    "both held": {"hold_norm": "kernel|head", "moment_dtype": "packed"},
    "anchored": {"decay": "anchored", "weight_decay": 0.1},
    "frozen, held": {"freeze": "bias", "hold_norm": "head", "schedule": 1.0},
}
BY_NAME = {
    f"{name} {dtype}{schedule}": lambda make=make, dtype=dtype, eta=eta: make(0.1, moment_dtype=dtype, schedule=eta)
    for name, make in PRESETS.items()
    for dtype in (None, "float32", "bfloat16", "packed", "packed8")
    for schedule, eta in list(SCHEDULES.items())[: 2 if dtype in (None, "packed") else 1]
}
BY_NAME |= {
    f"{name} {variant}": lambda make=make, options=options: make(0.1, **options)
    for name, make in PRESETS.items()
    for variant, options in VARIANTS.items()
}
BY_NAME |= {
    "lion": lambda: aj.decoupled(optax.scale_by_lion(), 0.1),
    "narrow lion": lambda: aj.decoupled(aj.with_narrow_state(optax.scale_by_lion()), 0.1),
    "ademamix": lambda: aj.decoupled(optax.contrib.scale_by_ademamix(), 0.1),
    "narrow ademamix": lambda: aj.decoupled(aj.with_narrow_state(optax.contrib.scale_by_ademamix()), 0.1),
    "muon": lambda: aj.decoupled({"kernel|head": aj.scale_by_muon(), "": aj.scale_by_adam()}, 0.1),
    "by path": lambda: aj.decoupled({"kernel": aj.scale_by_adam(), "": aj.scale_by_momentum()}, 0.1),
}
WRAPPED = {
    "watched": lambda: aj.observe(aj.skip_spikes(aj.adamw(0.1, moment_dtype="packed"))),
    "Ema": lambda: aj.with_average(aj.adamw(0.1), aj.Ema(5)),
    "Ema bfloat16": lambda: aj.with_average(aj.adamw(0.1, moment_dtype="packed"), aj.Ema(5), store="bfloat16"),
    "DecayMerge": lambda: aj.with_average(aj.sgdw(0.1), aj.DecayMerge("linear", 100), but="bias"),
    "CycleMean": lambda: aj.with_average(aj.adamw(0.1, schedule=SCHEDULES[" restarts"]), aj.CycleMean()),
    "Ema, spikes": lambda: aj.with_average(aj.skip_spikes(aj.adamw(0.1)), aj.Ema(5)),
}
BY_NAME |= WRAPPED


def form(state):
    return jax.tree.structure(state), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]


@functools.cache
def made(name):
    """The optimizer, a state with other numbers than the first ones in it, and the state's shapes."""
    tx = BY_NAME[name]()
    state = jax.tree.map(lambda x: x + jnp.ones_like(x), tx.init(MODEL))
    return tx, state, jax.eval_shape(tx.init, MODEL)


@functools.cache
def one_per_form():
    """Names whose states differ in their form: an optimizer refuses a form."""
    names = {}
    for name in BY_NAME:
        structure, forms = form(made(name)[2])
        names.setdefault((structure, tuple(forms)), name)
    return list(names.values())


def refusal(name, state):
    """The message with which an optimizer refuses a state; None where it goes on."""
    tx, _, wanted = made(name)
    shapes = jax.eval_shape(lambda: state)
    if form(shapes) == form(wanted):
        return None
    with pytest.raises(ValueError, match=r"`state` must be what `init` makes of these parameters, .* at '") as error:
        jax.eval_shape(tx.update, MODEL, shapes, MODEL)
    return str(error.value)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("continued_by", BY_NAME)
def test_an_equal_state_goes_on_and_every_other_names_what_makes_it_fit(continued_by):
    tx, own, wanted = made(continued_by)
    jax.eval_shape(tx.update, MODEL, own, MODEL)
    for made_by in one_per_form():
        _, state, _ = made(made_by)
        for _ in range(3):  # two remedies at most: one for the moments' storage, one for all else
            message = refusal(continued_by, state)
            if message is None:
                break
            state = remedied(message, state, tx.init(MODEL))
        assert message is None, (made_by, message)
        assert form(jax.eval_shape(lambda state=state: state)) == form(wanted)


def remedied(message, state, fresh):
    """The state after what a message says; a wrapper does not see how moments inside are stored, `carry_over` does."""
    if "carry_over" in message:
        try:
            return aj.carry_over(state, fresh)
        except ValueError as error:
            message = str(error)
    assert "convert_moments" in message
    return aj.convert_moments(state, fresh)


def test_what_is_carried_over_are_the_numbers_of_before():
    def numbers(name, other):
        fresh = made(other)[0].init(MODEL)
        return aj.carry_over(aj.convert_moments(made(name)[1], fresh), fresh)

    # A schedule that was not there: moments and counts as before, the position at its start.
    after = numbers("adamw None", "adamw None restarts")
    assert int(after.count) == 1
    assert int(after.inner_state.t_cur) == 0
    moments = made("adamw None")[1].inner_state[0]
    jax.tree.map(np.testing.assert_array_equal, after.inner_state.inner_state[0], moments)
    # Another mask: the known radius stays, the new one is that of the weights.
    (norms,) = (node.norms for node in aj_nodes(numbers("adamw held", "adamw both held"), aj.states.HoldNormState))
    assert (float(norms["dense/kernel"]), float(norms["head"])) == (3.0, 4.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "packed", "packed8"])
@pytest.mark.parametrize("name", PRESETS)
def test_moments_go_to_every_storage_and_back(name, dtype):
    wide, narrow = (PRESETS[name](0.1, moment_dtype=each) for each in (None, dtype))
    _, state = wide.update(GRADIENTS, wide.init(PLAIN), PLAIN)
    first = aj.convert_moments(aj.convert_moments(state, narrow.init(PLAIN)), wide.init(PLAIN))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=2**-3 if dtype == "packed8" else 2**-8)  # half of the codes' spacing
    there = aj.convert_moments(state, jax.eval_shape(narrow.init, PLAIN))
    assert form(there) == form(narrow.init(PLAIN))
    _, went_on = jax.jit(narrow.update, donate_argnums=1)(GRADIENTS, there, PLAIN)
    back = aj.convert_moments(went_on, wide.init(PLAIN))
    assert form(back) == form(state)
    again = aj.convert_moments(aj.convert_moments(back, narrow.init(PLAIN)), wide.init(PLAIN))
    # What a narrow form holds it holds exactly.
    jax.tree.map(np.testing.assert_array_equal, again, back)


@pytest.mark.usefixtures("lenient")
def test_an_adam_of_optax_is_taken_over_with_buffers_of_its_own():
    theirs, ours = optax.adamw(0.1), aj.observe(aj.adamw(0.1, coupling="learning_rate"))
    _, old = theirs.update(GRADIENTS, theirs.init(PLAIN), PLAIN)
    state = aj.from_optax_adam(old, ours.init(PLAIN))
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, old))]
    assert len(set(buffers)) == len(buffers)
    jax.jit(ours.update, donate_argnums=1)(GRADIENTS, state, PLAIN)
    assert int(old[0].count) == 1


def test_a_frozen_scalar_has_nothing_that_looks_like_moments():
    for make in PRESETS.values():
        cold, warm = (make(0.1, freeze=freeze) for freeze in ("gate", None))
        _, state = cold.update(MODEL, cold.init(MODEL), MODEL)
        first, _ = warm.update(MODEL, aj.carry_over(state, warm.init(MODEL)), MODEL)
        fresh, _ = warm.update(MODEL, warm.init(MODEL), MODEL)
        assert float(first["gate"]) == float(fresh["gate"])


def as_0_2(state, params, frozen):
    """A state as version 0.2 laid it out: scalars in trees like the parameters, and zeros for frozen leaves."""

    def older(node):
        if isinstance(node, aj.states.HoldNormState):
            norms = [node.norms.get(path, jnp.zeros([])) for path in ("dense/bias", "dense/kernel", "gate", "head")]
            return node._replace(norms=jax.tree.unflatten(jax.tree.structure(params), norms))
        if isinstance(node, optax.ScaleByAdamState):
            return node._replace(mu=filled(node.mu), nu=filled(node.nu))
        return node

    def filled(tree):
        leaves, holes = iter(jax.tree.leaves(tree)), iter(frozen)
        return jax.tree.map(lambda _: jnp.zeros([]) if next(holes) else next(leaves), params)

    kinds = (aj.states.HoldNormState, optax.ScaleByAdamState)
    return jax.tree.map(older, state, is_leaf=lambda node: isinstance(node, kinds))


def test_a_state_of_0_2_goes_on_after_carry_over():
    tx = aj.adamw(0.1, freeze="dense/bias", hold_norm="kernel")
    _, state = tx.update(MODEL, tx.init(MODEL), MODEL)
    old = as_0_2(state, MODEL, [True, False, False, False])
    with pytest.raises(ValueError, match=r"`state` must be .*: carry_over\(state, tx.init\(params\)\)"):
        tx.update(MODEL, old, MODEL)
    moved = aj.carry_over(old, tx.init(MODEL))
    jax.tree.map(np.testing.assert_array_equal, moved, state)


def test_anchors_stand_beside_frozen_leaves_of_any_dtype():
    params = {"w": jnp.ones(3), "steps": jnp.arange(4), "key": jax.random.key(0)}
    anchors = params | {"w": jnp.zeros(3)}
    for form_of_decay in ("anchored", aj.Anchored(anchors)):
        tx = aj.adamw(0.1, freeze="steps|key", decay=form_of_decay, weight_decay=0.5)
        gradients = params | {"w": jnp.zeros(3)}
        for step in (tx.update, jax.jit(tx.update)):
            updates, state = step(gradients, tx.init(params), params)
            pulled = 0.0 if form_of_decay == "anchored" else -0.5
            np.testing.assert_array_equal(updates["w"], np.full(3, pulled))
    # The anchors of the state count; others are put there.
    state = optax.tree.set(state, anchors=params | {"w": jnp.ones(3), "steps": jnp.zeros(4), "key": jnp.zeros(())})
    np.testing.assert_array_equal(tx.update(gradients, state, params)[0]["w"], np.zeros(3))
    with pytest.raises(TypeError, match="`anchors` must have real floating leaves, got int32 at 'w'"):
        aj.adamw(0.1, decay=aj.Anchored({"w": jnp.arange(3)}), weight_decay=0.5).init({"w": jnp.ones(3)})


# What is a state of this optimizer passes, however it was made.


def one_step(tx, state, params=PLAIN, gradients=GRADIENTS):
    return tx.update(gradients, state, params)


def from_numpy(state):
    return jax.tree.map(np.asarray, state)


def from_shapes(tx):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(tx.init, PLAIN))


LEGITIMATE = {
    "NumPy arrays": lambda tx: one_step(tx, from_numpy(tx.init(PLAIN))),
    "shapes alone": lambda tx: one_step(tx, from_shapes(tx)),
    "a fresh optimizer": lambda tx: one_step(aj.adamw(0.1, hold_norm="kernel"), tx.init(PLAIN)),
    "traced": lambda tx: jax.eval_shape(tx.update, GRADIENTS, jax.eval_shape(tx.init, PLAIN), PLAIN),
    "donated": lambda tx: jax.jit(tx.update, donate_argnums=1)(GRADIENTS, tx.init(PLAIN), PLAIN),
    "masked": lambda tx: wrapped(optax.masked(tx, {"body": True, "head": False})),
    "MultiSteps": lambda tx: wrapped(optax.MultiSteps(tx, 2)),
    "finite": lambda tx: wrapped(optax.apply_if_finite(tx, 2)),
    "flattened": lambda _: wrapped(optax.flatten(aj.adamw(0.1))),
    "by label": lambda tx: wrapped(
        optax.partition({"a": tx, "b": optax.sgd(0.1)}, {"body": {"kernel": "a", "scale": "b"}, "head": "b"})
    ),
    "injected": lambda _: wrapped(optax.inject_hyperparams(aj.adamw)(learning_rate=0.1, hold_norm="kernel")),
    "many runs": lambda tx: many_runs(tx),
    "without parameters": lambda _: one_step(aj.adamw(0.1), aj.adamw(0.1).init(PLAIN), None),
    "narrow gradients": lambda _: one_step(
        aj.adamw(0.1), aj.adamw(0.1).init(PLAIN), None, jax.tree.map(jnp.bfloat16, GRADIENTS)
    ),
}


def wrapped(tx):
    """Two updates, eager and jitted, of a state that wrappers handed on."""
    _, state = one_step(tx, tx.init(PLAIN))
    return jax.jit(tx.update)(GRADIENTS, state, PLAIN)


def many_runs(tx):
    params, gradients = (jax.tree.map(lambda x: jnp.stack([x, 2 * x]), tree) for tree in (PLAIN, GRADIENTS))
    return jax.vmap(tx.update)(gradients, jax.vmap(tx.init)(params), params)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_state_of_this_optimizer_passes(name):
    updates, _ = LEGITIMATE[name](aj.adamw(0.1, hold_norm="kernel"))
    assert jax.tree.structure(updates) == jax.tree.structure(PLAIN)


@pytest.mark.usefixtures("lenient")
def test_a_state_of_float32_goes_on_with_float64_switched_on():
    tx = aj.nadamw(0.1, schedule=aj.cosine_warm_restarts(5))
    _, state = one_step(tx, tx.init(PLAIN))
    with jax.enable_x64(True):
        _, state = one_step(tx, state)
    assert int(state.count) == 2


def test_what_is_no_state_is_a_type_error():
    tx = aj.adamw(0.1)
    for state in (PLAIN, GRADIENTS, None, {"count": 0}):
        with pytest.raises(
            TypeError, match=r"`state` must be what init\(params\) returned, as in update\(updates, state"
        ):
            tx.update(GRADIENTS, state, PLAIN)
    pair = (jnp.ones(2), jnp.ones(2))  # parameters that are a tuple, as states are
    with pytest.raises(TypeError, match="`state` must be what init"):
        tx.update(pair, pair, pair)
    with pytest.raises(ValueError, match="`state` must be what `init` makes of these parameters, LearningRateState"):
        tx.update(GRADIENTS, optax.adam(0.1).init(PLAIN), PLAIN)


def test_scalars_per_leaf_go_through_a_checkpoint(tmp_path):
    import orbax.checkpoint as ocp

    tx = WITH_SCALARS["all"]()
    _, state = one_step(tx, tx.init(PLAIN))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, PLAIN))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    one_step(tx, restored)


ALONE = {
    f"{name} {dtype}": lambda make=make, dtype=dtype: make(moment_dtype=dtype)
    for name, make in {
        "adam": aj.scale_by_adam,
        "amsgrad": aj.scale_by_amsgrad,
        "nadam": aj.scale_by_nadam,
        "momentum": aj.scale_by_momentum,
    }.items()
    for dtype in (None, "bfloat16", "packed", "packed8")
}


@pytest.mark.parametrize("continued_by", ALONE)
def test_a_direction_alone_refuses_the_states_of_others(continued_by):
    tx = ALONE[continued_by]()
    wanted = jax.eval_shape(tx.init, PLAIN)
    for name, make in ALONE.items():
        state = jax.eval_shape(make().init, PLAIN)
        if form(state) == form(wanted):
            jax.eval_shape(tx.update, GRADIENTS, state)
            continue
        remedy = "convert_moments" if name.split()[0] == continued_by.split()[0] else "carry_over"
        with pytest.raises(ValueError, match=rf"`state` must .*{remedy}"):
            jax.eval_shape(tx.update, GRADIENTS, state)


def test_optimizers_of_one_make_have_states_of_one_form():
    from adamw_jax._optimizer.optimizer import make_of

    forms = {}
    for name in BY_NAME:
        tx, _, wanted = made(name)
        make = make_of(tx.plan)
        if make is not None and name not in WRAPPED:
            assert form(wanted) == forms.setdefault(make, form(wanted)), name
    assert len(forms) > 20
    # Numbers make no difference, traced or not; a function or a tree in an option has no make.
    assert make_of(aj.adamw(0.1, b1=0.5).plan) == make_of(aj.adamw(jnp.float32(0.2), eps=1e-3).plan)
    assert make_of(aj.adamw(0.1, freeze={"w": True}).plan) is None


def test_numbers_of_wrappers_may_be_of_any_dtype():
    for dtype in (jnp.int32, jnp.uint8, jnp.bfloat16, np.int64):
        tx = aj.observe(aj.skip_spikes(aj.adamw(0.1), sigma=dtype(3), window=dtype(4)), every=dtype(2))
        state = tx.init(PLAIN)
        for _ in range(2):
            _, state = one_step(tx, state)
        assert int(state.observed) == 2
