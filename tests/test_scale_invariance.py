"""Which leaves' lengths the loss ignores: on networks as people build them, against what the mathematics says."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from flax import nnx
from keras import layers

import adamw_jax as aj
from tests import reference_watch as twin
from tests.running import quick_jit

X = np.random.RandomState(0).randn(64, 12).astype(np.float32)
IMAGES = np.random.RandomState(1).randn(16, 8, 8, 3).astype(np.float32)
TOKENS = np.random.RandomState(2).randint(0, 20, (8, 10))
LABELS = np.random.RandomState(3).randint(0, 5, 64)


class NormalizedMlp(nn.Module):
    biases: bool = False

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.LayerNorm()(nn.Dense(32, use_bias=self.biases)(x)))
        return nn.Dense(5)(x)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(width, (3, 3))(x)))
        return nn.Dense(5)(x.mean((1, 2)))


class Transformer(nn.Module):
    query_norm: bool = False

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(20, 16, name="embed")(tokens)
        x = x + self.param("positions", nn.initializers.normal(0.3), (10, 16))
        attention = nn.MultiHeadDotProductAttention(num_heads=2, normalize_qk=self.query_norm, use_bias=False)
        x = x + attention(nn.LayerNorm()(x))
        x = x + nn.Dense(16)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(x))))
        return nn.Dense(20, name="head")(nn.LayerNorm(name="last")(x))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def flags_of(model, x, labels):
    """Return {path: flag} of a linen model in training."""
    variables = quick_jit(model.init)(jax.random.key(0), x)
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss(params, x, labels):
        logits, _ = model.apply({"params": params, **rest}, x, mutable=list(rest))
        return cross_entropy(logits, labels)

    flags = aj.scale_invariant(loss, params, x, labels)
    assert jax.tree.structure(flags) == jax.tree.structure(params)
    return dict(zip(aj.leaf_paths(params), jax.tree.leaves(flags), strict=True))


def invariant(flags):
    return {path for path, flag in flags.items() if flag}


def test_an_mlp_with_layer_norm():
    assert invariant(flags_of(NormalizedMlp(), X, LABELS)) == {"Dense_0/kernel", "Dense_1/kernel"}


def test_a_bias_before_a_layer_norm_ends_the_kernels_invariance():
    assert invariant(flags_of(NormalizedMlp(biases=True), X, LABELS)) == set()


def test_a_cnn_with_batch_norm():
    # The biases before a normalization over the batch have no effect at all: their gradients are zero.
    assert invariant(flags_of(Cnn(), IMAGES, LABELS[:16])) == {"Conv_0/kernel", "Conv_1/kernel"}


def test_a_pre_norm_transformer_has_none():
    assert invariant(flags_of(Transformer(), TOKENS, TOKENS)) == set()


def test_normalized_queries_and_keys_are():
    flags = flags_of(Transformer(query_norm=True), TOKENS, TOKENS)
    assert invariant(flags) == {f"MultiHeadDotProductAttention_0/{name}/kernel" for name in ("query", "key")}


def keras_block():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = shortcut = layers.ReLU()(layers.BatchNormalization(name="bn_stem")(x))
    for i in (1, 2):
        x = layers.BatchNormalization(name=f"bn_{i}")(
            layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv_{i}")(x)
        )
        x = layers.ReLU()(x if i == 1 else layers.Add()([x, shortcut]))
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))


def test_a_keras_resnet_block():
    model = keras_block()
    others = [v.value for v in model.non_trainable_variables]

    def loss(params, x, labels):
        logits, _ = model.stateless_call(list(params.values()), others, x, training=True)
        return cross_entropy(logits, labels)

    # A dictionary that JAX sorts would be in another order than the model's variables.
    numbered = {f"{i:02d}/{v.path}": v.value for i, v in enumerate(model.trainable_variables)}
    flags = aj.scale_invariant(loss, numbered, IMAGES, LABELS[:16])
    assert {path.split("/", 1)[1] for path in invariant(flags)} == {"stem/kernel", "conv_1/kernel", "conv_2/kernel"}


def test_an_nnx_model():
    model = nnx.Sequential(
        nnx.Linear(12, 16, use_bias=False, rngs=nnx.Rngs(0)), nnx.RMSNorm(16, rngs=nnx.Rngs(1)), jnp.tanh,
        nnx.Linear(16, 5, rngs=nnx.Rngs(2)),
    )  # fmt: skip
    graph, params = nnx.split(model, nnx.Param)
    flags = aj.scale_invariant(lambda params, x: cross_entropy(nnx.merge(graph, params)(x), LABELS), params, X)
    assert jax.tree.leaves(flags) == [path == "layers/0/kernel" for path in aj.leaf_paths(params)]


def loss_of_pair(params, x):
    hidden = x @ params["body"]["kernel"]
    hidden = hidden / jnp.sqrt(jnp.mean(hidden**2, -1, keepdims=True) + 1e-6)
    return jnp.mean((hidden @ params["head"] - 1) ** 2)


def pair(dtype=jnp.float32):
    rng = np.random.RandomState(0)
    return {
        "body": {"kernel": jnp.asarray(rng.randn(12, 8), dtype)},
        "head": jnp.asarray(rng.randn(8), dtype),
        "unused": jnp.ones(3, dtype),
        "steps": jnp.zeros((), jnp.int32),
        "nothing": None,
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_flags_fit_the_corrected_coupling(dtype):
    params = pair(dtype)
    flags = aj.scale_invariant(loss_of_pair, params, X.astype(dtype))
    assert flags == {"body": {"kernel": True}, "head": False, "unused": False, "steps": False, "nothing": None}
    assert all(type(flag) is bool for flag in jax.tree.leaves(flags))
    assert aj.Corrected(layers=flags).flags(params) == [True, False, False, False]
    trained = {key: params[key] for key in ("body", "head")}
    flags = aj.scale_invariant(loss_of_pair, trained, X.astype(dtype))
    tx = aj.adamw(0.01, weight_decay=0.1, coupling=aj.Corrected(layers=flags))
    tx.update(trained, tx.init(trained), trained)


def test_the_products_are_numpys():
    """At one point by hand: the leaf that is flagged is far below the tolerance, the other far above."""
    params = {key: pair()[key] for key in ("body", "head")}
    gradients = jax.grad(loss_of_pair)(params, X)
    products = [
        twin.scaled_products(g, p) for g, p in zip(jax.tree.leaves(gradients), jax.tree.leaves(params), strict=True)
    ]
    assert products[0] < 1e-3
    assert products[1] > 0.2


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_neither_the_weights_nor_the_losss_unit_counts(size):
    params = {"body": {"kernel": size * pair()["body"]["kernel"]}, "head": pair()["head"]}

    def loss(params):
        hidden = X @ params["body"]["kernel"]
        hidden = hidden / jnp.linalg.norm(hidden, axis=-1, keepdims=True)
        return 1e-12 * size * jnp.mean((hidden @ params["head"] - 1) ** 2)

    assert aj.scale_invariant(loss, params) == {"body": {"kernel": True}, "head": False}


def test_no_parameters_and_none_that_are_trained():
    assert aj.scale_invariant(lambda p: 0.0, {}) == {}
    assert aj.scale_invariant(lambda p: 0.0, {"a": None, "n": jnp.ones(2, jnp.int32)}) == {"a": None, "n": False}


def test_a_stack_is_invariant_if_every_matrix_is():
    def loss(params, x):
        def layer(w):
            y = x @ w
            return y / jnp.linalg.norm(y)

        first, second = params["w"]
        return jnp.sum(layer(first) * jnp.arange(4.0)) + jnp.sum((layer(second) if params["both"] else x @ second) ** 3)

    x = jnp.arange(6.0).reshape(2, 3)
    for both in (True, False):
        params = {"w": jnp.ones((2, 3, 4)), "both": both}
        assert aj.scale_invariant(loss, params, x, axes={"w": "sio"})["w"] is both
