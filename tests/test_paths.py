"""Paths read alike in every framework; rules give each leaf its value."""

import dataclasses
import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import linen, nnx, struct

import adamw_jax as aj
from adamw_jax._rules.values import check_decay, check_multiplier, resolve_rules
from adamw_jax._tree.paths import compile_pattern
from tests.catalogue import CATALOGUE


class Dense(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Attention:
    query: jax.Array
    value: jax.Array


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense_1 = nnx.Linear(2, 3, rngs=rngs)
        self.rest = nnx.List([nnx.Linear(3, 3, rngs=rngs)])


@pytest.mark.parametrize(
    ("tree", "paths"),
    [
        ({"encoder": {"dense_1": {"kernel": 1.0, "bias": 1.0}}}, ("encoder/dense_1/bias", "encoder/dense_1/kernel")),
        ([1.0, (2.0, None)], ("0", "1/0")),
        ({"dense": Dense(1.0, 2.0)}, ("dense/kernel", "dense/bias")),
        # An attribute `value` with a neighbour is the user's own.
        ({"attention": Attention(1.0, 2.0)}, ("attention/query", "attention/value")),
        (jnp.ones(3), ("",)),
        ({}, ()),
        (eqx.filter(eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0)), eqx.is_array),
         ("layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias")),
        (nnx.state(Block(nnx.Rngs(0)), nnx.Param),
         ("dense_1/bias", "dense_1/kernel", "rest/0/bias", "rest/0/kernel")),
        (nnx.as_pure(nnx.state(Block(nnx.Rngs(0)), nnx.Param)),
         ("dense_1/bias", "dense_1/kernel", "rest/0/bias", "rest/0/kernel")),
    ],
    ids=["dict", "sequences", "NamedTuple", "dataclass", "array", "empty", "Equinox", "NNX", "NNX pure"],
)  # fmt: skip
def test_leaf_paths(tree, paths):
    assert aj.leaf_paths(tree) == paths


PARAMS = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "lstm": {"kernel": jnp.ones((2, 2))}}


@pytest.mark.parametrize(
    ("rules", "values"),
    [
        (3.0, [3.0, 3.0, 3.0]),
        ({"kernel": 2.0}, [1.0, 2.0, 2.0]),
        ({"dense": 2.0, "kernel": 3.0}, [2.0, 2.0, 3.0]),
        ({"kernel": 3.0, "dense": 2.0}, [2.0, 3.0, 3.0]),
        ({"^lstm/": 0.5, r"bias$": 4}, [4, 1.0, 0.5]),
        (lambda path, leaf: float(leaf.ndim) if "dense" in path else 0.0, [1.0, 2.0, 0.0]),
        ({"dense": {"kernel": 5.0, "bias": 6.0}, "lstm": {"kernel": 7.0}}, [6.0, 5.0, 7.0]),
    ],
    ids=["number", "pattern", "first wins", "order counts", "anchors", "function", "tree"],
)
def test_rules(rules, values):
    assert resolve_rules("lr_multipliers", rules, PARAMS, check_multiplier, 1.0) == values


def test_rules_for_decays_are_pairs():
    def resolve(rules):
        return resolve_rules("weight_decay", rules, PARAMS, check_decay, (0.0, 0.0))

    assert resolve(0.1) == [(0.0, 0.1)] * 3
    assert resolve((0.2, 0.1)) == [(0.2, 0.1)] * 3
    assert resolve({"bias": (0.3, 0), "dense": 0.1}) == [(0.3, 0), (0.0, 0.1), (0.0, 0.0)]
    assert resolve({"dense": {"kernel": (1, 2), "bias": 3}, "lstm": {"kernel": 0.0}}) == [(0.0, 3), (1, 2), (0.0, 0.0)]


def test_a_dict_with_the_parameters_structure_is_a_tree():
    # Searched as patterns, "w" would match "ww", too.
    rules = {"w": 2.0, "ww": 3.0}
    assert resolve_rules("lr_multipliers", rules, {"w": 0.0, "ww": 0.0}, check_multiplier, 1.0) == [2.0, 3.0]


# Boxes.


