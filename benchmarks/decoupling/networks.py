"""The networks of the study: residual convolutions with and without a normalization, one hidden layer, a linear one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np


def batch_norm(x, scale, rows):
    """Return x with mean 0 and one variance in each channel, by the statistics of the first `rows` examples."""
    axes = tuple(range(x.ndim - 1))
    mean, variance = x[:rows].mean(axes), x[:rows].var(axes)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale


def layer_norm(x, scale, rows):
    """Return x with mean 0 and one variance over the channels and places of each example."""
    del rows
    return jax.nn.standardize(x, axis=tuple(range(1, x.ndim)), epsilon=1e-5) * scale


def layer_norm_at_places(x, scale, rows):
    """Return x with mean 0 and one variance over the channels of each place."""
    del rows
    return jax.nn.standardize(x, epsilon=1e-5) * scale


def no_norm(x, scale, rows):
    """Return x; the scale is there for one structure of the parameters, and does nothing."""
    del scale, rows
    return x


NORMS = {"batch": batch_norm, "layer": layer_norm, "layer at places": layer_norm_at_places, "none": no_norm}


def convolve(x, kernel, stride=1):
    """Return the convolution over all axes between the first and the last, as one matrix product.

    Under vmap over the kernels, XLA's own convolution is ten times slower on CPUs.
    """
    *taps, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *((tap // 2, tap // 2) for tap in taps), (0, 0)))
    ends = [(size - tap) // stride * stride + 1 for size, tap in zip(x.shape[1:-1], taps, strict=True)]

    def shifted(place):
        spans = (slice(i, i + end, stride) for i, end in zip(place, ends, strict=True))
        return x[(slice(None), *spans)]

    columns = jnp.concatenate([shifted(place) for place in itertools.product(*map(range, taps))], axis=-1)
    return columns @ kernel.reshape(-1, features)


def residual_shapes(width, axes, classes=10):
    """Return the kernels' shapes, for signals (axes=1) or images (axes=2) of one channel."""
    taps, wide = (3,) * axes, 2 * width
    stem = (5,) if axes == 1 else taps
    return {
        "stem": (*stem, 1, width),
        "block_1a": (*taps, width, width),
        "block_1b": (*taps, width, width),
        "down": (*taps, width, wide),
        "block_2a": (*taps, wide, wide),
        "block_2b": (*taps, wide, wide),
        "head": (wide, classes),
    }


def init(shapes, key):
    """Return He's kernels, zero biases and unit scales."""
    keys = jax.random.split(key, len(shapes))

    def layer(key, shape):
        kernel = jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1]))
        return {"kernel": kernel, "bias": jnp.zeros(shape[-1]), "scale": jnp.ones(shape[-1])}

    return {name: layer(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def residual_logits(params, x, rows, *, norm):
    """Return stem, residual block, strided convolution, residual block, mean, head."""

    def layer(name, x, stride=1):
        p = params[name]
        return norm(convolve(x, p["kernel"], stride), p["scale"], rows) + p["bias"]

    def block(name, x):
        return jax.nn.relu(x + layer(f"{name}b", jax.nn.relu(layer(f"{name}a", x))))

    x = jax.nn.relu(layer("stem", x, stride=2 if x.ndim == 3 else 1))
    x = block("block_1", x)
    x = jax.nn.relu(layer("down", x, stride=2))
    x = block("block_2", x)
    x = x.mean(tuple(range(1, x.ndim - 1)))
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def residual(norm, axes=1, width=16):
    """Return `init` and `logits` of a residual network with that normalization."""
    shapes = residual_shapes(width, axes)
    return functools.partial(init, shapes), functools.partial(residual_logits, norm=NORMS[norm])


def dense(inputs, outputs, hidden=64):
    """Return `init` and `logits` of a network with one hidden layer, or of a linear one (hidden=None)."""
    shapes = {"body": (inputs, hidden), "head": (hidden, outputs)} if hidden else {"head": (inputs, outputs)}

    def logits(params, x, rows):
        del rows
        if hidden:
            x = jax.nn.relu(x @ params["body"]["kernel"] + params["body"]["bias"])
        return x @ params["head"]["kernel"] + params["head"]["bias"]

    def start(key):
        keys = jax.random.split(key, len(shapes))
        return {
            name: {"kernel": jax.random.normal(key, shape) / shape[0] ** 0.5, "bias": jnp.zeros(shape[1])}
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return start, logits
