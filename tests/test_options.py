"""Every option of the presets in one property: structure, finiteness, decay and freezing, whatever the combination."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings, strategies as st

import adamw_jax as aj

DELTA = 0.5
PARAMS = {
    "frozen": jnp.full((2, 2), 1.5),
    "still": jnp.full((2,), -1.5),
    "dense": {"kernel": jnp.array([[1.0, -2.0], [0.25, 3.0]]), "bias": jnp.array([0.5, -0.5])},
    "head": jnp.array([2.0, -1.0, 0.125]),
}
DECAYED = ("dense", "head")
DIRECTIONS = {
    aj.adamw: st.fixed_dictionaries(
        {},
        optional={
            "b1": st.sampled_from([0.0, 0.9]),
            "b2": st.sampled_from([0.5, 0.999]),
            "eps": st.sampled_from([1e-8, 1e-3]),
            "eps_root": st.sampled_from([0.0, 1e-8]),
            "epsilon_hat": st.booleans(),
            "amsgrad": st.booleans(),
        },
    ),
    aj.nadamw: st.fixed_dictionaries({}, optional={"momentum_decay": st.sampled_from([None, 0.0, 0.004])}),
    aj.sgdw: st.fixed_dictionaries({}, optional={"momentum": st.sampled_from([0.0, 0.9]), "nesterov": st.booleans()}),
}
FORMS = {
    "decoupled": "decoupled",
    "cautious": "cautious",
    "Huber": aj.Huber(DELTA),
    "anchored at zero": aj.Anchored(optax.tree.zeros_like(PARAMS)),
}
RESTARTS = aj.cosine_warm_restarts(4, t_mult=1.5, eta_min=0.1, eta_max=0.8, eta_max_decay=0.9, warmup=1)
DECAYS = st.tuples(st.sampled_from([0.0, 0.01]), st.floats(0.01, 0.3))
COMMON = st.fixed_dictionaries(
    {"weight_decay": DECAYS},
    optional={
        "decay": st.sampled_from(sorted(FORMS)),
        "coupling": st.sampled_from(
            ["learning_rate", "schedule", "constant", "corrected", aj.Corrected(["dense"], peak=0.2)]
        ),
        "normalize_decay": st.sampled_from([1, 10.5, "cycle"]),
        "multiplier_scales_decay": st.booleans(),
        "proximal_l1": st.sampled_from([0.0, {"head": 0.01}, 0.02]),
        "moment_dtype": st.sampled_from([None, "float32"]),
    },
)


@st.composite
def optimizers(draw):
    preset = draw(st.sampled_from(list(DIRECTIONS)))
    options = draw(DIRECTIONS[preset]) | draw(COMMON)
    pair = options["weight_decay"]
    options["weight_decay"] = draw(st.sampled_from([{".": pair}, lambda path, leaf: pair]))
    options["decay"] = FORMS[options.get("decay", "decoupled")]
    options["schedule"] = draw(st.sampled_from([RESTARTS, aj.linear_warmup(3), 0.5]))
    if options["schedule"] is not RESTARTS and options.get("normalize_decay") == "cycle":
        options["normalize_decay"] = 5
    if callable(options["schedule"]) and options["schedule"] is not RESTARTS and options.get("coupling") == "corrected":
        options["coupling"] = aj.Corrected(peak=0.1)
    options["lr_multipliers"] = {"still": 0.0, "dense": draw(st.sampled_from([0.25, 2.0]))}
    return preset(draw(st.sampled_from([0.1, jnp.float32(0.1)])), freeze="frozen", **options)


def kind(tree):
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def norms(params):
    return {name: [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(params[name])] for name in DECAYED}


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(tx=optimizers(), scale=st.sampled_from([0.0, 1e-12, 1.0, 1e12]), seed=st.integers(0, 99))
def test_any_combination_of_options(tx, scale, seed):
    rng = np.random.default_rng(seed)
    grads = jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), PARAMS)
    init = tx.init(PARAMS)

    # Structure is kept, and finite stays finite.
    params, state = PARAMS, init
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert kind(updates) == kind(PARAMS)
    assert kind(state) == kind(init)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((params, state)))

    # A multiplier of zero changes nothing, and neither does freezing.
    for name in ("frozen", "still"):
        np.testing.assert_array_equal(params[name], PARAMS[name])

    # Where the gradient is zero, the decay shrinks the weight.
    updates, _ = tx.update(optax.tree.zeros_like(PARAMS), init, PARAMS)
    before, after = norms(PARAMS), norms(optax.apply_updates(PARAMS, updates))
    for name in DECAYED:
        assert all(small < large for small, large in zip(after[name], before[name], strict=True))
