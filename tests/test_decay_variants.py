"""The decay family: against float64 twins, against peers, and its laws."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from tests import reference_variants as twins
from tests.running import quick_jit

UPDATES = 12
ALPHA = 0.05
SCHEDULE = aj.cosine_warm_restarts(6, eta_min=0.1)
RNG = np.random.default_rng(0)
THETA = RNG.normal(size=(3, 4))
GRADIENTS = RNG.normal(size=(UPDATES, 3, 4))
ETA = [0.1 + 0.9 * (1 + np.cos(np.pi * (k % 6) / 5)) / 2 for k in range(UPDATES)]

TWINS = {
    "corrected": (
        aj.adamw(ALPHA, weight_decay=0.3, coupling="corrected", schedule=SCHEDULE),
        functools.partial(twins.corrected, alpha=ALPHA, l2=0.3, peak=ALPHA, normalized=True),
    ),
    "corrected elsewhere": (
        aj.adamw(ALPHA, weight_decay=0.3, coupling=aj.Corrected(lambda path, leaf: False), schedule=SCHEDULE),
        functools.partial(twins.corrected, alpha=ALPHA, l2=0.3, peak=ALPHA, normalized=False),
    ),
    "corrected with a peak": (
        aj.adamw(ALPHA, weight_decay=0.3, coupling=aj.Corrected(peak=0.2), schedule=lambda count: SCHEDULE(count)),
        functools.partial(twins.corrected, alpha=ALPHA, l2=0.3, peak=0.2, normalized=True),
    ),
    "cautious": (
        aj.adamw(ALPHA, weight_decay=lambda path, leaf: (0.02, 0.1), decay="cautious", schedule=SCHEDULE),
        functools.partial(twins.cautious, alpha=ALPHA, l1=0.02, l2=0.1),
    ),
    "cautious momentum": (
        aj.sgdw(ALPHA, weight_decay=0.1, decay="cautious", schedule=SCHEDULE),
        functools.partial(twins.cautious_momentum, alpha=ALPHA, l2=0.1),
    ),
    "Huber": (
        aj.adamw(ALPHA, weight_decay=0.1, decay=aj.Huber(0.5), schedule=SCHEDULE),
        functools.partial(twins.huber, alpha=ALPHA, l2=0.1, delta=0.5),
    ),
    "anchored": (
        aj.adamw(ALPHA, weight_decay=lambda path, leaf: (0.02, 0.1), decay="anchored", schedule=SCHEDULE),
        functools.partial(twins.anchored, alpha=ALPHA, l1=0.02, l2=0.1, anchor=THETA),
    ),
    "anchored elsewhere": (
        aj.adamw(
            ALPHA,
            weight_decay=0.1,
            decay=aj.Anchored(np.ones((3, 4))),
            schedule=SCHEDULE,
        ),
        functools.partial(twins.anchored, alpha=ALPHA, l1=0.0, l2=0.1, anchor=np.ones((3, 4))),
    ),
    "proximal": (
        aj.adamw(ALPHA, weight_decay=0.1, proximal_l1=0.1, schedule=SCHEDULE),
        functools.partial(twins.proximal, alpha=ALPHA, l1=0.1, l2=0.1),
    ),
}


def trajectory(tx, params, gradients):
    """The parameters after every update, in one program."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return quick_jit(lambda params, gradients: jax.lax.scan(step, (params, tx.init(params)), gradients)[1])(
        params, gradients
    )


@pytest.mark.parametrize("name", TWINS)
def test_a_variant_is_its_twin(name):
    tx, twin = TWINS[name]
    with jax.enable_x64(True):
        ours = trajectory(tx, jnp.asarray(THETA), jnp.asarray(GRADIENTS))
    theirs = twin(THETA, GRADIENTS, ETA)
    # Both in float64; what differs is the order of a dozen operations, twelve times over.
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TWINS)
def test_a_variant_differs_from_the_plain_decay(name):
    tx, _ = TWINS[name]
    plain = aj.adamw(ALPHA, weight_decay=0.1, schedule=SCHEDULE)
    ours, other = (trajectory(each, jnp.asarray(THETA), jnp.asarray(GRADIENTS))[-1] for each in (tx, plain))
    assert np.abs(np.asarray(ours) - np.asarray(other)).max() > 1e-3


RECORDED = json.loads((pathlib.Path(__file__).parent / "golden/variants/corrected.json").read_text())


