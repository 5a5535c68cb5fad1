"""The recorded runs of keras-adamw 1.38 through the Keras classes, and every run that differs with the difference."""

import itertools

import jax
import keras
import numpy as np
import pytest

from adamw_jax.keras import SGDW, AdamW, NadamW
from tests import keras_golden
from tests.keras_golden import NAMES, PROBLEM, TRACES, load, within

CLASSES = {"AdamW": AdamW, "NadamW": NadamW, "SGDW": SGDW}

# keras-adamw's first update uses eta_t = 1.0 whatever eta_max and t_cur are; here it uses the schedule's own value,
# eta_min + (eta_max - eta_min) (1 + cos(pi t_cur / (T - 1))) / 2, unless eta_t is given.
FIRST_FACTOR = {"pub-ka-tfkeras-adamw-06", "pub-ka-tfkeras-adamw-09", "pub-ka-tfkeras-sgdw-04"}
# tf.keras AdamW takes `decay` and ignores it; here lr / (1 + decay * iterations), as in keras-adamw's other classes.
DECAY_IGNORED = {"pub-ka-tfkeras-adamw-12"}
# A multiplier also applies to every later variable in plain-Keras AdamW; by position, the same products can be given.
COMPOUNDING = {"pub-ka-keras-adamw-02"}
# tf.keras NadamW has mu_t instead of mu_{t+1} before m, and epsilon inside the root.
OTHER_NADAM = {f"pub-ka-tfkeras-nadamw-0{i}" for i in range(1, 5)}


def make(trace, **overrides):
    variables = []
    for name in NAMES:
        layer, weight = name.split("/")
        with keras.name_scope(layer):
            variables.append(keras.Variable(PROBLEM[f"p0/{name}"], name=weight))
    optimizer = CLASSES[trace["optimizer"]](**trace["args"] | {"init_verbose": False} | overrides)
    optimizer.build(variables)
    return optimizer, variables


def by_apply(optimizer, variables):
    def update(gradients):
        optimizer.apply(gradients, variables)

    return update


def by_stateless_apply(optimizer, variables):
    # Less optimization: one compilation per run is most of this file's time.
    step = jax.jit(optimizer.stateless_apply, compiler_options={"xla_backend_optimization_level": 0})

    def update(gradients):
        values, state = step([v.value for v in optimizer.variables], gradients, [v.value for v in variables])
        for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
            variable.assign(value)

    return update


def run(trace, how, steps=72, **overrides):
    """Yields the optimizer before each update with the values of the variables after it."""
    optimizer, variables = make(trace, **overrides)
    update = how(optimizer, variables)
    for step in range(steps):
        for at, name, value in trace["actions"]:
            if at == step:
                getattr(optimizer, name).assign(value)
        before = (int(optimizer.t_cur), float(optimizer.eta_t))
        update([PROBLEM[f"g/{name}"][step] for name in NAMES])
        yield optimizer, before, [v.numpy() for v in variables]


def overrides_of(trace):
    if trace["id"] in FIRST_FACTOR:
        return {"eta_t": 1.0}
    if trace["id"] in DECAY_IGNORED:
        return {"decay": 0.0}
    if trace["id"] in COMPOUNDING:
        rules = trace["args"]["lr_multipliers"].items()
        own = [next((r for key, r in rules if key in name), 1.0) for name in NAMES]
        return {"lr_multipliers": list(itertools.accumulate(own, lambda a, b: a * b))}
    return {}


@pytest.mark.parametrize("name", sorted(set(TRACES) - OTHER_NADAM))
def test_equals_keras_adamw_step_by_step(name):
    trace, recorded = TRACES[name], load(TRACES[name])
    for step, (optimizer, (t_cur, eta_t), values) in enumerate(
        run(trace, by_stateless_apply, **overrides_of(trace)), start=1
    ):
        assert within(trace, recorded, step, values), f"{name} after update {step}"
        assert t_cur == recorded["t_cur_before"][step - 1]
        assert int(optimizer.t_cur) == recorded["t_cur_after"][step - 1]
        # float32 cosine of an argument up to pi: a few units in the last place of 1.
        assert abs(eta_t - recorded["eta_used"][step - 1]) <= 5e-7
        assert abs(float(optimizer.eta_t) - recorded["eta_after"][step - 1]) <= 5e-7


