"""Paths read alike in every framework; rules give each leaf its value."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import adamw_jax as aj
from adamw_jax._rules.values import check_decay, check_multiplier, resolve_rules


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