@pytest.mark.parametrize(
    ("peer", "layers", "epsilon_hat"),
    [("timm", lambda path, leaf: True, False), ("kozistr", "dense", True)],
)
def test_the_corrected_coupling_has_the_peers_numbers(peer, layers, epsilon_hat):
    rates = jnp.asarray(RECORDED["rates"])
    with jax.enable_x64(True):
        params, gradients = (
            jax.tree.map(jnp.asarray, tree, is_leaf=lambda node: isinstance(node, list))
            for tree in (
                RECORDED["start"],
                {name: [step[name] for step in RECORDED["gradients"]] for name in RECORDED["start"]},
            )
        )
        tx = aj.adamw(
            RECORDED["rates"][0],
            b1=RECORDED["b1"],
            b2=RECORDED["b2"],
            epsilon_hat=epsilon_hat,
            weight_decay=RECORDED["weight_decay"],
            coupling=aj.Corrected(layers, peak=RECORDED["rates"][0]),
            schedule=lambda count: jnp.asarray(RECORDED["rates"])[count] / RECORDED["rates"][0],
        )
        ours = trajectory(tx, params, gradients)
    assert rates.shape == (6,)
    for name in ours:
        theirs = np.array([step[name] for step in RECORDED[peer]])
        # All in float64. timm and kozistr multiply by 1 - decay before they step; kozistr adds 1e-15 under the root.
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-11, atol=1e-13)


def test_peers_and_rules_differ_where_the_layer_is_not_normalized():
    timm, kozistr = (np.array([step["head"] for step in RECORDED[peer]]) for peer in ("timm", "kozistr"))
    assert np.abs(timm - kozistr).max() > 1e-3


def test_the_corrected_decay_of_the_default_rule_spares_vectors_embeddings_and_the_head():
    params = {name: jnp.ones((2, 2)) for name in ("embed", "dense", "head")} | {"bias": jnp.ones(2)}
    tx = aj.adamw(0.1, weight_decay=0.5, coupling="corrected", schedule=aj.cosine_warm_restarts(3))
    _, state = tx.update(optax.tree.zeros_like(params), tx.init(params), params)
    updates, _ = tx.update(optax.tree.zeros_like(params), state, params)
    # eta is 1 / 2 at the second update: 0.1 * 0.5 * 0.5, and half of that where corrected; one rounding each.
    expected = {"embed": -0.025, "dense": -0.0125, "head": -0.025, "bias": -0.025}
    for name, value in expected.items():
        np.testing.assert_allclose(updates[name], value, rtol=1e-6)


def test_a_proximal_decay_leaves_exact_zeros_and_a_subgradient_does_not():
    gradients = jnp.asarray(1e-3 * GRADIENTS, jnp.float32)
    params = jnp.asarray(0.1 * THETA, jnp.float32)
    soft = aj.sgdw(0.1, proximal_l1=0.03)
    hard = aj.sgdw(0.1, weight_decay=lambda path, leaf: (0.03, 0.0))
    assert (trajectory(soft, params, gradients)[-1] == 0).all()
    assert not (trajectory(hard, params, gradients)[-1] == 0).any()


@pytest.mark.parametrize(
    ("coupling", "factor"),
    [
        ("learning_rate", 0.1 * 0.5),
        ("schedule", 0.5),
        ("constant", 1.0),
        (aj.Corrected("w", peak=0.2), (0.1 * 0.5) ** 2 / 0.2),
        (aj.Corrected(lambda path, leaf: False, peak=0.2), 0.1 * 0.5),
    ],
    ids=["learning_rate", "schedule", "constant", "corrected", "not corrected"],
)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("preset", [aj.adamw, aj.sgdw])
def test_every_coupling_multiplies_decay_and_threshold_alike(preset, scaled, coupling, factor):
    params = {"w": jnp.array([2.0])}
    common = {
        "schedule": 0.5,
        "coupling": coupling,
        "normalize_decay": 4,
        "lr_multipliers": {"w": 0.25},
        "multiplier_scales_decay": scaled,
    }
    share = factor * 0.5 * (0.25 if scaled else 1.0)
    for tx, expected in (
        (preset(0.1, weight_decay=0.1, **common), 2 * 0.1 * share),
        (preset(0.1, weight_decay=0.1, decay="cautious", **common), 2 * 0.1 * share),
        (preset(0.1, proximal_l1=0.1, **common), 0.1 * share),
    ):
        updates, _ = tx.update(optax.tree.zeros_like(params), tx.init(params), params)
        # One float32 rounding of a weight of 2 in the threshold: 2.4e-7.
        np.testing.assert_allclose(updates["w"], -expected, rtol=1e-6, atol=2.4e-7)


