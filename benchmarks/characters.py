"""A small pre-norm transformer that reads characters, and a text that comes with Python."""

import jax
import jax.numpy as jnp
import numpy as np

VOCABULARY, HEADS = 128, 4


def text():
    """Return Python's own help on its language, half a million characters with some paragraphs in several places."""
    from pydoc_data.topics import topics

    return " ".join(topics.values())


def codes(text):
    """Return the ASCII codes of a text."""
    return np.frombuffer(text.encode("ascii", "replace"), np.uint8) % VOCABULARY


def shapes(width, context, blocks=2):
    """Return the shapes of the parameters for `logits`."""
    block = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    ends = {"tokens": (VOCABULARY, width), "places": (context, width), "head": (width, VOCABULARY)}
    return ends | {"blocks": [block] * blocks}


def norm(x):
    return jax.nn.standardize(x, epsilon=1e-5)


def attend(p, x):
    q, k, v = jnp.split((x @ p["qkv"]).reshape(*x.shape[:-1], HEADS, -1), 3, axis=-1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e9))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ p["out"]


def logits(params, tokens):
    """Return the logits of the next characters: tokens (batch, context) -> (batch, context, VOCABULARY)."""
    x = params["tokens"][tokens] + params["places"]
    for p in params["blocks"]:
        x = x + attend(p, norm(x))
        x = x + jax.nn.gelu(norm(x) @ p["up"]) @ p["down"]
    return norm(x) @ params["head"]
