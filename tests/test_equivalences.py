"""The table of equivalences: which arguments make a preset equal to a peer, and which chain where no preset is.

Each row is code that the tests evaluate: optax and Keras run beside the library on random gradients; PyTorch, timm and
keras-adamw stand for themselves through their golden traces, replayed with the row's own call.
"""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

import adamw_jax
from tests.golden_recipes import load_index, load_problem, load_trace
from tests.running import quick_jit, values_of

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 40
VALUES = {"a": 0.01, "w": 0.1, "m": 0.9, "T": 12, "t_mult": 2}
"""What the names in the table stand for: learning rate, decay, momentum, length and ratio of the restart cycles."""


class Row(NamedTuple):
    ours: str
    optax: str = ""
    torch: str = ""
    keras: str = ""
    keras_adamw: str = ""
    timm: str = ""
    traces: tuple[tuple[str, dict[str, float]], ...] = ()


TABLE = [
    Row(
        'adamw(a, weight_decay=w, coupling="learning_rate")',
        optax="optax.adamw(a, weight_decay=w)",
        torch="AdamW(params, a, weight_decay=w)",
        timm="adamw, a, weight_decay=w",
        traces=(("pub-torch-adamw-01", {}), ("pub-timm-adamw-01", {}), ("pub-optax-adamw-01", {})),
    ),
    Row(
        'adamw(a, weight_decay=w, coupling="learning_rate", schedule=f)',
        optax="optax.adamw(lambda count: a * f(count), weight_decay=w)",
    ),
    Row(
        'adamw(a, weight_decay={"kernel": w}, coupling="learning_rate")',
        optax='optax.adamw(a, weight_decay=w, mask={"kernel": True, "bias": False})',
    ),
    Row(
        'adamw(a, eps=1e-6, weight_decay=w, coupling="learning_rate", amsgrad=True)',
        torch="AdamW(params, a, eps=1e-6, weight_decay=w, amsgrad=True)",
        traces=(("pub-torch-adamw-02", {"w": 0.05}),),
    ),
    Row(
        "with_learning_rate(a, chain(scale_by_amsgrad(max_of='nu_hat'), scale_by_rates('alpha'), scale(-1.0)))",
        optax="optax.amsgrad(a)",
    ),
    Row(
        'adamw(a, eps=1e-7, epsilon_hat=True, weight_decay=w, coupling="learning_rate")',
        keras="keras.optimizers.AdamW(a, weight_decay=w)",
        traces=(("pub-keras3-adamw-01", {}),),
    ),
    Row(
        'adamw(a, eps=1e-7, epsilon_hat=True, weight_decay={"kernel": w}, coupling="learning_rate", schedule=f)',
        keras="excluding(keras.optimizers.AdamW(CosineDecayRestarts(a, T, t_mul=2.0), weight_decay=w), 'bias')",
    ),
    Row(
        'adamw(a, eps=1e-7, epsilon_hat=True, weight_decay=w, coupling="learning_rate", amsgrad=True)',
        keras="keras.optimizers.AdamW(a, weight_decay=w, amsgrad=True)",
    ),
    Row(
        "adamw(a, eps=1e-7, epsilon_hat=True, weight_decay=l1_l2, normalize_decay=T, schedule=cosine_warm_restarts(T))",
        keras_adamw="AdamW(a, weight_decays=l1_l2, total_iterations=T, use_cosine_annealing=True)",
        traces=(("pub-ka-tfkeras-adamw-05", {"T": 24}), ("pub-ka-keras-adamw-01", {"T": 24})),
    ),
    Row(
        "adamw(a, weight_decay=w, schedule=f)",
        optax="chain(optax.scale_by_adam(), optax.scale_by_learning_rate(a), optax.add_decayed_weights(-w), "
        "optax.scale_by_schedule(f))",
    ),
    Row(
        'adamw(a, weight_decay=w, coupling="constant")',
        optax="chain(optax.adam(a), optax.add_decayed_weights(-w))",
    ),
    Row(
        'nadamw(a, momentum_decay=None, weight_decay=w, coupling="learning_rate")',
        optax="optax.nadamw(a, weight_decay=w)",
        traces=(("pub-optax-nadamw-01", {}),),
    ),
    Row(
        'nadamw(a, weight_decay=w, coupling="learning_rate")',
        torch="NAdam(params, a, weight_decay=w, decoupled_weight_decay=True)",
        traces=(("pub-torch-nadam-01", {}),),
    ),
    Row(
        'nadamw(a, eps=1e-7, momentum_decay=1.0, weight_decay=w, coupling="learning_rate")',
        keras="keras.optimizers.Nadam(a, weight_decay=w)",
        traces=(("pub-keras3-nadam-01", {}),),
    ),
    Row(
        "nadamw(a, eps=1e-7)",
        keras_adamw="NadamW(a) of the plain Keras file",
        traces=(("pub-ka-keras-nadamw-01", {"a": 0.002}),),
    ),
    Row(
        "with_learning_rate(a, chain(scale_by_nadam(momentum_decay=None, shared_correction=True), "
        "add_decoupled_decay(w), scale_by_rates('alpha'), scale(-1.0)))",
        timm="nadamw, a, weight_decay=w",
        traces=(("pub-timm-nadamw-01", {}),),
    ),
    Row(
        'sgdw(a, momentum=m, weight_decay=w, coupling="learning_rate")',
        optax="chain(optax.trace(m), optax.add_decayed_weights(w), optax.scale_by_learning_rate(a))",
        torch="SGD(params, a, momentum=m) after p.mul_(1 - a * w)",
        keras="keras.optimizers.SGD(a, momentum=m, weight_decay=w)",
        timm="sgdw, a, momentum=m, weight_decay=w",
        traces=tuple((f"pub-{name}-01", {"a": 0.05}) for name in ("torch-sgd", "timm-sgdw", "keras3-sgd")),
    ),
    Row(
        'sgdw(a, momentum=m, nesterov=True, weight_decay=w, coupling="learning_rate", schedule=f)',
        keras="keras.optimizers.SGD(CosineDecayRestarts(a, T, t_mul=2.0), momentum=m, nesterov=True, weight_decay=w)",
    ),
    Row(
        "with_learning_rate(a, with_schedule(f, chain(scale_by_momentum(m, nesterov=True), "
        "add_decoupled_decay(w), scale_by_rates('alpha', 'eta'), scale(-1.0))))",
        optax="chain(optax.trace(m, nesterov=True), optax.add_decayed_weights(w), "
        "optax.scale_by_learning_rate(lambda count: a * f(count)))",
        torch="SGD(params, a, momentum=m, nesterov=True) under CosineAnnealingWarmRestarts(T, T_mult=2)",
        traces=(("pub-torch-sgd-02", {"a": 0.05, "T": 10}),),
    ),
    Row(
        "sgdw(a, momentum=m, weight_decay=l1_l2, normalize_decay=T, schedule=cosine_warm_restarts(T))",
        keras_adamw="SGDW(a, momentum=m, weight_decays=l1_l2, total_iterations=T, use_cosine_annealing=True)",
        traces=(("pub-ka-tfkeras-sgdw-02", {"a": 0.05, "T": 24}),),
    ),
]

