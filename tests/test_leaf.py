"""Role and axes of leaves, by names, axes and rules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import adamw_jax as aj
from adamw_jax._rules.leaf import leaves_of, require_axes
from adamw_jax._rules.names import axes_by_name, role_of

MATRICES = (
    *("bneck/0/conv/kernel", "pre_norm_block/mlp/kernel", "pre_norm_block/mlp/weight", "pre_norm_block/weight"),
    *("norm1/linear/kernel", "norm1/linear/weight", "norm1/linear", "norm/proj/w", "ln_attn/q_proj/kernel"),
    *("ln_attn/q_proj/weight", "norm_head/kernel", "norm_head/weight", "NormDense_0/kernel", "bnet_1/weight"),
    *("LayerNormMLP_0/Dense_0/kernel", "normalizing_flow/0/weight", "attn/q_proj/kernel/array", "query/kernel/real"),
    *("debias_net/kernel", "biases_mlp/w1", "scale_mlp/kernel", "shift_net/w", "kernel/0", "layers/0", "0/0", "a", "w"),
    *("ssm/B", "lora_b/kernel", "down_blocks/0/resnets/0/time_emb_proj/kernel", "pre_norm/fn/to_qkv/weight"),
    *("bn_relu_conv/conv/kernel", "blocks/0/norm_mlp/fc1/kernel", "recurrent_kernel", "norm_out/linear/kernel"),
)
NORMS = (
    *("LayerNorm_0/scale", "norms/scale", "norms/0/weight", "norms/attn/weight", "bn1/weight", "bn/w", "ln_f/weight"),
    *("RMSNorm/weight", "RMSNorm_0/weight", "layer_norm/weight", "norm/weight", "norm1/weight", "norm_attn/weight"),
    *(
        "input_layernorm/weight",
        "batch_normalization_3/gamma",
        "final_norm/weight/array",
        "attn_norm",
        "attn_norm_weight",
    ),
)
BIASES = (
    *("query/bias", "attn/q_proj/bias/array", "query/bias/real", "query/bias/imaginary", "bias/0", "bias/q", "b2"),
    *("LayerNorm_0/bias", "gru/bias", "relative_position_bias_table", "q_bias", "batch_normalization/beta"),
    *("attn/in_proj_bias", "b_q", "bias_hh_l0"),
)


@pytest.mark.parametrize(
    ("paths", "roles"), [(MATRICES, {"matrix", "head"}), (NORMS, {"norm"}), (BIASES, {"bias"})], ids=["m", "n", "b"]
)
def test_names_of_leaves_with_two_axes(paths, roles):
    assert {path: role_of(path, 2)[0] for path in paths if role_of(path, 2)[0] not in roles} == {}


@pytest.mark.parametrize(
    ("path", "axes", "role"),
    [
        ("embed/embedding", 2, "embedding"),
        ("wte/weight", 2, "embedding"),
        ("head/kernel", 2, "head"),
        ("lm_head/kernel", 2, "head"),
        ("output/kernel", 2, "head"),
        ("unembed/kernel", 2, "head"),
        ("layers/0/attention/output/dense/kernel", 2, "matrix"),
        ("layers/0/output/kernel", 2, "matrix"),
        ("multi_head/kernel", 2, "matrix"),
        ("dense/scale", 1, "scale"),
        ("dense/gain", 1, "vector"),
        ("logit_scale", 0, "scalar"),
        ("norm/weight", 1, "norm"),
    ],
)
def test_roles(path, axes, role):
    assert role_of(path, axes)[0] == role


def test_the_part_of_the_name_that_decides_is_told():
    params = {
        "norm1": {"weight": jnp.ones((2, 2)), "linear": {"kernel": jnp.ones((2, 2))}},
        "query": {"bias": jnp.ones(2)},
    }
    why = {leaf.path: leaf.why for leaf in leaves_of(params)}
    assert why == {
        "norm1/weight": "container 'norm1'",
        "norm1/linear/kernel": "name 'kernel'",
        "query/bias": "name 'bias'",
    }
    table = aj.explain(aj.adamw(0.1, weight_decay=aj.matrices(0.1)), params)
    assert {row["path"]: row["l2"] for row in table.rows} == {
        "norm1/weight": 0,
        "norm1/linear/kernel": 0.1,
        "query/bias": 0,
    }
    assert all(each in str(table) for each in why.values())


@pytest.mark.parametrize(
    ("path", "number", "letters"),
    [
        ("dense/kernel", 2, "io"),
        ("embed/embedding", 2, "io"),
        ("attn/query/kernel", 3, "ioo"),
        ("attn/value/kernel", 3, "ioo"),
        ("query/kernel/real", 3, "ioo"),
        ("attn/out/kernel", 3, "iio"),
        ("multi_head_attention/attention_output/kernel", 3, "iio"),
        ("conv1d/kernel", 3, "iio"),
        ("Conv_0/kernel", 4, "iiio"),
        ("conv3d_1/kernel", 5, "iiiio"),
        ("bneck/0/conv/kernel", 4, "iiio"),
        ("conv1/weight", 4, "oiii"),
        ("conv2d_transpose/kernel", 4, "iioi"),
        ("ConvTranspose_0/kernel", 4, "iiio"),
        ("depthwise_conv2d/kernel", 4, "iiso"),
        ("blocks/dense/kernel", 3, None),
        ("query/kernel", 4, None),
        ("pos_embedding", 3, None),
    ],
)
def test_axes_by_name(path, number, letters):
    assert axes_by_name(path, number, role_of(path, number)[0]) == letters


def test_axes_of_layers_of_flax():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.attn = nnx.MultiHeadAttention(2, 4, rngs=rngs)
            self.conv = nnx.Conv(3, 5, (2, 2), rngs=rngs)
            self.embed = nnx.Embed(7, 4, rngs=rngs)
            self.norm = nnx.LayerNorm(4, rngs=rngs)

    shapes = jax.eval_shape(lambda: nnx.state(Model(nnx.Rngs(0)), nnx.Param))
    known = {leaf.path: leaf for leaf in leaves_of(shapes)}
    kernels = {path: leaf.axes for path, leaf in known.items() if leaf.is_matrix}
    assert kernels == {
        "attn/key/kernel": "ioo",
        "attn/query/kernel": "ioo",
        "attn/value/kernel": "ioo",
        "attn/out/kernel": "iio",
        "conv/kernel": "iiio",
        "embed/embedding": "io",
    }
    assert known["attn/query/bias"].role == "bias"
    assert known["norm/scale"].role == "norm"


PARAMS = {
    "blocks": {
        "attn": {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones((3, 5))},
        "gate": jnp.ones((3, 5)),
        "t": jnp.ones(3),
    },
    "embed": jnp.ones((7, 4)),
    "tau": jnp.ones(()),
}
NUMBERS = optax.contrib.MuonDimensionNumbers


@pytest.mark.parametrize(
    "axes",
    [
        {"blocks/": "sio"},
        {"blocks/": "sio", "": "io"},
        {"blocks/attn/bias": "sio", "blocks/": "sio"},
        lambda path, leaf: "sio" if path.startswith("blocks") else None,
    ],
)
def test_a_rule_for_the_matrices_of_a_stack_tells_its_vectors(axes):
    rows = {leaf.path: (leaf.role, leaf.axes) for leaf in leaves_of(PARAMS, axes)}
    assert rows == {
        "blocks/attn/kernel": ("matrix", "sio"),
        "blocks/attn/bias": ("bias", "so"),
        "blocks/gate": ("vector", "so"),
        "blocks/t": ("scalar", "s"),
        "embed": ("embedding", "io"),
        "tau": ("scalar", ""),
    }


@pytest.mark.parametrize(
    "axes",
    [
        {"kernel": NUMBERS(1, 2)},
        {"kernel": NUMBERS(-2, -1)},
        {"kernel": NUMBERS(reduction_axis=(1,), output_axis=(2,))},
        jax.tree.map(lambda p: "sio" if p.ndim == 3 else None, PARAMS),
        jax.tree.map(lambda p: NUMBERS(1, 2) if p.ndim == 3 else None, PARAMS),
        jax.tree.map(lambda p: NUMBERS((1,), (2,)) if p.ndim == 3 else None, PARAMS),
    ],
)
def test_the_numbers_of_optax_and_trees_are_rules(axes):
    known = {leaf.path: leaf.axes for leaf in leaves_of(PARAMS, axes)}
    assert (known["blocks/attn/kernel"], known["embed"]) == ("sio", "io")


def test_numbers_for_all_leaves_and_letters_for_all():
    two = {"dense": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
    for axes in (NUMBERS(1, 0), "oi"):
        assert [leaf.axes for leaf in leaves_of(two, axes)] == ["o", "oi"]


def test_axes_that_matter_and_are_not_known():
    blocks = {"blocks": {"dense": {"kernel": jnp.ones((3, 4, 4))}}}
    (leaf,) = leaves_of(blocks)
    with pytest.raises(
        ValueError, match=r"'blocks/dense/kernel' .* shape \(3, 4, 4\), which could be 'sio' or 'ioo'.*axes="
    ):
        require_axes("x", leaf)
    (leaf,) = leaves_of(blocks, {"dense": "sio"})
    assert require_axes("x", leaf) == "sio"


def test_matrices_that_finds_nothing_warns():
    with pytest.warns(UserWarning, match=r"`weight_decay`: `matrices` finds no matrix among the 2 .*'b' \(name 'b'\)"):
        aj.adamw(0.1, weight_decay=aj.matrices(0.1)).init({"norm": {"scale": jnp.ones((3, 2))}, "b": jnp.ones(2)})


def test_the_corrected_coupling_is_for_matrices_that_are_no_embeddings_or_heads():
    model = {
        "embed": {"embedding": jnp.ones((7, 4))},
        "norm1": {"linear": {"kernel": jnp.ones((4, 4))}, "scale": jnp.ones(4)},
        "attn": {"query": {"bias": jnp.ones((2, 2))}},
        "head": {"kernel": jnp.ones((4, 7))},
    }
    flagged = [path for path, flag in zip(aj.leaf_paths(model), aj.Corrected().flags(model), strict=True) if flag]
    assert flagged == ["norm1/linear/kernel"]


def test_a_model_of_equinox():
    model = eqx.filter(eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0)), eqx.is_array)
    assert {leaf.role for leaf in leaves_of(model)} == {"matrix"}
