"""Orthogonalized matrices: optax's direction; a stack is the loop over its matrices; the scale does not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamw_jax as aj
from adamw_jax._direction.newton_schulz import JORDAN, POLAR_EXPRESS
from tests.reference import newton_schulz_by_singular_values
from tests.running import lenient, quick_jit

Numbers = optax.contrib.MuonDimensionNumbers

LEAVES = {
    # path: shape, letters, and what optax calls them
    "wide": ((8, 20), "io", Numbers()),
    "tall": ((20, 8), "io", Numbers()),
    "stack": ((3, 8, 20), "sio", Numbers(1, 2)),
    "attention/query": ((8, 4, 5), "ioo", Numbers(0, (1, 2))),
    "attention/out": ((4, 5, 8), "iio", Numbers((0, 1), 2)),
    "conv": ((3, 3, 2, 6), "iiio", Numbers((0, 1, 2), 3)),
    "stack of heads": ((2, 8, 4, 5), "sioo", Numbers(1, (2, 3))),
}
AXES = {f"^{path}$": letters for path, (_, letters, _) in LEAVES.items()}


def tree(seed):
    rng = np.random.default_rng(seed)
    return {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, (shape, _, _) in LEAVES.items()}


def directions(tx, grads):
    """The directions of all updates, stacked, in one program."""

    @quick_jit
    def run(grads):
        first = jax.tree.map(lambda g: g[0], grads)

        def step(state, g):
            direction, state = tx.update(g, state, first)
            return state, direction

        return jax.lax.scan(step, tx.init(first), grads)

    return run(grads)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


GRADS = stacked([tree(seed) for seed in range(10)])


def orthogonalized(x, axes=None, **options):
    return quick_jit(lambda x: aj.orthogonalize(axes, **options).update(x, optax.EmptyState())[0])(x)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_ten_updates_are_those_of_optax(nesterov, adaptive):
    options = {"nesterov": nesterov, "adaptive": adaptive, "consistent_rms": 0.2 if nesterov and adaptive else None}
    numbers = {path: each for path, (_, _, each) in LEAVES.items()}
    peer = lenient(optax.contrib.muon(-1.0, weight_decay=0.0, muon_weight_dimension_numbers=numbers, **options))
    _, ours = directions(aj.scale_by_muon(axes=AXES, **options), GRADS)
    _, theirs = directions(peer, GRADS)
    for path, direction in ours.items():
        # Elements are below 1.2 without `adaptive`, which multiplies them by a number of the matrix's size.
        largest = jnp.abs(theirs[path]).max() if adaptive else 1.0
        np.testing.assert_allclose(direction / largest, theirs[path] / largest, rtol=0, atol=1e-5, err_msg=path)


def test_optax_s_names_are_taken():
    g, options = {"w": GRADS["stack"][0]}, {"ns_coeffs": JORDAN, "ns_steps": 3, "mu_dtype": "bfloat16"}
    theirs = aj.scale_by_muon(weight_dimension_numbers=Numbers(1, 2), **options)
    ours = aj.scale_by_muon(axes="sio", coefficients="jordan", steps=3, moment_dtype="bfloat16")
    np.testing.assert_array_equal(theirs.update(g, theirs.init(g))[0]["w"], ours.update(g, ours.init(g))[0]["w"])


@pytest.mark.parametrize("coefficients", ["jordan", "polar_express", [JORDAN, (1.5, -0.5, 0.0), (1.5, -0.5, 0.0)]])
def test_singular_values_go_through_the_polynomials(coefficients):
    x = {"wide": GRADS["wide"][0], "tall": GRADS["tall"][0]}
    found = orthogonalized(x, coefficients=coefficients, scale=None)
    triples = {"jordan": (JORDAN,) * 5, "polar_express": POLAR_EXPRESS[:5]}.get(str(coefficients), coefficients)
    for path, y in found.items():
        # Five products of float32 matrices.
        np.testing.assert_allclose(y, newton_schulz_by_singular_values(x[path], triples), rtol=0, atol=1e-5)


def test_a_stack_is_the_loop_over_its_matrices():
    together, apart = GRADS["stack"], {f"layer_{i}": GRADS["stack"][:, i] for i in range(3)}
    _, one = directions(aj.scale_by_muon(axes="sio"), {"w": together})
    _, many = directions(aj.scale_by_muon(), apart)
    for i in range(3):
        np.testing.assert_allclose(one["w"][:, i], many[f"layer_{i}"], rtol=0, atol=1e-6)


def test_the_stack_s_axis_may_be_anywhere():
    x = GRADS["stack"][0]
    expected = orthogonalized({"w": x}, "sio")["w"]
    np.testing.assert_allclose(orthogonalized({"w": x.transpose(1, 0, 2)}, "iso")["w"].transpose(1, 0, 2), expected)
    # Of the transposed matrices other sides are inputs, so that scale= would differ.
    plain, turned = orthogonalized({"w": x}, "sio", scale=None)["w"], x.transpose(2, 1, 0)
    np.testing.assert_allclose(
        orthogonalized({"w": turned}, "ios", scale=None)["w"].transpose(2, 1, 0), plain, atol=1e-6
    )


def test_the_scale_of_a_gradient_does_not_matter():
    run = quick_jit(lambda x: aj.orthogonalize().update(x, optax.EmptyState())[0])
    x = {"wide": GRADS["wide"][0], "tall": GRADS["tall"][0]}
    plain = run(x)
    for scale in (1e-30, 1e-18, 1e-9, 1e18, 1e30):
        for path, y in run(jax.tree.map(lambda leaf, by=scale: leaf * by, x)).items():
            # A product with the scale rounds every element once.
            np.testing.assert_allclose(y, plain[path], rtol=0, atol=3e-6)
    assert not any(leaf.any() for leaf in run(jax.tree.map(jnp.zeros_like, x)).values())


@pytest.mark.parametrize("preconditioning", ["spectral", "aol", "schatten"])
def test_what_comes_before_the_first_step_is_optax_s(preconditioning):
    g = {path: GRADS[path] for path in ("wide", "tall")}
    _, ours = directions(aj.scale_by_muon(preconditioning=preconditioning), g)
    _, theirs = directions(lenient(optax.contrib.muon(-1.0, preconditioning=preconditioning)), g)
    for path, direction in ours.items():
        np.testing.assert_allclose(direction, theirs[path], rtol=0, atol=1e-5)


@pytest.mark.parametrize("parts", [3, (16, 8, 8)])
def test_matrices_side_by_side_are_orthogonalized_one_by_one(parts):
    sizes = (8, 8, 8) if parts == 3 else parts
    blocks = [GRADS["tall"][i, :8, : n // 2] for i, n in enumerate(sizes)]
    blocks = [jnp.concatenate([block, block[::-1]], axis=1) for block in blocks]
    whole = orthogonalized({"qkv": jnp.concatenate(blocks, 1), "w": blocks[0]}, split={"qkv": parts})
    alone = [orthogonalized({"w": block})["w"] for block in blocks]
    np.testing.assert_allclose(whole["qkv"], jnp.concatenate(alone, 1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(whole["w"], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("moment_dtype", ["bfloat16", "packed", "packed8"])
def test_a_narrow_momentum_is_a_momentum(moment_dtype):
    g = {"w": GRADS["wide"]}
    state, narrow = directions(aj.scale_by_muon(moment_dtype=moment_dtype), g)
    _, wide = directions(aj.scale_by_muon(), g)
    assert state.mu["w"].dtype == jnp.bfloat16
    # bfloat16 has 8 bits, and the iteration makes small singular values, and what is wrong in them, larger.
    assert float(jnp.linalg.norm(narrow["w"] - wide["w"]) / jnp.linalg.norm(wide["w"])) < 0.02


def test_another_momentum_can_be_orthogonalized():
    g = {"w": GRADS["wide"]}
    chain = optax.chain(aj.scale_by_momentum(0.95, moment_dtype="float32"), aj.orthogonalize())
    _, ours = directions(chain, g)
    _, muon = directions(aj.scale_by_muon(nesterov=False), g)
    # A velocity is a momentum times a number, which does not matter.
    np.testing.assert_allclose(ours["w"], muon["w"], rtol=0, atol=3e-6)


def test_products_in_bfloat16_are_near():
    x = {path: GRADS[path][0] for path in ("wide", "tall")}
    wide, narrow = orthogonalized(x), orthogonalized(x, compute_dtype="bfloat16")
    for path, y in narrow.items():
        assert y.dtype == jnp.float32
        assert float(jnp.linalg.norm(y - wide[path]) / jnp.linalg.norm(wide[path])) < 0.1


def test_scales():
    x = {"tall": GRADS["tall"][0], "wide": GRADS["wide"][0]}
    plain, shape, rms = orthogonalized(x, scale=None), orthogonalized(x), orthogonalized(x, consistent_rms=0.2)
    np.testing.assert_allclose(shape["tall"], plain["tall"])
    np.testing.assert_allclose(shape["wide"], plain["wide"] * np.float32((20 / 8) ** 0.5))
    for path, y in rms.items():
        np.testing.assert_allclose(y, plain[path] * np.float32(0.2 * 20**0.5), rtol=1e-6)


def test_numbers_may_be_traced_and_leaves_empty():
    x = {"w": GRADS["wide"][0], "none": jnp.zeros((0, 4))}

    def run(x, beta, eps, rms, a):
        tx = aj.scale_by_muon(beta, eps=eps, consistent_rms=rms, coefficients=(a, -4.775, 2.0315))
        return tx.update(x, tx.init(x))[0]

    traced = quick_jit(run)(x, 0.95, 1e-8, 0.2, 3.4445)
    np.testing.assert_allclose(traced["w"], run(x, 0.95, 1e-8, 0.2, 3.4445)["w"], rtol=0, atol=1e-6)
    assert traced["none"].shape == (0, 4)


def test_axes_by_name_and_by_rule():
    x = {"attention": {"query": {"kernel": GRADS["attention/query"][0]}}, "blocks": {"w": GRADS["stack"][0]}}
    found = orthogonalized(x, {"blocks": "sio"})
    np.testing.assert_array_equal(found["blocks"]["w"], orthogonalized({"w": GRADS["stack"][0]}, Numbers(1, 2))["w"])
    query = orthogonalized({"w": GRADS["attention/query"][0]}, "ioo")["w"]
    np.testing.assert_array_equal(found["attention"]["query"]["kernel"], query)


def test_axes_of_an_optimizer_reach_its_direction():
    params = {"blocks": {"w": GRADS["stack"][0]}, "bias": jnp.ones(3)}
    chain = optax.chain(aj.scale_by_momentum(), aj.orthogonalize())
    for direction in (aj.scale_by_muon(), chain):
        tx = aj.decoupled({"bias": aj.scale_by_adam(), "": direction}, 1.0, axes={"blocks": "sio"}, freeze="bias")
        updates, _ = tx.update(params, tx.init(params), params)
        expected = orthogonalized({"w": GRADS["stack"][0]}, "sio")["w"]
        np.testing.assert_allclose(updates["blocks"]["w"], -expected, rtol=0, atol=3e-6)
        with pytest.raises(ValueError, match="`orthogonalize` must know which axes of 'blocks/w'"):
            aj.decoupled({"bias": aj.scale_by_adam(), "": direction}, 1.0).init(params)


def test_scanned_layers_train_as_separate_ones():
    """A residual network, its layers in a stack under `jax.lax.scan` and apart: Muon by path, norms held."""
    rng = np.random.default_rng(0)
    layers = jnp.asarray(rng.normal(size=(4, 16, 16)), jnp.float32) / 4
    x, y = (jnp.asarray(rng.normal(size=(64, 16)), jnp.float32) for _ in range(2))

    def layer(h, w):
        return h + jnp.tanh(h / jnp.linalg.norm(h, axis=1, keepdims=True) @ w), None

    def scanned(params):
        return jax.lax.scan(layer, x, params["blocks"]["w"])[0]

    def unrolled(params):
        h = x
        for w in params["blocks"].values():
            h, _ = layer(h, w)
        return h

    def train(body, blocks, **options):
        tx = aj.decoupled({"blocks": aj.scale_by_muon(), "": aj.scale_by_adam()}, 0.02, hold_norm="blocks", **options)
        params = {"blocks": blocks, "head": jnp.eye(16)}

        def step(carry, _):
            params, state = carry
            loss, grads = jax.value_and_grad(lambda p: jnp.mean((body(p) @ p["head"] - y) ** 2))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return quick_jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=50)[1])(params)

    together = train(scanned, {"w": layers}, axes={"blocks": "sio"})
    apart = train(unrolled, {f"layer_{i}": layers[i] for i in range(4)})
    np.testing.assert_allclose(together, apart, rtol=1e-4)
    assert together[-1] < 0.9 * together[0]