SCHEDULES = [
    Row("cosine(T)", optax="optax.cosine_decay_schedule(1.0, T)"),
    Row("cosine(T, warmup=3, end=0.1)", optax="optax.warmup_cosine_decay_schedule(0.0, 1.0, 3, T, 0.1)"),
    Row("linear(T)", optax="optax.linear_schedule(1.0, 0.0, T)"),
    Row(
        "linear(T, warmup=3, end=0.1)",
        optax="optax.join_schedules([optax.linear_schedule(0.0, 1.0, 3), optax.linear_schedule(1.0, 0.1, T - 3)], [3])",
    ),
    Row(
        "cosine_warm_restarts(T, t_mult=t_mult, endpoint=False)",
        optax="optax.sgdr_schedule([dict(init_value=1.0, peak_value=1.0, decay_steps=T * t_mult**i, warmup_steps=0, "
        "end_value=0.0) for i in range(4)])",
        torch="CosineAnnealingWarmRestarts(optimizer, T, T_mult=t_mult)",
        keras="CosineDecayRestarts(1.0, T, t_mul=t_mult)",
        traces=(("pub-sched-torchcawr-01", {"T": 10, "t_mult": 1}), ("pub-sched-kerascdr-01", {"T": 10})),
    ),
    Row(
        "cosine_warm_restarts(T, eta_max_decay=0.5, endpoint=False)",
        keras="CosineDecayRestarts(1.0, T, t_mul=1.0, m_mul=0.5)",
    ),
    Row(
        "cosine_warm_restarts(T, t_mult=2, eta_min=0.01, eta_max_decay=0.5, endpoint=False)",
        timm="CosineLRScheduler(optimizer, T, lr_min=0.01, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=n), lr = 1",
        traces=(("pub-sched-timmcosine-01", {"T": 10}),),
    ),
]
L1_L2 = {"kernel": (0.01, 0.1)}


def excluding(optimizer, name):
    optimizer.exclude_from_weight_decay(var_names=[name])
    return optimizer


def evaluate(code, **values):
    """The object that a cell of the table denotes."""
    names = {**VALUES, "l1_l2": L1_L2, **values}
    names["f"] = adamw_jax.cosine_warm_restarts(names["T"], t_mult=names["t_mult"], endpoint=False)
    tools = {"optax": optax, "keras": keras, "chain": optax.chain, "scale": optax.scale, "excluding": excluding,
             "CosineDecayRestarts": keras.optimizers.schedules.CosineDecayRestarts}  # fmt: skip
    return eval(code, {**vars(adamw_jax), **tools, **names})


