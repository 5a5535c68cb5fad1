"""Bad input: one row a mistake, with the text of its error: the argument, the rule and the value."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import adamw_jax as aj
from adamw_jax._rules.leaf import leaves_of, require_axes

PARAMS = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
RESTARTS = aj.cosine_warm_restarts(5)
TRAINED = (
    "take those that are trained, as nnx.state(model, nnx.Param) or equinox.filter(model, equinox.is_inexact_array), "
    "or freeze it"
)
NAN, INF = float("nan"), float("inf")
LETTERS = 'say it by a rule, axes={"<pattern>": "<letters>"}, with s for a stack, i for inputs, o for outputs'


def init(tx, params=PARAMS):
    return tx.init(params)


def update(tx, params=None):
    return tx.update(PARAMS, tx.init(PARAMS), params)


def transfer(base=None, target=None, rule="default", direction=None, direction_option=None, **options):
    run = aj.Run(PARAMS, 5, 8)
    given = {"learning_rate": 0.1, "weight_decay": 0.01} | options
    if direction_option is not None:
        given["direction"] = direction_option
    return aj.transfer(given, base or run, target or run, rule=rule, direction=direction)


ROWS = [
    (lambda: aj.adamw(0.1, b1=1.0), ValueError, "`b1` must be a finite number in [0, 1), got 1"),
    (lambda: aj.adamw(0.1, b1=-0.1), ValueError, "`b1` must be a finite number in [0, 1), got -0.1"),
    (lambda: aj.adamw(0.1, b2=1.5), ValueError, "`b2` must be a finite number in [0, 1), got 1.5"),
    (lambda: aj.adamw(0.1, b2=NAN), ValueError, "`b2` must be a finite number in [0, 1), got nan"),
    (lambda: aj.adamw(0.1, b1="0.9"), TypeError, "`b1` must be a number or a JAX scalar, got '0.9' of type str"),
    (lambda: aj.adamw(0.1, b1=True), TypeError, "`b1` must be a number or a JAX scalar, got True of type bool"),
    (
        lambda: aj.adamw(0.1, b1=jnp.ones(2)),
        TypeError,
        "`b1` must be a number or a JAX scalar, got Array([1., 1.], dtype=float32) of type ArrayImpl",
    ),
    (lambda: aj.adamw(0.1, b1=1j), TypeError, "`b1` must be a number or a JAX scalar, got 1j of type complex"),
    (lambda: aj.adamw(0.1, eps=0), ValueError, "`eps` must be a finite number in (0, inf), got 0"),
    (lambda: aj.adamw(0.1, eps=-1e-8), ValueError, "`eps` must be a finite number in (0, inf), got -1e-08"),
    (lambda: aj.adamw(0.1, eps="a"), TypeError, "`eps` must be a number or a JAX scalar, got 'a' of type str"),
    (lambda: aj.adamw(0.1, eps={"bias": 0}), ValueError, "`eps['bias']` must be a finite number in (0, inf), got 0"),
    (
        lambda: init(aj.adamw(0.1, eps={"ker": 1.0, "biass": 1.0})),
        ValueError,
        "every pattern of `eps` must match a parameter path, got 'biass', which matches none of the 2; "
        "the nearest are 'dense/bias', 'dense/kernel'",
    ),
    (
        lambda: init(aj.adamw(0.1, eps_root={"bias": -1.0})),
        ValueError,
        "`eps_root['bias']` must be a finite number in [0, inf), got -1",
    ),
    (lambda: aj.adamw(0.1, eps_root=-1.0), ValueError, "`eps_root` must be a finite number in [0, inf), got -1"),
    (lambda: aj.adamw(0.1, epsilon_hat=1), TypeError, "`epsilon_hat` must be True or False, got 1 of type int"),
    (lambda: aj.adamw(0.1, amsgrad="yes"), TypeError, "`amsgrad` must be True or False, got 'yes' of type str"),
    (lambda: aj.adamw(-0.1), ValueError, "`learning_rate` must be a finite number in [0, inf), got -0.1"),
    (lambda: aj.adamw(INF), ValueError, "`learning_rate` must be a finite number in [0, inf), got inf"),
    (lambda: aj.adamw(None), TypeError, "`learning_rate` must be a number or a JAX scalar, got None of type NoneType"),
    (lambda: aj.nadamw(0.1, b1=1), ValueError, "`b1` must be a finite number in [0, 1), got 1"),
    (
        lambda: aj.nadamw(0.1, momentum_decay=-1),
        ValueError,
        "`momentum_decay` must be a finite number in [0, inf), got -1",
    ),
    (lambda: aj.sgdw(0.1, momentum=1.0), ValueError, "`momentum` must be a finite number in [0, 1), got 1"),
    (lambda: aj.sgdw(0.1, momentum=-0.5), ValueError, "`momentum` must be a finite number in [0, 1), got -0.5"),
    (lambda: aj.sgdw(0.1, nesterov=0), TypeError, "`nesterov` must be True or False, got 0 of type int"),
    (lambda: aj.scale_by_amsgrad(max_of="mu"), ValueError, "`max_of` must be one of 'nu', 'nu_hat', got 'mu'"),
    (
        lambda: aj.scale_by_amsgrad(max_of="nu_hat", epsilon_hat=True),
        ValueError,
        "`epsilon_hat` must be False with max_of='nu_hat', got True",
    ),
    (
        lambda: aj.scale_by_nadam(shared_correction=None),
        TypeError,
        "`shared_correction` must be True or False, got None of type NoneType",
    ),
    (
        lambda: aj.adamw(0.1, moment_dtype="int32"),
        ValueError,
        "`moment_dtype` must be None, 'packed', 'packed8', bfloat16, float32 or float64, got int32",
    ),
    (
        lambda: aj.adamw(0.1, moment_dtype="no dtype"),
        TypeError,
        "`moment_dtype` must be None, 'packed', 'packed8' or a floating dtype, got 'no dtype'",
    ),
    (
        lambda: aj.adamw(0.1, coupling="optax"),
        ValueError,
        "`coupling` must be one of 'learning_rate', 'schedule', 'constant', 'corrected', got 'optax'",
    ),
    (
        lambda: aj.adamw(0.1, coupling=None),
        ValueError,
        "`coupling` must be one of 'learning_rate', 'schedule', 'constant', 'corrected', got None",
    ),
    (
        lambda: aj.adamw(0.1, multiplier_scales_decay=2),
        TypeError,
        "`multiplier_scales_decay` must be True or False, got 2 of type int",
    ),
    (
        lambda: aj.adamw(0.1, normalize_decay="run"),
        ValueError,
        "`normalize_decay` must be None, a number or 'cycle', got 'run'",
    ),
    (
        lambda: aj.adamw(0.1, normalize_decay=0),
        ValueError,
        "`normalize_decay` must be a finite number in [1, inf), got 0",
    ),
    (
        lambda: aj.adamw(0.1, normalize_decay="cycle"),
        ValueError,
        ("`normalize_decay` must not be 'cycle' unless `schedule` is from cosine_warm_restarts, got schedule=None"),
    ),
    (
        lambda: aj.sgdw(0.1, normalize_decay="cycle", schedule=lambda c: 1.0),
        ValueError,
        (
            "`normalize_decay` must not be 'cycle' unless `schedule` is from cosine_warm_restarts, got "
            "schedule=<function>"
        ),
    ),
    (lambda: aj.adamw(0.1, schedule=-1.0), ValueError, "`schedule` must be a finite number in [0, inf), got -1"),
    (
        lambda: aj.adamw(0.1, schedule="cosine"),
        TypeError,
        "`schedule` must be a number or a JAX scalar, got 'cosine' of type str",
    ),
    (
        lambda: aj.adamw(lambda c: 0.1, weight_decay=0.1),
        ValueError,
        (
            "`learning_rate` must be a number with a decay and coupling='schedule', for only its peak could "
            "say how much of it is eta, got <function>: write learning_rate=peak, schedule=lambda count: "
            "rate(count) / peak to schedule the decay with the step, or coupling='learning_rate' to multiply"
            " the decay by the rate as optax does"
        ),
    ),
    (
        lambda: aj.adamw(lambda c: 0.1, weight_decay={"kernel": 0.1}),
        ValueError,
        (
            "`learning_rate` must be a number with a decay and coupling='schedule', for only its peak could "
            "say how much of it is eta, got <function>: write learning_rate=peak, schedule=lambda count: "
            "rate(count) / peak to schedule the decay with the step, or coupling='learning_rate' to multiply"
            " the decay by the rate as optax does"
        ),
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=-0.1)),
        ValueError,
        "`weight_decay` must be a finite number in [0, inf), got -0.1",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=NAN)),
        ValueError,
        "`weight_decay` must be a finite number in [0, inf), got nan",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=(0.1, INF))),
        ValueError,
        "`weight_decay l2` must be a finite number in [0, inf), got inf",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=(-1, 0.1))),
        ValueError,
        "`weight_decay l1` must be a finite number in [0, inf), got -1",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=(1, 1, 1))),
        ValueError,
        (
            "`weight_decay` must be a tree with the structure of the parameters, PyTreeDef({'dense': "
            "{'bias': *, 'kernel': *}}), got PyTreeDef((*, *, *))"
        ),
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"kernel": (1, 1, 1)})),
        ValueError,
        "`weight_decay['kernel']` must be a number l2 or a pair (l1, l2), got (1, 1, 1)",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=None)),
        TypeError,
        "`weight_decay` must be a number, a mapping, a function or a tree of values, got None",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay="0.1")),
        TypeError,
        "`weight_decay` must be a number, a mapping, a function or a tree of values, got '0.1'",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"kernl": 0.1})),
        ValueError,
        (
            "every pattern of `weight_decay` must match a parameter path, got 'kernl', which matches none of"
            " the 2; the nearest are 'dense/kernel', 'dense/bias'"
        ),
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"[": 0.1})),
        ValueError,
        ("`weight_decay` must have regular expressions as keys, got '[': unterminated character set at position 0"),
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"kernel": "x"})),
        TypeError,
        "`weight_decay['kernel']` must be a number or a JAX scalar, got 'x' of type str",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"kernel": -1})),
        ValueError,
        "`weight_decay['kernel']` must be a finite number in [0, inf), got -1",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=lambda p, x: None)),
        TypeError,
        "`weight_decay('dense/bias')` must be a number or a JAX scalar, got None of type NoneType",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=[0.1, 0.2])),
        ValueError,
        (
            "`weight_decay` must be a tree with the structure of the parameters, PyTreeDef({'dense': "
            "{'bias': *, 'kernel': *}}), got PyTreeDef([*, *])"
        ),
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=(0.1, 0.2)), (1.0, 1.0)),
        ValueError,
        (
            "`weight_decay` must say whether a pair is (l1, l2) or a tree when the parameters are a pair of "
            'arrays: {"": (l1, l2)} gives all leaves the pair, a function (path, leaf) -> value each its own, got '
            "(0.1, 0.2)"
        ),
    ),
    (
        lambda: init(aj.adamw(0.1, lr_multipliers={"nothing": 2})),
        ValueError,
        (
            "every pattern of `lr_multipliers` must match a parameter path, got 'nothing', which matches "
            "none of the 2; the nearest are 'dense/bias', 'dense/kernel'"
        ),
    ),
    (
        lambda: init(aj.adamw(0.1, proximal_l1={"kernl": 0.1})),
        ValueError,
        "every pattern of `proximal_l1` must match a parameter path, got 'kernl', which matches none of the 2; the "
        "nearest are 'dense/kernel', 'dense/bias'",
    ),
    (
        lambda: init(aj.adamw(0.1, lr_multipliers=-2.0)),
        ValueError,
        "`lr_multipliers` must be a finite number in [0, inf), got -2",
    ),
    (
        lambda: init(aj.adamw(0.1, lr_multipliers=(1.0, 2.0))),
        TypeError,
        "`lr_multipliers` must be a number or a JAX scalar, got (1.0, 2.0) of type tuple: a pair (l1, l2) is a "
        "decay's; give one number per leaf, or a tree of numbers in the parameters' structure",
    ),
    (
        lambda: init(aj.adamw(0.1, proximal_l1={"kernel": (1.0, 2.0)})),
        TypeError,
        "`proximal_l1['kernel']` must be a number or a JAX scalar, got (1.0, 2.0) of type tuple: a pair (l1, l2) is a "
        "decay's; give one number per leaf, or a tree of numbers in the parameters' structure",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"dense": (0.0, 0.1)}), {"dense": (1.0, 1.0), "head": 1.0}),
        ValueError,
        "`weight_decay['dense']` must say whether a pair is (l1, l2) or two values, for the parameters have a pair at "
        """'dense', got (0.0, 0.1): write {"dense/": (l1, l2)}, or {"dense/0": ..., "dense/1": ...}""",
    ),
    (
        lambda: aj.adamw(0.1, weight_decay="0.1"),
        TypeError,
        "`weight_decay` must be a number, a mapping, a function or a tree of values, got '0.1'",
    ),
    (
        lambda: aj.adamw(0.1, weight_decay=lambda params: params),
        TypeError,
        "`weight_decay` must be a rule (path, leaf) -> value where it is a function, got <function>, which requires 1 "
        """argument: a schedule count -> value is written {"": schedule}; a rule requires path and leaf; in the """
        "place of a mask params -> tree give the tree, mask(params)",
    ),
    (
        lambda: init(aj.adamw(0.1, freeze=lambda params: params)),
        TypeError,
        "`freeze` must be a rule (path, leaf) -> value where it is a function, got <function>, which requires 1 "
        "argument: a rule requires path and leaf; in the place of a mask params -> tree give the tree, mask(params)",
    ),
    (
        lambda: init(optax.inject_hyperparams(aj.adamw)(0.1, weight_decay=aj.matrices(0.1))),
        TypeError,
        "`matrices` is a rule (path, leaf) -> value, got a call with Array(0, dtype=int32): optax.inject_hyperparams "
        'takes functions for schedules, name the option in its `static_args`, as in static_args="weight_decay"',
    ),
    (
        lambda: aj.adamw(0.1).update(jax.tree.map(lambda p: p.astype(int), PARAMS), aj.adamw(0.1).init(PARAMS), PARAMS),
        TypeError,
        "`updates` must have real floating leaves where `params` has, got int32 at 'dense/bias'",
    ),
    (
        lambda: aj.adamw(0.1).update(jax.tree.map(lambda p: p[..., :1], PARAMS), aj.adamw(0.1).init(PARAMS), PARAMS),
        ValueError,
        "`updates` must have the shapes of `params`, (2,) at 'dense/bias', got (1,)",
    ),
    (
        lambda: aj.scale_by_adam().update(jax.tree.map(lambda p: p[..., :1], PARAMS), aj.scale_by_adam().init(PARAMS)),
        ValueError,
        "updates, parameters and the state's moments must have one shape, got [(1,), (2,), (2,)] at 'dense/bias'",
    ),
    (
        lambda: init(aj.adamw(0.1, lr_multipliers={"dense": {"kernel": -1, "bias": 1}})),
        ValueError,
        "`lr_multipliers at 'dense/kernel'` must be a finite number in [0, inf), got -1",
    ),
    (
        lambda: init(aj.adamw(0.1), {"n": jnp.ones(2, int)}),
        TypeError,
        "`params` must have real floating leaves, got int32 at 'n': " + TRAINED,
    ),
    (
        lambda: init(aj.sgdw(0.1), {"z": jnp.ones(2, complex)}),
        TypeError,
        "`params` must have real floating leaves, got complex64 at 'z': " + TRAINED,
    ),
    (
        lambda: init(aj.nadamw(0.1), jnp.ones(2, bool)),
        TypeError,
        "`params` must have real floating leaves, got bool at 'the only leaf': " + TRAINED,
    ),
    (
        lambda: update(aj.adamw(0.1, weight_decay=0.1)),
        ValueError,
        "`params` must be given to update(updates, state, params) to decay them, got None",
    ),
    (
        lambda: update(aj.sgdw(0.1, weight_decay=0.1)),
        ValueError,
        "`params` must be given to update(updates, state, params) to decay them, got None",
    ),
    (
        lambda: update(aj.add_decoupled_decay(0.1, normalize="cycle"), PARAMS),
        ValueError,
        "`normalize_decay` must not be 'cycle' outside of with_schedule, got 'cycle'",
    ),
    (
        lambda: aj.add_decoupled_decay(0.1, normalize="run"),
        ValueError,
        "`normalize` must be None, a number or 'cycle', got 'run'",
    ),
    (
        lambda: update(aj.scale_by_rates("alpha")),
        ValueError,
        "the extra argument `alpha` must be given: put the stage inside with_learning_rate, got None",
    ),
    (
        lambda: aj.scale_by_rates("lr"),
        ValueError,
        "`names` must be one of 'alpha', 'eta', got 'lr'",
    ),
    (
        lambda: aj.scale_by_rates("alpha", "alpha"),
        ValueError,
        "`names` must be 'alpha', 'eta' or both, each once, got ('alpha', 'alpha')",
    ),
    (
        lambda: aj.scale_by_rates(),
        ValueError,
        "`names` must be 'alpha', 'eta' or both, each once, got ()",
    ),
    (
        lambda: update(aj.scale_by_rates("eta")),
        ValueError,
        "the extra argument `eta` must be given: put the stage inside with_schedule, got None",
    ),
    (
        lambda: aj.scale_by_adam().update([jnp.ones(2)], aj.scale_by_adam().init(PARAMS)),
        ValueError,
        (
            "updates, parameters and the state's moments must have one structure, got PyTreeDef([*]) and "
            "PyTreeDef({'dense': {'bias': *, 'kernel': *}})"
        ),
    ),
    (
        lambda: aj.cosine(100, warmup=100),
        ValueError,
        "`warmup` must be less than `updates`, which contain it, got 100 of 100 updates",
    ),
    (
        lambda: aj.linear(100, 200),
        ValueError,
        "`warmup` must be less than `updates`, which contain it, got 200 of 100 updates",
    ),
    (lambda: aj.linear(100, end=1.5), ValueError, "`end` must be a finite number in [0, 1], got 1.5"),
    (lambda: aj.cosine(100, end=-0.1), ValueError, "`end` must be a finite number in [0, 1], got -0.1"),
    (
        lambda: aj.cosine(0.5),
        ValueError,
        "`updates` must be an integer from 1 to 2147483647, got 0.5: a count, not a share or a rate",
    ),
    (lambda: aj.cosine_warm_restarts(0), ValueError, "`period` must be an integer from 1 to 2147483647, got 0"),
    (lambda: aj.cosine_warm_restarts(2.5), ValueError, "`period` must be an integer from 1 to 2147483647, got 2.5"),
    (
        lambda: aj.cosine_warm_restarts(2**31),
        ValueError,
        "`period` must be an integer from 1 to 2147483647, got 2147483648",
    ),
    (
        lambda: aj.cosine_warm_restarts("10"),
        TypeError,
        "`period` must be a number or a JAX scalar, got '10' of type str",
    ),
    (lambda: aj.cosine_warm_restarts(5, t_mult=0), ValueError, "`t_mult` must be a finite number in (0, inf), got 0"),
    (
        lambda: aj.cosine_warm_restarts(5, eta_min=1, eta_max=0.5),
        ValueError,
        "`eta_min` must not be above `eta_max`, got 1 and 0.5",
    ),
    (
        lambda: aj.cosine_warm_restarts(5, eta_min=-0.1),
        ValueError,
        "`eta_min` must be a finite number in [0, inf), got -0.1",
    ),
    (
        lambda: aj.cosine_warm_restarts(5, eta_max_decay=0),
        ValueError,
        "`eta_max_decay` must be a finite number in (0, inf), got 0",
    ),
    (
        lambda: aj.cosine_warm_restarts(5, t_mult=2, autorestart=False),
        ValueError,
        "`t_mult` must be 1 with autorestart=False, for no further cycle begins, got 2",
    ),
    (
        lambda: aj.cosine_warm_restarts(5, eta_max_decay=0.5, autorestart=False),
        ValueError,
        "`eta_max_decay` must be 1 with autorestart=False, for no further cycle begins, got 0.5",
    ),
    (
        lambda: aj.cosine_warm_restarts(5, warmup=-1),
        ValueError,
        "`warmup` must be an integer from 0 to 2147483647, got -1",
    ),
    (
        lambda: aj.cosine_warm_restarts(5, endpoint="no"),
        TypeError,
        "`endpoint` must be True or False, got 'no' of type str",
    ),
    (
        lambda: aj.restart(aj.adamw(0.1).init(PARAMS)),
        ValueError,
        "`state` must contain a ScheduleState, got LearningRateState without one",
    ),
    (
        lambda: aj.current((1, 2)),
        ValueError,
        "`state` must contain a LearningRateState or a ScheduleState, got tuple without one",
    ),
    (
        lambda: aj.restart(init(aj.adamw(0.1, schedule=RESTARTS)), period=0),
        ValueError,
        "`period` must be an integer from 1 to 2147483647, got 0",
    ),
    (
        lambda: aj.set_position(init(aj.adamw(0.1, schedule=RESTARTS)), 1.5),
        ValueError,
        "`t_cur` must be an integer from -2147483647 to 2147483647, got 1.5",
    ),
    (
        lambda: aj.set_position(init(aj.adamw(0.1, schedule=RESTARTS)), 1, eta=-1),
        ValueError,
        "`eta` must be a finite number in [0, inf), got -1",
    ),
    (
        lambda: aj.set_position(init(aj.adamw(0.1, schedule=RESTARTS)), 1, cycle=-1),
        ValueError,
        "`cycle` must be an integer from 0 to 2147483647, got -1",
    ),
    (
        lambda: init(aj.adamw(0.1, lr_multipliers={"kernel": jnp.ones(3)}, axes={"kernel": "io"})),
        ValueError,
        "`lr_multipliers` must give one number to 'dense/kernel' of shape (2, 2), which has no axis of a stack as "
        f"far as is known, got (3,): {LETTERS}",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"w": jnp.ones(2)}, axes={"w": "sio"}), {"w": jnp.ones((3, 2, 2))}),
        ValueError,
        "`weight_decay` must have one number for each of the (3,) layers in the stack 'w' of shape (3, 2, 2), got (2,)",
    ),
    (
        lambda: leaves_of(PARAMS, {"kernl": "io"}),
        ValueError,
        "every pattern of `axes` must match a parameter path, got 'kernl', which matches none of the 2; the nearest "
        "are 'dense/kernel', 'dense/bias'",
    ),
    (
        lambda: leaves_of(PARAMS, {"kernel": "sio"}),
        ValueError,
        "`axes` must have one letter for each axis of 'dense/kernel', whose shape is (2, 2), got 'sio': "
        f"{LETTERS}; the first pattern that is found in a path decides",
    ),
    (
        lambda: leaves_of(PARAMS, "ii"),
        ValueError,
        "`axes` must have an i for inputs and an o for outputs, as in 'io', got 'ii'",
    ),
    (
        lambda: leaves_of(PARAMS, {"kernel": "xo"}),
        ValueError,
        "`axes['kernel']` must have the letters s (stack), i (inputs), o (outputs) only, got 'xo'",
    ),
    (
        lambda: leaves_of(PARAMS, 3),
        TypeError,
        "`axes` must be letters such as 'sio', or MuonDimensionNumbers, got 3",
    ),
    (
        lambda: require_axes("hold_norm", leaves_of({"w": jnp.ones((3, 2, 2))})[0]),
        ValueError,
        "`hold_norm` must know which axes of 'w' are inputs and outputs, got shape (3, 2, 2), which could be 'sio' or "
        f"'ioo' or 'iio': {LETTERS}",
    ),
    (
        lambda: require_axes("hold_norm", leaves_of(PARAMS)[0]),
        ValueError,
        "`hold_norm` is for leaves with inputs and outputs, got the bias 'dense/bias' of shape (2,), which is one "
        f"by its name 'bias': leave it out by its path, or {LETTERS}",
    ),
    (
        lambda: aj.decoupled(None, 0.1),
        TypeError,
        "`direction` must be an optax.GradientTransformation that points uphill, got None",
    ),
    (
        lambda: aj.decoupled("lion", 0.1),
        TypeError,
        "`direction` must be an optax.GradientTransformation that points uphill, got 'lion'",
    ),
    (
        lambda: aj.decoupled(optax.scale_by_lion, 0.1),
        TypeError,
        (
            "`direction` must be an optax.GradientTransformation that points uphill, got <function>; call it: "
            "scale_by_lion()"
        ),
    ),
    (
        lambda: aj.decoupled(optax.GradientTransformation, 0.1),
        TypeError,
        (
            "`direction` must be an optax.GradientTransformation that points uphill, got <class "
            "'optax._src.base.GradientTransformation'>; call it: GradientTransformation()"
        ),
    ),
    (
        lambda: aj.decoupled(aj.adamw(0.1), 0.1),
        ValueError,
        (
            "`direction` must be an optax.GradientTransformation that points uphill, got an optimizer, which points "
            "downhill and has a rate in it: give what it is made of, as scale_by_adam()"
        ),
    ),
    (
        lambda: aj.decoupled({"kernel": aj.scale_by_muon, "": aj.scale_by_adam()}, 0.1),
        TypeError,
        (
            "`direction['kernel']` must be an optax.GradientTransformation that points uphill, got <function>; call "
            "it: scale_by_muon()"
        ),
    ),
    (lambda: aj.decoupled({}, 0.1), ValueError, "`direction` must have a pattern at least, got {}"),
    (
        lambda: aj.decoupled({0: aj.scale_by_adam()}, 0.1),
        TypeError,
        "`direction` must have patterns as keys, got 0",
    ),
    (
        lambda: init(aj.decoupled({"kernel": aj.scale_by_adam()}, 0.1)),
        ValueError,
        (
            "`direction` must have a pattern for every parameter, got none for 'dense/bias'; \"\" as the last pattern "
            "takes what the others leave"
        ),
    ),
    (
        lambda: init(aj.decoupled({"kernle": aj.scale_by_adam(), "": aj.scale_by_adam()}, 0.1)),
        ValueError,
        (
            "every pattern of `direction` must match a parameter path, got 'kernle', which matches none of the 2; the "
            "nearest are 'dense/kernel', 'dense/bias'"
        ),
    ),
    (
        lambda: init(aj.decoupled({"": aj.scale_by_adam(), "kernel": aj.scale_by_muon()}, 0.1)),
        ValueError,
        "every pattern of `direction` must decide about a parameter, got 'kernel', before which '' comes",
    ),
    (
        lambda: init(aj.decoupled(aj.scale_by_muon(), 0.1)),
        ValueError,
        (
            "`orthogonalize`, and so `scale_by_muon`, is for matrices, leaves with inputs and outputs, got the bias "
            "'dense/bias' of shape (2,), which is one by its name 'bias': give other leaves another direction by their "
            'paths, as in {"kernel": scale_by_muon(), "": scale_by_adam()}'
        ),
    ),
    (
        lambda: init(aj.scale_by_muon(), {"w": jnp.ones((3, 2, 2))}),
        ValueError,
        (
            "`orthogonalize` must know which axes of 'w' are inputs and outputs, got shape (3, 2, 2), which could be "
            "'sio' or 'ioo' or 'iio': say it by a rule, axes={\"<pattern>\": \"<letters>\"}, with s for a stack, i for "
            "inputs, o for outputs"
        ),
    ),
    (
        lambda: init(aj.orthogonalize("sio"), {"w": jnp.ones((2, 2))}),
        ValueError,
        (
            "`axes` must have one letter for each axis of 'w', whose shape is (2, 2), got 'sio': say it by a rule, "
            'axes={"<pattern>": "<letters>"}, with s for a stack, i for inputs, o for outputs; the first pattern that '
            "is found in a path decides"
        ),
    ),
    (
        lambda: aj.orthogonalize(coefficients="dion"),
        ValueError,
        "`coefficients` must be one of 'jordan', 'polar_express', or triples (a, b, c), got 'dion'",
    ),
    (
        lambda: aj.orthogonalize(coefficients=[(1.0, 2.0)]),
        ValueError,
        (
            "`coefficients` must be 'jordan', 'polar_express', a triple (a, b, c) or a sequence of triples, got "
            "[(1.0, 2.0)]"
        ),
    ),
    (
        lambda: aj.orthogonalize(coefficients=3.4),
        TypeError,
        "`coefficients` must be 'jordan', 'polar_express', a triple (a, b, c) or a sequence of triples, got 3.4",
    ),
    (
        lambda: aj.orthogonalize(coefficients=[(1.0, 0.0, 0.0)] * 2, steps=3),
        ValueError,
        "`steps` must be the number of triples in `coefficients`, 2, or None, got 3",
    ),
    (lambda: aj.scale_by_muon(ns_steps=0), ValueError, "`steps` must be an integer from 1 to 2147483647, got 0"),
    (
        lambda: aj.scale_by_muon(steps=5, ns_steps=4),
        TypeError,
        "`steps` and `ns_steps` are one argument, got both, 5 and 4",
    ),
    (lambda: aj.orthogonalize(eps=0.0), ValueError, "`eps` must be a finite number in (0, inf), got 0"),
    (lambda: aj.orthogonalize(scale="rms"), ValueError, "`scale` must be one of None, 'shape', got 'rms'"),
    (
        lambda: aj.orthogonalize(scale=None, consistent_rms=0.2),
        ValueError,
        "`scale` must be 'shape' with `consistent_rms`, got None and 0.2",
    ),
    (
        lambda: aj.orthogonalize(consistent_rms=0),
        ValueError,
        "`consistent_rms` must be a finite number in (0, inf), got 0",
    ),
    (
        lambda: aj.orthogonalize(compute_dtype="float16"),
        ValueError,
        "`compute_dtype` must be None, bfloat16, float32 or float64, got 'float16'",
    ),
    (
        lambda: aj.orthogonalize(preconditioning="none"),
        ValueError,
        "`preconditioning` must be one of 'frobenius', 'spectral', 'aol', 'schatten', got 'none'",
    ),
    (
        lambda: aj.orthogonalize(distribute="whole"),
        ValueError,
        "`distribute` must be one of 'owned', 'gather', 'auto', or None, got 'whole'",
    ),
    (lambda: aj.orthogonalize(avoid=[0]), TypeError, "`avoid` must be names of mesh axes, got [0]"),
    (lambda: aj.orthogonalize(split={"qkv": 0}), ValueError, "`split` must be an integer from 1 to 2147483647, got 0"),
    (
        lambda: init(aj.orthogonalize(split={"w": 3}), {"w": jnp.ones((2, 4))}),
        ValueError,
        "`split` must make up the 4 outputs of 'w', of shape (2, 4) and axes 'io', got 3",
    ),
    (
        lambda: init(aj.orthogonalize(split={"qkv": 3}), {"w": jnp.ones((2, 6))}),
        ValueError,
        (
            "every pattern of `split` must match a parameter path, got 'qkv', which matches none of the 1; the nearest "
            "are 'w'"
        ),
    ),
    (
        lambda: init(aj.orthogonalize(shardings={"w": 1}), {"w": jnp.ones((2, 6))}),
        TypeError,
        "`shardings` must be a tree of NamedSharding, as fsdp_shardings returns it, got {'w': 1}",
    ),
    (
        lambda: aj.decoupled(aj.scale_by_adam(), 0.1, accumulate="velocity"),
        ValueError,
        "`accumulate` must be one of 'gradients', 'steps', got 'velocity'",
    ),
    (
        lambda: aj.decoupled(aj.scale_by_adam(), 0.1, accumulate=None),
        ValueError,
        "`accumulate` must be one of 'gradients', 'steps', got None",
    ),
    *[
        (
            lambda dtype=dtype: aj.with_narrow_state(aj.scale_by_adam(), dtype),
            ValueError,
            f"`dtype` must be 'bfloat16', got {dtype!r}",
        )
        for dtype in ("no dtype", "float16", "float32", "packed", "int8", 16, None)
    ],
    (
        lambda: aj.with_narrow_state(optax.scale_by_lion),
        TypeError,
        (
            "`direction` must be an optax.GradientTransformation that points uphill, got <function>; call it: "
            "scale_by_lion()"
        ),
    ),
    (
        lambda: aj.carry_over(init(aj.scale_by_adam()), init(aj.scale_by_adam(moment_dtype="packed"))),
        ValueError,
        (
            "`state` must have its moments stored as in `fresh`, PackedMomentsState at 'its top': "
            "convert_moments(state, like=tx.init(params)) stores its moments as this optimizer does"
        ),
    ),
    (
        lambda: aj.carry_over({"w": jnp.ones(2)}, init(aj.scale_by_adam())),
        ValueError,
        "`state` must be of an optimizer like that of `fresh`, got a dict of which nothing fits",
    ),
    (
        lambda: aj.convert_moments(init(aj.scale_by_adam()), init(aj.scale_by_amsgrad())),
        ValueError,
        (
            "`like` must have the moments of the state, ['mu', 'nu'] in a ScaleByAdamState, got ['mu', 'nu', 'nu_max'] "
            "in a ScaleByAmsgradState"
        ),
    ),
    (
        lambda: aj.convert_moments(init(aj.scale_by_adam()), aj.scale_by_adam().init({"dense": jnp.ones(2)})),
        ValueError,
        "`like` must have the shapes of the state's moments, none at 'mu/dense', got (2,)",
    ),
    (
        lambda: aj.convert_moments(
            init(aj.scale_by_adam()), init(aj.scale_by_adam(moment_dtype="packed"), {"dense": {"kernel": jnp.ones(3)}})
        ),
        ValueError,
        "`like` must have the shapes of the state's moments, (2,) at 'mu/dense/bias', got none",
    ),
    (
        lambda: aj.convert_moments(init(optax.identity()), init(optax.identity())),
        ValueError,
        "`state` must contain moments to be stored, got EmptyState without any",
    ),
    (
        lambda: aj.convert_moments(init(aj.scale_by_adam()), None),
        ValueError,
        "`like` must be a state of the same stages as `state`, PyTreeDef(*), got PyTreeDef(None)",
    ),
    (lambda: transfer(base=aj.Run(PARAMS, 0, 8)), ValueError, "`updates` must be a finite number in (0, inf), got 0"),
    (lambda: transfer(base=aj.Run(PARAMS, 8, -1)), ValueError, "`batch` must be a finite number in (0, inf), got -1"),
    (lambda: transfer(base=aj.Run(PARAMS, 8, 8, 0)), ValueError, "`depth` must be a finite number in (0, inf), got 0"),
    (
        lambda: transfer(base=PARAMS),
        TypeError,
        f"`base` must be a Run(params, updates, batch, depth), got {PARAMS!r}",
    ),
    (
        lambda: transfer(rule="completep"),
        ValueError,
        "`depth` must be given to Run for both runs, the number of residual blocks, with rule='completep', got None in "
        "`base`",
    ),
    (
        lambda: transfer(rule="complete_p"),
        ValueError,
        "`rule` must be one of 'default', 'completed', 'completep', 'mup', 'timescale', 'sqrt_width', 'hyperball', or "
        "a Rule(...), got 'complete_p'; the nearest is 'completep'",
    ),
    (lambda: transfer(rule=0.5), TypeError, "`rule` must be a name or a Rule(...), got 0.5 of type float"),
    (
        lambda: aj.Rule(rate={"matrx": {"width": -1.0}}),
        ValueError,
        "`rate` must have roles as keys, got 'matrx'; the nearest are 'matrix', 'muon matrix', 'momentum matrix'",
    ),
    (
        lambda: aj.Rule(rate={"matrix": {"widht": -1.0}}),
        ValueError,
        "`rate['matrix']` must have exponents of width, depth, batch, tokens, got 'widht'; the nearest is 'width'",
    ),
    (
        lambda: transfer(target=aj.Run({"dense": {"kernel": jnp.ones((2, 2)), "beta": jnp.ones(2)}}, 8, 8)),
        ValueError,
        "the parameters of `base` and `target` must correspond, path by path up to the numbers of blocks, got "
        "'dense/beta', which the base has not; its nearest is 'dense/bias'",
    ),
    (
        lambda: transfer(base=aj.Run([PARAMS], 8, 8), target=aj.Run([PARAMS, PARAMS], 8, 8)),
        ValueError,
        "`depth` must be given for both runs, different numbers of residual blocks, where the one has parameters that "
        "the other lacks, got '1/dense/bias', which the base has only as '0/dense/bias'",
    ),
    (
        lambda: transfer(
            base=aj.Run({"w": jnp.ones((2, 2, 2))}, 8, 8), target=aj.Run({"w": jnp.ones((4, 2, 2))}, 8, 8)
        ),
        ValueError,
        "`transfer` must know which axes of 'w' are inputs and outputs, got shape (4, 2, 2), which could be 'sio' or "
        """'ioo' or 'iio': say it by a rule, axes={"<pattern>": "<letters>"}, with s for a stack, i for inputs, o """
        "for outputs",
    ),
    (
        lambda: transfer(target=aj.Run(PARAMS, 2, 8 * 20)),
        ValueError,
        "`b1` must leave 1 - b1 below 1 after the rule, got 1 - b1 = 0.1 times 20 = 2: take a batch that grows less, "
        "or give a larger b1, or a Rule that keeps it, and tune the rate anew",
    ),
    (
        lambda: transfer(target=aj.Run(PARAMS, 10, 8), schedule=aj.cosine_warm_restarts(5)),
        ValueError,
        "`schedule` must end with the run of 10 updates, got one of 5: give schedule=cosine_warm_restarts(10)",
    ),
    (
        lambda: transfer(
            base=aj.Run(PARAMS, 100, 8),
            target=aj.Run(PARAMS, 200, 8),
            learning_rate=optax.cosine_decay_schedule(0.1, 100),
            coupling="learning_rate",
        ),
        ValueError,
        "`learning_rate` must end with the run of 200 updates, got one of 100: give learning_rate=one of that length",
    ),
    (
        lambda: transfer(
            base=aj.Run(PARAMS, 100, 8),
            target=aj.Run(PARAMS, 200, 8),
            schedule=optax.cosine_decay_schedule(1.0, 150),
        ),
        ValueError,
        "`schedule` must end with the run of 200 updates, got one of 150: give schedule=one of that length",
    ),
    (
        lambda: aj.transfer({"weight_decay": 0.1}, aj.Run(PARAMS, 5, 8), aj.Run(PARAMS, 5, 8)),
        ValueError,
        "`options` must have a 'learning_rate', got ['weight_decay']",
    ),
    (
        lambda: aj.explain(aj.adamw(0.1), PARAMS, transferred={"learning_rate": 0.1}),
        TypeError,
        "`transferred` must be what transfer(...) returned, got a dict",
    ),
    (
        lambda: aj.explain(aj.adamw(0.1), {"bias": jnp.ones(2)}, transferred=transfer()),
        ValueError,
        "`transferred` must be of the parameters that are explained, got none at 'bias'; the nearest is 'dense/bias'",
    ),
    (
        lambda: transfer(base=aj.Run({"w": jnp.ones(2), "act": jnp.tanh}, 8, 8)),
        TypeError,
        "`params` must have arrays or shapes as leaves, got a PjitFunction at 'act': filter a model, as with "
        "equinox.filter(model, equinox.is_array)",
    ),
    (
        lambda: transfer(base=aj.Run(PARAMS, 100, 8), target=aj.Run(PARAMS, 200, 8), schedule=aj.cosine(100, warmup=5)),
        ValueError,
        "`schedule` must end with the run of 200 updates, got one of 100: give schedule=cosine(updates=200, warmup=5, "
        "end=0.0)",
    ),
    (
        lambda: transfer(learning_rate="fast"),
        TypeError,
        "`learning_rate` must be a number or a JAX scalar, got 'fast' of type str",
    ),
    (
        lambda: transfer(direction="adm"),
        ValueError,
        "`direction['']` must be one of 'adam', 'muon', 'momentum', got 'adm'",
    ),
    (
        lambda: transfer(direction_option=optax.chain(optax.scale_by_adam())),
        ValueError,
        "`direction` must tell of what kind a direction is, one of 'adam', 'muon', 'momentum', where its name does "
        "not, got 'chain': transfer(..., direction='adam') or direction={pattern: kind}",
    ),
    (
        lambda: aj.adamw(0.1, 0.01),
        TypeError,
        "adamw() takes 'learning_rate' by position, and other arguments by name, as weight_decay=1e-4, got 2 by "
        "position",
    ),
    (
        lambda: aj.adamw(0.1, clipnorm=1.0),
        TypeError,
        "adamw() has no argument `clipnorm`: use optax.chain(optax.clip_by_global_norm(1.0), ...)",
    ),
    (
        lambda: aj.adamw(aj.cosine(5)),
        ValueError,
        "`learning_rate` must be the peak, a number, with a schedule of factors, whose peak is 1, got "
        "cosine(updates=5, warmup=0, end=0.0): write learning_rate=peak, schedule=cosine(updates=5, warmup=0, end=0.0)",
    ),
    (
        lambda: aj.cosine(5, decay_steps=3),
        TypeError,
        "cosine() got an unexpected keyword argument 'decay_steps': its arguments are updates, warmup, end",
    ),
    (
        lambda: init(aj.adamw(lambda count: None)),
        TypeError,
        "`learning_rate(count)` must be a number or a JAX scalar, got None of type NoneType",
    ),
    (
        lambda: init(aj.adamw(0.1, schedule=lambda count: jnp.ones(2))),
        TypeError,
        "`schedule(count)` must be a number or a JAX scalar, got Array([1., 1.], dtype=float32) of type ArrayImpl",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=jax.tree.map(lambda p: p.ndim > 1, PARAMS))),
        TypeError,
        "`weight_decay at 'dense/bias'` must be a number, got False: a mask says which leaves and not how much; give "
        "jax.tree.map(lambda flag: number * flag, mask), or {pattern: number}",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay=["kernel"])),
        TypeError,
        "`weight_decay` must be {pattern: value} where it has patterns, got ['kernel']",
    ),
    (
        lambda: init(aj.adamw(0.1, weight_decay={"['dense']['kernel']": 0.01})),
        ValueError,
        '`weight_decay` must have keys joined by "/" as patterns, as leaf_paths(params) shows them, got '
        """"['dense']['kernel']\"""",
    ),
    (
        lambda: aj.adamw(0.1, weight_decay=aj.matrices),
        TypeError,
        "`weight_decay` must be a rule where it is a function, got matrices itself: call matrices(...)",
    ),
    (
        lambda: init(aj.adamw(0.1, freeze=True)),
        TypeError,
        "`freeze` must say which leaves, by patterns, flags or a function, got True",
    ),
    (
        lambda: init(aj.adamw(0.1), {"act": jnp.tanh, "w": jnp.ones(2)}),
        TypeError,
        "`params` must have arrays or shapes as leaves, got a PjitFunction at 'act': filter a model, as with "
        "equinox.filter(model, equinox.is_array)",
    ),
    (
        lambda: aj.adamw(0.1).update({"dense": {**PARAMS["dense"], "bias": None}}, init(aj.adamw(0.1)), PARAMS),
        ValueError,
        "`updates` must have a gradient for every parameter that `init` was given, got None at 'dense/bias': give "
        "zeros, or an optimizer with freeze= for what is not trained",
    ),
    (
        lambda: aj.observe(aj.adamw),
        TypeError,
        "`tx` must be an optax.GradientTransformation, got <function>: call it, as in adamw(1e-3)",
    ),
    (
        lambda: aj.fsdp_shardings(PARAMS, mesh=None),
        TypeError,
        "`mesh` must be a mesh, as jax.make_mesh returns it, got None",
    ),
    (
        lambda: aj.Ema(0.999),
        ValueError,
        "`half_life` must be a number of updates, got 0.999: an average that keeps 0.999 of itself has the "
        "half-life log(0.5) / log(0.999) = 693",
    ),
    (
        lambda: aj.explain(aj.adamw(0.1)),
        TypeError,
        "`params` must be given, the parameters or their shapes, got None",
    ),
    (
        lambda: jax.jit(lambda rate: aj.explain(aj.adamw(rate), PARAMS) and rate)(0.1),
        TypeError,
        "`tx` must have known numbers to be explained, got a traced one: call it outside of jit",
    ),
    (
        lambda: aj.from_optax_adam(init(optax.sgd(0.1)), init(aj.adamw(0.1))),
        ValueError,
        "`optax_state` must contain the moments of one Adam, got 0 in a tuple",
    ),
    (
        lambda: aj.layerwise_multipliers(PARAMS, 75),
        ValueError,
        "`rate` must be a finite number in (0, 1], got 75",
    ),
]


