"""The table of directions: what optax calls `scale_by_*` trains through `decoupled`, or is listed as no direction."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from sklearn.datasets import load_digits

import adamw_jax as aj
from tests.directions_table import ALIASES, DIRECTIONS, MADE_OF, NO_DIRECTIONS, as_markdown, found
from tests.running import quick_jit

ROOT = pathlib.Path(__file__).parents[1]
MESH = jax.sharding.AbstractMesh((8,), ("data",))
STEPS = 18


def test_every_name_that_optax_has_is_in_one_of_the_lists():
    assert sorted([*DIRECTIONS, *NO_DIRECTIONS]) == found()
    assert set(MADE_OF.values()) <= set(DIRECTIONS)
    assert set(MADE_OF) <= set(ALIASES)


def test_the_documentation_has_the_table():
    page = (ROOT / "benchmarks" / "results" / "directions.md").read_text()
    (table,) = re.findall(r"<!-- directions -->\n(.*?)<!-- /directions -->", page, re.DOTALL)
    assert table == as_markdown()


@functools.cache
def digits():
    images, labels = load_digits(return_X_y=True)
    return (images[:256] / 16).astype(np.float32), labels[:256]


def make_params():
    rng = np.random.default_rng(0)
    shapes = {"body": (64, 24), "head": (24, 10)}
    layers = {
        name: {
            "kernel": jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(m), jnp.float32),
            # Not zero, for some directions are multiples of the parameter's norm.
            "bias": jnp.full(n, 0.01),
        }
        for name, (m, n) in shapes.items()
    }
    return {**layers, "frozen": jnp.ones(3)}


def loss_of(params):
    x, labels = digits()
    hidden = jnp.tanh(x @ params["body"]["kernel"] + params["body"]["bias"]) * params["frozen"][0]
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def optimizer(case, decay):
    return aj.decoupled(
        case.make(),
        case.rate,
        weight_decay={"kernel": decay},
        schedule=aj.cosine_warm_restarts(6, eta_min=0.1),
        freeze="frozen",
    )


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_direction_trains_with_everything_that_decoupled_has(name):
    case, params = DIRECTIONS[name], make_params()
    tx = optimizer(case, 0.01)

    # The state is donated: it shares no buffer with the parameters, and no two leaves of it share one.
    @functools.partial(quick_jit, donate_argnums=1)
    def train(params, state, decay):
        tx = optimizer(case, decay)

        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss_of)(params)
            updates, state = tx.update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
            return (params, state), (value, params)

        (params, state), (losses, along) = jax.lax.scan(step, (params, state), length=STEPS)
        return state, losses, along

    state, losses, along = train(params, tx.init(params), 0.01)
    assert losses[-1] < 0.8 * losses[0], losses
    np.testing.assert_array_equal(along["frozen"], np.ones((STEPS, 3)))
    assert int(optax.tree.get(state, "cycle")) == 3

    # The first update has eta = 1; with and without decay it is the same but for the decay, and that of kernels only.
    _, _, without = train(params, tx.init(params), 0.0)
    assert train._cache_size() == 1
    for layer in ("body", "head"):
        kernel = params[layer]["kernel"]
        lost = without[layer]["kernel"][0] - along[layer]["kernel"][0]
        # A difference of float32 numbers around 1.
        np.testing.assert_allclose(lost, 0.01 * kernel, rtol=0, atol=3e-7)
        np.testing.assert_array_equal(without[layer]["bias"][0], along[layer]["bias"][0])

    table = aj.explain(tx, params)
    rows = {row["path"]: row for row in table.rows}
    assert table.totals["state_bytes"] == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert [path for path, row in rows.items() if row["frozen"]] == ["frozen"]
    assert [path for path, row in rows.items() if row["l2"] > 0] == ["body/kernel", "head/kernel"]

    placed = aj.state_shardings(tx, params, mesh=MESH, mode="zero1")
    assert jax.tree.structure(placed) == jax.tree.structure(state)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True):
        # Smaller leaves stay whole: see `min_size`.
        assert "data" in sharding.spec or leaf.shape != (64, 24), sharding


def random_tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {"dense": {"kernel": (6, 4), "bias": (4,)}, "head": {"kernel": (4, 3), "bias": (3,)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


GRADIENTS = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(random_tree(seed) for seed in range(1, 11)))


def after_ten(tx):
    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = random_tree(0)
    return quick_jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), GRADIENTS)[0][0])(params)


def assert_equal(ours, theirs, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), ours, theirs)


@pytest.mark.parametrize("name", ALIASES)
def test_a_direction_equals_its_alias_of_optax(name):
    alias = ALIASES[name]
    ours = aj.decoupled(alias.direction(), alias.rate, weight_decay=alias.decay, coupling="learning_rate")
    # alpha (d + l2 theta) against alpha d + alpha l2 theta: each of ten updates rounds a number near 1 otherwise.
    assert_equal(after_ten(ours), after_ten(alias.peer()), atol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("consistent_rms", [None, 0.2])
def test_muon_by_path_is_the_muon_of_optax(nesterov, consistent_rms):
    options = {"nesterov": nesterov, "consistent_rms": consistent_rms, "eps": 1e-7}
    peer = optax.contrib.muon(0.02, weight_decay=0.1, adam_weight_decay=0.1, adam_learning_rate=0.005, **options)
    ours = aj.decoupled(
        {"kernel": aj.scale_by_muon(**options), "": optax.scale_by_adam(eps=1e-7, nesterov=nesterov)},
        0.02,
        weight_decay=0.1,
        coupling="learning_rate",
        # optax has a rate for Adam's part, and its decay has it, too.
        lr_multipliers={"bias": 0.25},
        multiplier_scales_decay=True,
    )
    # Newton and Schulz's iteration makes what a rounding leaves a few times larger, and ten updates go on from it.
    assert_equal(after_ten(ours), after_ten(peer), atol=2e-5)
