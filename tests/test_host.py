"""State in the host's memory: the numbers and the state of the plain optimizer, where it lives, and what is refused."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import adamw_jax as aj
from adamw_jax._devices import host
from tests.running import quick_jit

PARTS = "mu|nu|moments|trace"
OPTIMIZERS = {
    "adamw": lambda: aj.adamw(1e-3, weight_decay={"kernel": 0.1}, schedule=aj.cosine_warm_restarts(3, t_mult=1.5)),
    "packed": lambda: aj.adamw(1e-3, moment_dtype="packed"),
    "packed8": lambda: aj.adamw(1e-3, moment_dtype="packed8"),
    "amsgrad": lambda: aj.adamw(1e-3, amsgrad=True),
    "sgdw": lambda: aj.sgdw(1e-2, weight_decay=0.1),
    "optax": lambda: optax.adamw(1e-3),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), aj.adamw(1e-3)),
}


def model():
    layers = {
        f"layer_{i:02d}": {"kernel": jnp.full((16, 24), 0.1 * i, jnp.float32), "bias": jnp.zeros(24)} for i in range(5)
    }
    return jax.device_put(layers | {"head": {"kernel": jnp.ones((24, 3))}}, jax.devices()[0])


def gradients(k):
    rng = np.random.default_rng(k)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), model())


def trained(tx, steps=5, *, plain=False):
    traces = []

    def step(params, state, grads):
        traces.append(1)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = model()
    state = jax.device_put(tx.init(params), jax.devices()[0]) if plain else tx.init(params)
    places = tuple(jax.tree.map(lambda leaf: leaf.sharding, tree) for tree in (params, state))
    step = quick_jit(step, donate_argnums=(0, 1), out_shardings=places)
    for k in range(steps):
        params, state = step(params, state, jax.device_put(gradients(k), jax.devices()[0]))
    assert len(traces) == 1
    return params, state


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_with_the_state_in_the_host_is_the_same_training(name):
    plain, streamed = trained(OPTIMIZERS[name](), plain=True), trained(aj.with_host_state(OPTIMIZERS[name](), PARTS))
    assert jax.tree.structure(plain) == jax.tree.structure(streamed)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(streamed), strict=True):
        # The same operations, between which the compiler may put its fused multiply-adds elsewhere: an ulp or two.
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=3e-7, atol=1e-9)
    for leaf in jax.tree.leaves(streamed[1]):
        assert leaf.sharding.memory_kind == ("pinned_host" if leaf.ndim else "device")


def test_only_the_named_parts_move():
    state = aj.with_host_state(aj.adamw(1e-3), "nu/layer").init(model())
    kinds = {jax.tree_util.keystr(path): leaf.sharding.memory_kind for path, leaf in jax.tree.leaves_with_path(state)}
    assert all((kind == "pinned_host") == (".nu['layer" in name) for name, kind in kinds.items())


@pytest.mark.parametrize("moment_dtype", [None, "packed"])
def test_it_composes_with_zero1_and_the_report_tells_both_memories(moment_dtype):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = jax.device_put(model(), jax.NamedSharding(mesh, jax.P()))
    tx = aj.with_host_state(aj.adamw(1e-3, moment_dtype=moment_dtype), PARTS)
    options = {"mesh": mesh, "mode": "zero1", "min_size": 1}
    places = aj.state_shardings(tx, params, **options)
    state = aj.init_sharded(tx, params, **options)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == places
    step = quick_jit(tx.update, out_shardings=(jax.tree.map(lambda p: p.sharding, params), places))
    grads = jax.device_put(gradients(0), jax.NamedSharding(mesh, jax.P()))
    updates, state = step(grads, state, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == places
    expected, _ = aj.adamw(1e-3, moment_dtype=moment_dtype).update(
        grads, aj.adamw(1e-3, moment_dtype=moment_dtype).init(params), params
    )
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert aj.bytes_per_device(state, memory="host") == held // 8
    assert aj.bytes_per_device(state) == sum(leaf.nbytes for leaf in jax.tree.leaves(state) if not leaf.ndim)
    report = aj.placement_report(state).splitlines()
    assert report[-1].split() == ["total,", "host", *report[-1].split()[2:4], str(held // 8)]
    assert any(line.startswith("data, host") for line in report)


@pytest.mark.usefixtures("lenient")
def test_without_jit_it_is_the_same():
    tx = aj.with_host_state(optax.scale_by_adam(), "mu|nu")
    params = {"w": jnp.ones(8)}
    updates, state = tx.update(params, tx.init(params))
    np.testing.assert_allclose(
        updates["w"], optax.scale_by_adam().update(params, optax.scale_by_adam().init(params))[0]["w"]
    )
    assert state.mu["w"].sharding.memory_kind == "pinned_host"


def test_parts_that_find_nothing_are_refused():
    with pytest.raises(ValueError, match=r"`parts` must find arrays of the state, got 'momets', and the state has \["):
        aj.with_host_state(aj.adamw(1e-3), "momets").init(model())
    with pytest.raises(ValueError, match="`parts` must find arrays of the state, got 'count'"):
        aj.with_host_state(aj.adamw(1e-3), "count").init(model())
    with pytest.raises(TypeError, match="`parts` must be a regular expression, got 3"):
        aj.with_host_state(aj.adamw(1e-3), 3)
    with pytest.raises(ValueError, match=r"`parts` must be a regular expression, got '\('"):
        aj.with_host_state(aj.adamw(1e-3), "(")


def test_a_backend_without_host_memory_is_refused(monkeypatch):
    device = types.SimpleNamespace(addressable_memories=lambda: [types.SimpleNamespace(kind="device")])
    params = model()
    monkeypatch.setattr(jax, "devices", lambda: [device])
    with pytest.raises(
        ValueError, match="`parts` must be on a backend with memory of the kind 'pinned_host', got 'cpu'"
    ):
        aj.with_host_state(aj.adamw(1e-3), "mu").init(params)


def test_a_version_without_the_hosts_memory_is_named(monkeypatch):
    monkeypatch.setattr(host, "SPACES", None)
    with pytest.raises(NotImplementedError, match=rf"needs jax.memory, which JAX {jax.__version__} does not have"):
        aj.with_host_state(optax.scale_by_adam(), "mu").init({"w": jnp.ones(2)})


def test_a_state_in_device_memory_is_refused():
    tx = aj.with_host_state(optax.scale_by_adam(), "mu|nu")
    params = {"w": jnp.ones(8)}
    state = optax.scale_by_adam().init(params)
    with pytest.raises(ValueError, match="`state` must have 'mu/w' in the host's memory, got it in device memory"):
        tx.update(params, state)


def test_an_optimizer_that_uses_the_states_of_several_parameters_gives_its_numbers():
    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u / optax.tree.norm(state), updates), state

    mixing = optax.GradientTransformation(lambda params: jax.tree.map(jnp.ones_like, params), update)
    tx = aj.with_host_state(mixing, "w|v")
    params = {"w": jnp.ones(8), "v": jnp.ones(8)}
    updates, _ = jax.jit(tx.update)(params, tx.init(params))
    np.testing.assert_allclose(updates["w"], np.full(8, 0.25), rtol=1e-6)  # float32's rounding


def test_without_jax_memory_it_is_refused_at_use(monkeypatch):
    from adamw_jax._devices import host

    monkeypatch.setattr(host, "SPACES", None)
    with pytest.raises(NotImplementedError, match=r"`with_host_state` needs jax.memory, which JAX .* does not have"):
        aj.with_host_state(aj.adamw(1e-3), "mu").init(model())
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    aj.state_shardings(aj.adamw(1e-3), model(), mesh=mesh)


def test_an_empty_tree_has_nothing_to_move():
    tx = aj.with_host_state(optax.scale_by_adam(), "mu|nu")
    with pytest.raises(ValueError, match="`parts` must find arrays"):
        tx.init({})


def test_a_memory_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`memory` must be one of 'device', 'host', got 'disk'"):
        aj.bytes_per_device(model(), memory="disk")