@jax.tree_util.register_pytree_node_class
class Box:
    def __init__(self, x):
        self.x = x

    def tree_flatten(self):
        return (self.x,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Named:
    array: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Single:
    weight: jax.Array


class Gate(eqx.Module):
    level: jax.Array

    def __call__(self, x):
        return self.level * x


@pytest.mark.parametrize(
    "box", [Box, Named, lambda x: Box(Named(x)), nnx.Param, lambda x: linen.Partitioned(x, ("a",))]
)
def test_a_box_leaves_no_trace(box):
    tree = {"q": {"kernel": box(jnp.ones((2, 2))), "bias": box(jnp.ones(2))}, "layers": [box(jnp.ones(2))]}
    assert aj.leaf_paths(tree) == ("layers/0", "q/bias", "q/kernel")
    assert resolve_rules("lr_multipliers", {"bias$": 2.0}, tree, check_multiplier, 1.0) == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("alone", "among"),
    [
        ({"dense": {"kernel": 1.0}}, {"dense": {"kernel": 1.0, "bias": 1.0}}),
        ([1.0], [1.0, 2.0]),
        (Dense(1.0, None), Dense(1.0, 2.0)),
        (Single(1.0), {"weight": 1.0}),
        ({"gate": Gate(1.0)}, {"gate": {"level": 1.0}}),
        (eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0)), eqx.nn.Linear(2, 2, key=jax.random.key(0))),
        (eqx.nn.Embedding(2, 2, key=jax.random.key(0)), eqx.nn.Linear(2, 2, key=jax.random.key(0))),
        ({"a": nnx.Param(1.0)}, {"a": nnx.Param(1.0), "b": nnx.Param(1.0)}),
    ],
)
def test_a_path_does_not_depend_on_neighbours(alone, among):
    assert aj.leaf_paths(alone)[0] in aj.leaf_paths(among)


def test_halves_of_complex_parameters_are_what_the_whole_is():
    rows = {}

    def init(params):
        named = zip(aj.leaf_paths(params), jax.tree.leaves(params), strict=True)
        rows.update({path: aj.matrices(0.1)(path, leaf) for path, leaf in named})
        return optax.EmptyState()

    optax.contrib.split_real_and_imaginary(optax.GradientTransformation(init, None)).init(
        {"query": {"kernel": jnp.ones((2, 2), complex), "bias": jnp.ones((2, 2), complex)}}
    )
    assert rows == {
        "query/bias/real": 0.0,
        "query/bias/imaginary": 0.0,
        "query/kernel/real": 0.1,
        "query/kernel/imaginary": 0.1,
    }


@struct.dataclass
class Shaped:
    kernel: jax.Array
    bias: jax.Array

    def __post_init__(self):
        if self.kernel.shape[-1:] != self.bias.shape:
            raise ValueError


def test_classes_that_look_at_their_arrays_have_paths():
    params = Shaped(jnp.ones((3, 2)), jnp.ones(2))
    assert aj.leaf_paths(params) == ("kernel", "bias")
    tx = aj.adamw(0.1, weight_decay={"kernel": 0.1})
    tx.update(params, tx.init(params), params)


# A number in a pattern is a whole number.


@pytest.mark.parametrize(
    ("pattern", "found", "others"),
    [
        ("layer_1", ["layer_1/k", "a/layer_1"], ["layer_10/k", "layer_21/k"]),
        ("layers.1.", ["layers/1/k"], ["layers/10/k", "layers/11/k"]),
        ("layer_1.*kernel", ["layer_1/kernel"], ["layer_10/kernel"]),
        (".*1/", ["a_1/k"], ["a_11/k"]),
        ("(layer_1|layer_2)/", ["layer_2/k"], ["layer_12/k"]),
        (r"layer_1\d", ["layer_12"], ["layer_1"]),
        (r"layer_1(0|1)", ["layer_10", "layer_11"], ["layer_1", "layer_101"]),
        ("layer_(1|2)[0-3]", ["layer_23"], ["layer_2"]),
        ("12?", ["a/12", "a/1"], ["a/3"]),
        ("layer_1{2}", ["layer_11"], ["layer_1"]),
        (r"(?P<n1>x_1)$", ["x_1"], ["x_11"]),
        ("(?i)LAYER_1", ["layer_1"], ["layer_11"]),
        ("conv2d", ["conv2d/k", "conv2d_1/k"], ["conv22d/k"]),
        (r"\x31/", ["a1/"], []),
    ],
)
def test_a_number_in_a_pattern_is_whole(pattern, found, others):
    expression = compile_pattern(pattern)
    assert [bool(expression.search(path)) for path in found + others] == [True] * len(found) + [False] * len(others)


# Structure is asked before pairs and functions.

LAYER = Dense(jnp.ones((2, 2)), jnp.ones(2))
PAIRS = [(jnp.ones((2, 2)), jnp.ones(2)), (jnp.ones((2, 2)), jnp.ones(2))]


