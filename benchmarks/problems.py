"""Trees of parameters with the leaves of real models, filled with random numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = {"qkv": (1, 3), "out": (1, 1), "up": (1, 4), "down": (4, 1)}
"""Inputs and outputs of the matrices of a block of GPT-2, in widths."""


def blocks(layers, width, lie):
    """The shapes of the matrices of some blocks of GPT-2, "stacked" or in "separate" leaves."""
    shapes = {name: (i * width, o * width) for name, (i, o) in BLOCK.items()}
    if lie == "stacked":
        return {name: (layers, *shape) for name, shape in shapes.items()}
    return {f"{name}_{k}": shape for k in range(layers) for name, shape in shapes.items()}


def digits_mlp():
    sizes = (64, 128, 128, 10)
    return {f"dense_{i}": {"kernel": (m, n), "bias": (n,)} for i, (m, n) in enumerate(itertools.pairwise(sizes))}


def _block(width, hidden):
    return {
        "norm_1": {"scale": (width,), "bias": (width,)},
        "qkv": {"kernel": (width, 3 * width), "bias": (3 * width,)},
        "projection": {"kernel": (width, width), "bias": (width,)},
        "norm_2": {"scale": (width,), "bias": (width,)},
        "up": {"kernel": (width, hidden), "bias": (hidden,)},
        "down": {"kernel": (hidden, width), "bias": (width,)},
    }


def _split_block(width, hidden):
    block = _block(width, hidden)
    block.pop("qkv")
    return block | {name: {"kernel": (width, width), "bias": (width,)} for name in ("query", "key", "value")}


def vit_small():
    """ViT-S/16 with separate query, key and value: 22 million parameters."""
    return {
        "patches": {"kernel": (16, 16, 3, 384), "bias": (384,)},
        "positions": (197, 384),
        "token": (384,),
        **{f"block_{i:02d}": _split_block(384, 1536) for i in range(12)},
        "norm": {"scale": (384,), "bias": (384,)},
        "head": {"kernel": (384, 1000), "bias": (1000,)},
    }


def gpt2():
    """GPT-2: 124.4 million parameters in 148 leaves."""
    return {
        "tokens": (50257, 768),
        "positions": (1024, 768),
        **{f"block_{i:02d}": _block(768, 3072) for i in range(12)},
        "norm": {"scale": (768,), "bias": (768,)},
    }


def small_leaves(number=2000):
    return {f"layer_{i:04d}": (16, 16) if i % 2 else (16,) for i in range(number)}


TREES = {"digits": digits_mlp, "vit": vit_small, "gpt2": gpt2, "leaves": small_leaves}


def as_shapes(tree, dtype=jnp.float32):
    """Return the tree of shapes as arrays that hold nothing, for tracing."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, dtype), tree, is_leaf=lambda node: isinstance(node, tuple))


def fill(shapes, seed, scale, dtype=jnp.float32):
    """Return arrays of the shapes, from one block of normal numbers repeated."""
    block = np.random.default_rng(seed).standard_normal(1 << 20).astype(np.float32) * scale
    return jax.tree.map(
        lambda shape: jnp.asarray(np.resize(block, shape), dtype), shapes, is_leaf=lambda node: isinstance(node, tuple)
    )


def random_like(shapes, key):
    """Return matrices with normal numbers over the root of their first axis, and zeros for vectors."""
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(key, len(leaves))
    scaled = [
        jax.random.normal(k, s) / np.sqrt(s[0]) if len(s) > 1 else jnp.zeros(s)
        for k, s in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, scaled)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
