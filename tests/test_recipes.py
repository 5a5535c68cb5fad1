"""The recipes of the page against their origins' formulas, written out in NumPy float64."""

import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from tests.running import quick_jit

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "recipes.md"
UPDATES, WARMUP = 20, 4
# Weights near 1 after 20 float32 updates; Muon's iteration is five products of float32 matrices.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


@functools.cache
def recipe(name):
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names[name]


def make_params():
    rng = np.random.RandomState(0)
    shapes = {
        "embed": (6, 4),
        "blocks": [{"mlp": {"kernel": (4, 4), "bias": (4,)}, "norm": {"scale": (4,)}, "gate": (4,)} for _ in range(2)],
        "backbone": {"kernel": (4, 4)},
        "head": {"kernel": (4, 3)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.randn(*shape), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def gradients_of(params, k):
    rng = np.random.RandomState(100 + k)
    return jax.tree.map(lambda p: jnp.asarray(rng.randn(*p.shape), jnp.float32), params)


def ours(tx):
    params = make_params()
    state, step = tx.init(params), quick_jit(tx.update)
    for k in range(UPDATES):
        updates, state = step(gradients_of(params, k), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def cosine(k, end):
    if k < WARMUP:
        return k / WARMUP
    return end + (1 - end) * (1 + math.cos(math.pi * (k - WARMUP) / (UPDATES - WARMUP))) / 2


class Adam:
    def __init__(self, b2=0.999, eps=1e-8):
        self.b2, self.eps, self.mu, self.nu, self.t = b2, eps, 0.0, 0.0, 0

    def __call__(self, g):
        self.t += 1
        self.mu, self.nu = 0.9 * self.mu + 0.1 * g, self.b2 * self.nu + (1 - self.b2) * g * g
        return self.mu / (1 - 0.9**self.t) / (np.sqrt(self.nu / (1 - self.b2**self.t)) + self.eps)


class Muon:
    """Jordan's momentum of 0.95 with Nesterov's look-ahead as optax corrects it, and five steps of his polynomial."""

    def __init__(self):
        self.mu, self.t = 0.0, 0

    def __call__(self, g):
        self.t += 1
        self.mu = 0.95 * self.mu + 0.05 * g
        ahead = 0.95 * self.mu / (1 - 0.95 ** (self.t + 1)) + 0.05 * g / (1 - 0.95**self.t)
        x = ahead / np.linalg.norm(ahead)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x * math.sqrt(max(1.0, g.shape[1] / g.shape[0]))


def theirs(step_of, *, clip=None):
    """Run NumPy's steps: step_of(path) -> a function (theta, gradient, k) -> theta."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), make_params())
    leaves, structure = jax.tree.flatten(params)
    steps = list(map(step_of, aj.leaf_paths(params)))
    for k in range(UPDATES):
        gradients = [np.asarray(g, np.float64) for g in jax.tree.leaves(gradients_of(params, k))]
        if clip is not None:
            norm = math.sqrt(sum(np.sum(g * g) for g in gradients))
            gradients = [g * min(1.0, clip / norm) for g in gradients]
        leaves = [step(theta, g, k) for step, theta, g in zip(steps, leaves, gradients, strict=True)]
    return structure.unflatten(leaves)


def adamw(rate, decay, end=0.0, **numbers):
    """A step of AdamW with the decay times the rate, as PyTorch has it; rate and decay by path."""

    def step_of(path):
        adam = Adam(**numbers)

        def step(theta, g, k):
            alpha = rate(path) * cosine(k, end)
            return theta - alpha * adam(g) - alpha * decay(path) * theta

        return step

    return step_of


def is_kernel(path):
    return path.endswith("kernel") or path == "embed"


def assert_close(got, wanted, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **(tolerance or TOLERANCE)), got, wanted)


@pytest.mark.parametrize("name", ["nanogpt", "llama"])
def test_language_models(name):
    params, _ = ours(recipe(name)(3e-4, UPDATES, WARMUP))
    numbers = {"b2": 0.95, "eps": 1e-8 if name == "nanogpt" else 1e-5}
    decay = {"nanogpt": is_kernel, "llama": is_kernel}[name]
    wanted = theirs(adamw(lambda path: 3e-4, lambda path: 0.1 * decay(path), 0.1, **numbers), clip=1.0)
    assert_close(params, wanted)


def test_layer_wise_rates():
    params, _ = ours(recipe("vit_fine_tuning")(make_params(), 5e-4, UPDATES, WARMUP))

    def rate(path):
        layer = 0 if path == "embed" else 1 + int(path.split("/")[1]) if path.startswith("blocks") else 3
        return 5e-4 * 0.75 ** (3 - layer)

    assert_close(params, theirs(adamw(rate, lambda path: 0.05 * path.endswith("kernel"))))


def test_convnext_and_its_average():
    tx = recipe("convnext")(4e-3, UPDATES, WARMUP)
    params, state = ours(tx)
    assert_close(params, theirs(adamw(lambda path: 4e-3, lambda path: 0.05 * is_kernel(path))))
    assert int(state.seen) == UPDATES


def test_anchors():
    start = dict(zip(aj.leaf_paths(make_params()), jax.tree.leaves(make_params()), strict=True))
    params, _ = ours(recipe("anchored")(1e-3, UPDATES, WARMUP))

    def step_of(path):
        adam, backbone = Adam(), path.startswith("backbone")

        def step(theta, g, k):
            eta = cosine(k, 0.0)
            pull = 0.02 * (theta - np.asarray(start[path], np.float64)) if backbone else 0.0
            return theta - eta * (1e-3 * (0.1 if backbone else 1.0) * adam(g) + pull)

        return step

    assert_close(params, theirs(step_of))


def test_muon_with_held_norms_and_a_late_decay_of_gates():
    params, _ = ours(recipe("muon_held")(0.02, UPDATES, WARMUP))
    start = dict(zip(aj.leaf_paths(make_params()), jax.tree.leaves(make_params()), strict=True))

    def linear(k):
        return k / WARMUP if k < WARMUP else 1 - (k - WARMUP) / (UPDATES - WARMUP)

    def on_sphere(x, radius):
        return x * radius / np.linalg.norm(x)

    def step_of(path):
        small = any(word in path for word in ("embed", "head", "gate", "scale", "bias"))
        direction = Adam(b2=0.95) if small else Muon()
        radius = np.linalg.norm(np.asarray(start[path], np.float64))

        def step(theta, g, k):
            alpha = 0.02 * linear(k) * (0.2 if small else 1.0)
            d = direction(g)
            if path.startswith("blocks") and path.endswith("kernel"):
                return on_sphere(theta - alpha * on_sphere(d, radius), radius)
            decay = 1e-3 * linear(k) if "gate" in path and k >= 0.8 * UPDATES else 0.0
            return theta - alpha * d - decay * theta

        return step

    # Twenty orthogonalizations in float32 on a rate of 0.02: a hundred times their rounding of 1e-6.
    assert_close(params, theirs(step_of), rtol=1e-5, atol=2e-6)