def random_problem():
    """Gradients over three decades, with some that are exactly zero, for a layer of two leaves."""
    rng = np.random.default_rng(3)
    params = {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}
    gradients = {
        name: rng.normal(size=(STEPS, *value.shape)) * 10 ** rng.uniform(-3, 0, size=(STEPS, *value.shape))
        for name, value in params.items()
    }
    gradients["kernel"][:, 0] = 0.0
    return params, gradients


def trajectory_of(tx, params, gradients):
    """The parameters after each update, in the default float width."""
    params, gradients = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), (params, gradients))

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    @quick_jit
    def all_steps(params, gradients):
        return jax.lax.scan(step, (params, tx.init(params)), gradients)[1]

    return all_steps(params, gradients)


def keras_trajectory_of(optimizer, params, gradients):
    """The same for a Keras optimizer, in its float32."""
    variables = [keras.Variable(value.astype(np.float32), name=name) for name, value in params.items()]
    optimizer.build(variables)

    def step(carry, g):
        trainable, own = optimizer.stateless_apply(carry[1], g, carry[0])
        return (trainable, own), trainable

    @quick_jit
    def all_steps(trainable, own, gradients):
        return jax.lax.scan(step, (trainable, own), gradients)[1]

    own = [variable.value for variable in optimizer.variables]
    gradients = [jnp.asarray(gradients[name], jnp.float32) for name in params]
    return dict(zip(params, all_steps([v.value for v in variables], own, gradients), strict=True))


def rows_with(column):
    rows = [row for row in TABLE if getattr(row, column)]
    return pytest.mark.parametrize("row", rows, ids=lambda row: getattr(row, column))


@rows_with("optax")
def test_equals_optax(row):
    params, gradients = random_problem()
    with jax.enable_x64(True):
        ours, theirs = (trajectory_of(evaluate(code), params, gradients) for code in (row.ours, row.optax))
    for name in params:
        # float64 on both sides: only rounding differs.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-12)


@rows_with("keras")
def test_equals_keras(row):
    params, gradients = random_problem()
    ours = trajectory_of(evaluate(row.ours), params, gradients)
    theirs = keras_trajectory_of(evaluate(row.keras), params, gradients)
    for name in params:
        # float32 on both sides: 40 updates of parameters of order 1, each rounded at 6e-8.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=5e-6)


REPLAYS = [
    pytest.param(row.ours, trace, values, id=f"{trace}: {row.ours}") for row in TABLE for trace, values in row.traces
]
ENTRIES = {entry["id"]: entry for entry in load_index()}


@pytest.mark.parametrize(("ours", "identity", "values"), REPLAYS)
def test_equals_the_peers_trace(ours, identity, values):
    """PyTorch, timm and keras-adamw in person: the row's own call, replayed on the gradients of their trace."""
    entry = ENTRIES[identity]
    trace, (params, gradients) = load_trace(entry), load_problem(entry["problem"])
    pairs = {key.removesuffix(":0"): tuple(pair) for key, pair in entry["args"].get("weight_decays", {}).items()}
    trajectory = trajectory_of(evaluate(ours, **{"l1_l2": pairs, **values}), params, gradients)
    for name, result in trajectory.items():
        error = np.abs(result - trace[f"p/{name}"][1:])
        if f"stable/{name}" in trace:
            step = np.arange(1, len(error) + 1).reshape(-1, *[1] * (error.ndim - 1))
            error = np.where(step <= trace[f"stable/{name}"], error, 0.0)
        assert error.max() <= entry["tol"], name


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: row.ours)
def test_schedule_equals_peers(row):
    ours = values_of(evaluate(row.ours), 100)
    for code in filter(None, (row.optax, row.keras)):
        # float32 cosines of the peers, whose position in the cycle is itself rounded.
        np.testing.assert_allclose(ours, values_of(evaluate(code), 100), rtol=0, atol=2e-6)
    for identity, values in row.traces:
        value = load_trace(ENTRIES[identity])["value"]
        computed = values_of(evaluate(row.ours, **values), len(value))
        np.testing.assert_allclose(computed, value, rtol=0, atol=ENTRIES[identity]["tol"])


PEER_OF = {"ka-tfkeras": "keras_adamw", "ka-keras": "keras_adamw", "torch": "torch", "timm": "timm",
           "torch_cawr": "torch", "timm_cosine": "timm"}  # fmt: skip


def test_every_claim_has_its_evidence():
    """A cell for PyTorch, timm or keras-adamw comes with a trace of that package, and a trace with a cell."""
    for row in TABLE + SCHEDULES:
        kinds = {ENTRIES[identity].get("kind", ENTRIES[identity]["source"]) for identity, _ in row.traces}
        proven = {PEER_OF[kind] for kind in kinds if kind in PEER_OF}
        assert proven == {column for column in ("torch", "timm", "keras_adamw") if getattr(row, column)}, row.ours


def test_the_table_is_published():
    """The rows stand in the project's documents as they are tested here."""
    text = "".join(path.read_text() for path in (ROOT / "docs").glob("**/*.md"))
    for row in TABLE + SCHEDULES:
        for cell in filter(None, row[:-1]):
            assert f"`{cell}`" in text