@pytest.mark.parametrize(("mistake", "kind", "text"), ROWS, ids=[text for _, _, text in ROWS])
def test_bad_input_is_named(mistake, kind, text):
    with pytest.raises(kind) as error:
        mistake()
    assert re.sub(r"<function \S+ at 0x\w+>", "<function>", str(error.value)) == text


@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
def test_a_traced_bad_value_does_not_break_the_trace(preset):
    def update(bad):
        tx = preset(
            bad,
            weight_decay=(bad, bad),
            lr_multipliers={"dense": bad},
            schedule=aj.cosine_warm_restarts(5, eta_min=bad, eta_max_decay=bad),
            normalize_decay=bad,
            **({"momentum": bad} if preset is aj.sgdw else {"b1": bad, "b2": bad, "eps": bad}),
        )
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

    assert jax.tree.structure(jax.jit(update)(-1.0)) == jax.tree.structure(PARAMS)


WARNED = {
    "`weight_decay` of 0.1 at 'dense/kernel' halves a weight in 6.6 updates, for coupling='schedule'": (
        lambda: init(aj.adamw(0.1, weight_decay=aj.matrices(0.1)))
    ),
    "`weight_decay` of 5 at 'dense/kernel' halves a weight at once, at a learning rate of 0.2": (
        lambda: init(aj.adamw(0.2, weight_decay=aj.matrices(5.0), coupling="learning_rate"))
    ),
    "`weight_decay` of l1 0.1 at 'dense/kernel' moves every weight by 0.1": (
        lambda: init(aj.adamw(0.1, weight_decay=aj.matrices((0.1, 0.0))))
    ),
    "`proximal_l1` of 1 at 'dense/bias' moves every weight by 1 towards 0": (
        lambda: init(aj.adamw(0.1, proximal_l1=1.0))
    ),
    "`schedule` is at most 0.0003 and multiplies the learning rate": (
        lambda: init(aj.adamw(0.1, schedule=lambda count: jnp.float32(3e-4)))
    ),
    "`schedule`: the run of 6 updates ends 1 after a restart": (
        lambda: aj.explain(aj.adamw(0.1, schedule=aj.cosine_warm_restarts(5, t_mult=4)), PARAMS, updates=6)
    ),
    "`decay` does nothing, for there is no decay": lambda: aj.explain(aj.adamw(0.1, decay="cautious"), PARAMS),
}


@pytest.mark.parametrize("text", WARNED)
def test_a_number_of_another_unit_is_a_warning(text):
    with pytest.warns(UserWarning, match=f"^{re.escape(text)}"):
        WARNED[text]()


def test_a_multiplier_as_small_as_a_rate_is_flagged():
    rows = aj.explain(aj.adamw(1e-3, lr_multipliers={"kernel": 1e-4}), PARAMS).rows
    told = ("multiplier of 0.001 or less: it multiplies the rate",)
    assert {row["path"]: row["flags"] for row in rows} == {"dense/bias": (), "dense/kernel": told}