# Op by op is slow: past the first restart (24) and the steps without gradient (20 to 22) for one run of each kind.
LONG = {f"pub-ka-{name}" for name in ("tfkeras-adamw-02", "tfkeras-adamw-07", "keras-nadamw-02", "tfkeras-sgdw-03")}


@pytest.mark.parametrize("name", sorted(set(TRACES) - OTHER_NADAM))
def test_apply_without_jit_is_the_same(name):
    trace, recorded = TRACES[name], load(TRACES[name])
    runs = run(trace, by_apply, steps=26 if name in LONG else 4, **overrides_of(trace))
    for step, (_, _, values) in enumerate(runs, start=1):
        assert within(trace, recorded, step, values), f"{name} after update {step}"


@pytest.mark.parametrize("name", sorted(OTHER_NADAM))
def test_tf_keras_nadamw_differs_by_mu_and_epsilon_alone(name):
    trace, recorded = TRACES[name], load(TRACES[name])
    theirs = keras_golden.nadamw(trace["args"], next_mu=False, epsilon_inside=True)
    ours = keras_golden.nadamw(trace["args"], next_mu=True, epsilon_inside=False)
    runs = run(trace, by_stateless_apply)
    for step, (their, our, (_, _, values)) in enumerate(zip(theirs, ours, runs, strict=True), start=1):
        assert within(trace, recorded, step, their)
        for value, expected, key in zip(values, our, NAMES, strict=True):
            error = np.abs(value - expected)
            if f"stable/{key}" in recorded and step > 1:
                error = np.where(np.abs(expected) < 1e-2, 0.0, error)
            assert error.max() <= trace["tol"]


@pytest.mark.parametrize("name", sorted(FIRST_FACTOR))
def test_the_first_update_uses_the_schedules_own_factor(name):
    trace = TRACES[name]
    args = {"eta_min": 0.0, "eta_max": 1.0, "t_cur": 0} | trace["args"]
    optimizer, _ = make(trace)
    angle = np.pi * args["t_cur"] / (args["total_iterations"] - 1)
    expected = args["eta_min"] + (args["eta_max"] - args["eta_min"]) * (1 + np.cos(angle)) / 2
    assert float(optimizer.eta_t) == pytest.approx(expected, rel=1e-6)
    assert load(trace)["eta_used"][0] == 1.0


def test_decay_divides_the_rate_of_adamw_too():
    # Against the run that ignored it: the first update has iterations = 0 and is the same, the second is not.
    trace = TRACES["pub-ka-tfkeras-adamw-12"]
    recorded = load(trace)
    values = [values for _, _, values in run(trace, by_stateless_apply, steps=2)]
    assert within(trace, recorded, 1, values[0])
    assert not within(trace, recorded, 2, values[1])


@pytest.mark.parametrize(
    ("name", "multiplier"),
    [("pub-ka-tfkeras-adamw-05", 1.0), ("pub-ka-tfkeras-adamw-07", 3.0), ("pub-ka-tfkeras-sgdw-02", 1.0)],
)
def test_lr_t_reads_as_in_keras_adamw(name, multiplier):
    # keras-adamw shows the rate of its last variable, multiplier included (3.0 in the second run).
    trace, recorded = TRACES[name], load(TRACES[name])
    for step, (optimizer, _, _) in enumerate(run(trace, by_stateless_apply, steps=30)):
        # 3 float32 operations and two powers.
        expected = recorded["lr_t_after"][step]
        assert float(optimizer.lr_t) * multiplier == pytest.approx(expected, rel=2e-5, abs=1e-9)