@pytest.mark.parametrize(
    ("rules", "params", "values"),
    [
        (Dense(0.1, 0.0), LAYER, [(0.0, 0.1), (0.0, 0.0)]),
        ((0.1, 0.2), LAYER, [(0.1, 0.2)] * 2),
        (Dense((0.1, 0.2), 0.0), LAYER, [(0.1, 0.2), (0.0, 0.0)]),
        ({"a": Dense(0.1, 0.0), "b": 0.2}, {"a": LAYER, "b": 1.0}, [(0.0, 0.1), (0.0, 0.0), (0.0, 0.2)]),
        ({"a": Dense(0.1, 0.0)}, {"a": LAYER, "b": 1.0}, [(0.0, 0.1), (0.0, 0.0), (0.0, 0.0)]),
        ({"a": {"x": 0.1, "y": 0.2}, "b": 0.3}, {"a": {"x": 1.0, "y": [1.0]}, "b": {"z": 1.0}},
         [(0.0, 0.1), (0.0, 0.2), (0.0, 0.3)]),
        (jax.tree.map(lambda p: 0.1 * (p.ndim > 1), PAIRS), PAIRS, [(0.0, 0.1), (0.0, 0.0)] * 2),
        ([(0.1, (0.2, 0.3)), 0.4], PAIRS, [(0.0, 0.1), (0.2, 0.3), (0.0, 0.4), (0.0, 0.4)]),
        ({"a": (0.1, 0.0)}, {"a": PAIRS[0]}, [(0.0, 0.1), (0.0, 0.0)]),
        ({"a": (0.1, 0.2)}, {"a": LAYER}, [(0.1, 0.2)] * 2),
    ],
)  # fmt: skip
def test_what_has_the_structure_of_the_parameters_is_a_tree(rules, params, values):
    assert resolve_rules("weight_decay", rules, params, check_decay, (0.0, 0.0)) == values


def test_pairs_are_trees_where_a_pair_means_nothing():
    for rules, params in (
        ((0.5, 2.0), PAIRS[0]),
        ([(0.5, 2.0)] * 2, PAIRS),
        ({"a": (0.5, 2.0)}, {"a": PAIRS[0], "b": 1.0}),
    ):
        values = resolve_rules("lr_multipliers", rules, params, check_multiplier, 1.0)
        assert values[:2] == [0.5, 2.0]
    tree = jax.tree.map(lambda p: 0.01 * (p.ndim > 1), PAIRS)
    tx = aj.adamw(0.1, lr_multipliers=tree, proximal_l1=tree, weight_decay=tree)
    assert [row["multiplier"] for row in aj.explain(tx, PAIRS).rows] == [0.01, 0.0] * 2


def scale(factor, count):
    return factor * jnp.float32(count)


def with_default(step, total=1000):
    return 1 - jnp.float32(step) / total


@pytest.mark.parametrize(
    "function",
    [lambda params: params, with_default, jax.tree_util.Partial(scale, 1.0), optax.constant_schedule(0.1),
     lambda: 0.1, lambda path, leaf, more: 0.1, functools.partial(scale, 1.0)],
)  # fmt: skip
@pytest.mark.parametrize("option", ["weight_decay", "lr_multipliers", "proximal_l1", "freeze", "hold_norm"])
def test_a_bare_function_requires_path_and_leaf(option, function):
    with pytest.raises(
        TypeError, match=rf"`{option}` must be a rule \(path, leaf\) -> value .* requires path and leaf"
    ):
        aj.adamw(0.1, **{option: function}).init(PARAMS)


def test_functions_as_schedules_and_as_rules():
    partial = jax.tree_util.Partial(scale, jnp.float32(0.1))
    for values in ({"kernel": partial}, {"dense": {"kernel": partial, "bias": 0.0}, "lstm": 0.1}, {"": with_default}):
        tx = aj.adamw(0.1, weight_decay=values, lr_multipliers=values, proximal_l1=values)
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    for rule in (lambda path, leaf, scale=0.5: scale, lambda *args: 0.5, functools.partial(lambda a, p, x: a, 0.5)):
        assert resolve_rules("lr_multipliers", rule, PARAMS, check_multiplier, 1.0) == [0.5] * 3


