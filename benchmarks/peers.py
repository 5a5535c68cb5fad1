"""The optimizers that are compared: each is prepared once, and then makes one step per call."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj

RATE, DECAY = 1e-3, 0.1
RULES = {"weight_decay": {"kernel|tokens|layer": (1e-6, 1e-4)}, "lr_multipliers": {".": 0.5}}
EXTRAS = RULES | {"schedule": aj.cosine_warm_restarts(1000, t_mult=2), "normalize_decay": "cycle"}
SAME = {"weight_decay": DECAY, "coupling": "learning_rate"}

TRANSFORMS = {
    "optax adamw": lambda: optax.adamw(RATE, weight_decay=DECAY),
    "optax nadamw": lambda: optax.nadamw(RATE, weight_decay=DECAY),
    "optax sgdw": lambda: optax.chain(
        optax.trace(0.9), optax.add_decayed_weights(DECAY), optax.scale_by_learning_rate(RATE)
    ),
    "adamw": lambda: aj.adamw(RATE, **SAME),
    "adamw packed": lambda: aj.adamw(RATE, moment_dtype="packed", **SAME),
    "adamw packed8": lambda: aj.adamw(RATE, moment_dtype="packed8", **SAME),
    "adamw bfloat16": lambda: aj.adamw(RATE, moment_dtype="bfloat16", **SAME),
    "adamw no extras": lambda: aj.adamw(RATE),
    "adamw all extras": lambda: aj.adamw(RATE, **EXTRAS),
    "adamw packed all extras": lambda: aj.adamw(RATE, moment_dtype="packed", **EXTRAS),
    "nadamw": lambda: aj.nadamw(RATE, **SAME),
    "nadamw packed": lambda: aj.nadamw(RATE, moment_dtype="packed", **SAME),
    "sgdw": lambda: aj.sgdw(RATE, **SAME),
    "sgdw packed": lambda: aj.sgdw(RATE, moment_dtype="packed", **SAME),
}
TORCH = {
    "torch default": {"foreach": False, "fused": False},
    "torch foreach": {"foreach": True},
    "torch fused": {"fused": True},
}
STREAM = "in-place stream"


def step_function(tx):
    def step(params, grads, state):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def _transform(name, params, grads):
    tx = TRANSFORMS[name]()
    carry = [jax.tree.map(jnp.copy, params), jax.jit(tx.init)(params)]
    step = jax.jit(step_function(tx), donate_argnums=(0, 2))

    def run():
        carry[:] = step(carry[0], grads, carry[1])
        jax.block_until_ready(carry)

    return run


def _keras(params, grads):
    import keras

    variables = [keras.Variable(p) for p in jax.tree.leaves(params)]
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=DECAY)
    optimizer.build(variables)
    grads = jax.tree.leaves(grads)
    carry = [[v.value for v in variables], [v.value for v in optimizer.variables]]
    step = jax.jit(lambda p, g, state: optimizer.stateless_apply(state, g, p), donate_argnums=(0, 2))

    def run():
        carry[:] = step(carry[0], grads, carry[1])
        jax.block_until_ready(carry)

    return run


def _torch(name, params, grads):
    import torch

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"

    def tensor(leaf):
        dtype = torch.bfloat16 if leaf.dtype == jnp.bfloat16 else torch.float32
        return torch.tensor(np.asarray(leaf, np.float32)).to(device, dtype)

    tensors = [torch.nn.Parameter(tensor(p)) for p in jax.tree.leaves(params)]
    for each, grad in zip(tensors, jax.tree.leaves(grads), strict=True):
        each.grad = tensor(grad)
    optimizer = torch.optim.AdamW(tensors, lr=RATE, weight_decay=DECAY, **TORCH[name])

    def run():
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _stream(params):
    carry = [jnp.ones(sum(p.size for p in jax.tree.leaves(params)), jnp.float32)]
    scale = jax.jit(lambda x: x * jnp.float32(1.0001), donate_argnums=0)

    def run():
        carry[0] = scale(carry[0])
        carry[0].block_until_ready()

    return run


def prepare(name, params, grads):
    """Return a function that makes one update of the whole tree and waits for it; None where the peer is missing."""
    if name in TRANSFORMS:
        return _transform(name, params, grads)
    if name == STREAM:
        return _stream(params)
    if importlib.util.find_spec(name.split()[0]) is None:
        return None
    return _keras(params, grads) if name == "keras" else _torch(name, params, grads)


def machine():
    """Return versions, machine and command for a results file."""
    cpu = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
    versions = {}
    for package in ("jax", "jaxlib", "optax", "keras", "torch", "numpy"):
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package)
    parts = [part for part in Path(sys.argv[0]).with_suffix("").parts if part != "__main__"]
    script = ".".join(parts[-2:])
    return {
        "command": " ".join(["python -m", script, *sys.argv[1:]]),
        "device": jax.devices()[0].device_kind,
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions,
    }