def test_a_tiny_disagreement_of_signs_is_one():
    tx = aj.add_decoupled_decay(0.5, form="cautious")
    params = jnp.array([1e-30, -1e-30])
    updates, _ = tx.update(-params, tx.init(params), params)
    np.testing.assert_array_equal(updates, -params)


def test_anchors_are_a_copy_in_the_state():
    params = {"w": jnp.ones(3)}
    tx = aj.adamw(0.1, weight_decay=0.1, decay="anchored")

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = tx.update(optax.tree.zeros_like(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    params, state = step(params, state)
    np.testing.assert_array_equal(optax.tree.get(state, "anchors")["w"], 1.0)


CORRECTED = aj.DecayFactor(aj.Corrected("w", peak=1.0))
BAD = {
    "anchors of another structure": (
        lambda p: aj.add_decoupled_decay(0.1, form=aj.Anchored({"v": p["w"]})).init(p),
        r"`anchors` must have the structure of the parameters, .*'w'.*, got .*'v'",
    ),
    "anchors of another shape": (
        lambda p: aj.add_decoupled_decay(0.1, form=aj.Anchored({"w": jnp.ones(4)})).init(p),
        r"`anchors` must have the shapes of the parameters, \(2,\) at 'w', got \(4,\)",
    ),
    "delta": (lambda p: aj.Huber(0.0), r"`delta` must be a finite number in \(0, inf\), got 0"),
    "peak": (lambda p: aj.Corrected(peak=-1.0), r"`peak` must be a finite number in \(0, inf\), got -1"),
    "an unknown peak": (
        lambda p: aj.adamw(0.1, coupling="corrected", schedule=lambda count: 1.0),
        r"`coupling` must be Corrected\(peak=...\) where a function .*, got 'corrected'",
    ),
    "layers": (
        lambda p: aj.adamw(0.1, weight_decay=0.1, coupling=aj.Corrected("dense")).init(p),
        r"every pattern of `layers` must match a parameter path, got 'dense'.*'w'",
    ),
    "coupling": (lambda p: aj.adamw(0.1, coupling="other"), r"`coupling` must be one of .*'corrected', got 'other'"),
    "decay": (lambda p: aj.adamw(0.1, decay="other"), r"`decay` must be one of 'decoupled', .*, got 'other'"),
    "proximal_l1": (
        lambda p: aj.soft_threshold(-0.1).init(p),
        r"`proximal_l1` must be a finite number in \[0, inf\), got -0.1",
    ),
    "threshold's coupling": (
        lambda p: aj.soft_threshold(0.1, factor=aj.DecayFactor("other")),
        r"`coupling` must be one of 'learning_rate', 'schedule', 'constant', 'corrected', got 'other'",
    ),
    "no parameters": (
        lambda p: aj.soft_threshold(0.1).update(p, optax.EmptyState()),
        r"`params` must be given to update\(updates, state, params\) to shrink them, got None",
    ),
    "no alpha": (
        lambda p: aj.soft_threshold(0.1, factor=aj.DecayFactor("learning_rate")).update(p, optax.EmptyState(), p),
        r"the extra argument `alpha` must be given",
    ),
    "no alpha to correct": (
        lambda p: aj.add_decoupled_decay(0.1, factor=aj.DecayFactor(aj.Corrected("w", peak=1.0))).update(
            p, optax.EmptyState(), p
        ),
        r"the extra argument `alpha` must be given",
    ),
    "normalize": (
        lambda p: aj.add_decoupled_decay(0.1, form="cautious", normalize="run"),
        r"`normalize` must be None.*, got 'run'",
    ),
    "freeze": (lambda p: aj.adamw(0.1, freeze="v").init(p), r"every pattern of `freeze` must match .*, got 'v'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make({"w": jnp.ones(2)})


def test_a_flag_must_be_true_or_false():
    with pytest.raises(TypeError, match=r"`freeze at 'w'` must be True or False, got 1 of type int"):
        aj.adamw(0.1, freeze={"w": 1}).init({"w": jnp.ones(2)})