@pytest.mark.parametrize(
    "number",
    [1, np.int32(1), np.uint8(3), np.float16(0.5), jnp.int32(2), jnp.uint8(200), jnp.bfloat16(0.5), jnp.float32(0.1)],
)
def test_a_number_may_have_any_dtype(number):
    def step(number):
        rules = {"kernel": number}
        options = {"weight_decay": rules, "lr_multipliers": rules, "proximal_l1": rules, "coupling": "constant"}
        tx = aj.sgdw(0.1, multiplier_scales_decay=True, **options)
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

    expected = step(float(number))
    traced = jax.jit(step)(number)
    over_time = step(lambda count: jnp.where(count < 5, number, number))
    for updates in (step(number), traced, over_time):
        # Numbers that are constants of one program and arguments of the other.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


@pytest.mark.parametrize(
    "zero",
    [0, (0.0, 0.0), {"kernel": 0.0}, {"kernel": (0, 0.0)}, {}, jax.tree.map(lambda p: 0.0, PARAMS), aj.matrices(0.0),
     np.float32(0)],
)  # fmt: skip
def test_a_decay_of_zero_is_no_decay_beside_a_schedule(zero):
    aj.adamw(optax.linear_schedule(0.1, 0.0, 5), weight_decay=zero, proximal_l1=zero if zero == 0 else None).init(
        PARAMS
    )


# optax's own ways.

TREES = {
    "lr_multipliers": lambda: jax.tree.map(lambda p: 0.5, PARAMS),
    "weight_decay": lambda: jax.tree.map(lambda p: 0.5, PARAMS),
    "proximal_l1": lambda: jax.tree.map(lambda p: 0.5, PARAMS),
    "freeze": lambda: jax.tree.map(lambda p: False, PARAMS),
    "hold_norm": lambda: jax.tree.map(lambda p: p.ndim > 1, PARAMS),
    "decay": lambda: aj.Anchored(PARAMS),
    "coupling": lambda: aj.Corrected(jax.tree.map(lambda p: True, PARAMS)),
    "eps": lambda: jax.tree.map(lambda p: 1e-6, PARAMS),
    "axes": lambda: jax.tree.map(lambda p: "io" if p.ndim > 1 else None, PARAMS),
}


@pytest.mark.parametrize("option", TREES)
def test_map_params_finds_the_parameters_under_rules_that_are_trees(option):
    tx = aj.adamw(0.1, **{option: TREES[option]()})
    state = tx.init(PARAMS)
    marked = optax.tree.map_params(tx, lambda leaf: "p", state, transform_non_params=lambda leaf: "s")
    assert optax.tree.get(marked, "mu") == jax.tree.map(lambda p: "p", PARAMS)


MODEL = {"body": {"kernel": jnp.ones((8, 4)), "bias": None}, "head": [jnp.ones(4), {"kernel": jnp.ones(())}]}


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.filterwarnings("ignore:`round_params` does nothing")
def test_a_state_is_made_of_shapes(name):
    tx = CATALOGUE[name]()
    made, of_shapes = tx.init(MODEL), tx.init(jax.eval_shape(lambda: MODEL))
    assert jax.tree.structure(made) == jax.tree.structure(of_shapes)
    kinds = [[(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)] for tree in (made, of_shapes)]
    assert kinds[0] == kinds[1]
    assert not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(of_shapes))


def test_functions_in_injected_hyperparameters_are_named():
    tx = optax.inject_hyperparams(aj.adamw)(1e-3, weight_decay=aj.matrices(0.1))
    with pytest.raises(TypeError, match="static_args"):
        tx.init(PARAMS)
    tx = optax.inject_hyperparams(aj.adamw, static_args="weight_decay")(1e-3, weight_decay=aj.matrices(0.1))
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_injected_numbers_do_not_decay_what_is_held():
    tx = optax.inject_hyperparams(aj.adamw)(1e-3, hold_norm="kernel")
    state = jax.jit(tx.init)(PARAMS)
    updates, _ = jax.jit(tx.update)(PARAMS, state, PARAMS)
    after = optax.apply_updates(PARAMS, updates)["dense"]["kernel"]
    assert float(jnp.linalg.norm(after)) == pytest.approx(2.0, rel=1e-6)


def test_an_unfiltered_model_is_taken_as_parameters():
    model = eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_array)
    tx = aj.adamw(0.1, weight_decay=0.1)
    expected, _ = tx.update(arrays, tx.init(arrays), arrays)
    updates, _ = tx.update(arrays, tx.init(arrays), model)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    assert len(jax.tree.leaves(eqx.apply_updates(model, updates))) == len(jax.tree.leaves(model))
