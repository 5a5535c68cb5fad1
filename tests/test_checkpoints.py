"""Checkpoints: the whole state, onto other meshes, under other multipliers, from optax; damage is an error."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import adamw_jax as aj
from examples import checkpoints

RESTARTS = aj.cosine_warm_restarts(3, t_mult=2)


def params():
    rng = np.random.default_rng(0)
    shapes = {"embed": (32, 24), "dense": {"kernel": (24, 16), "bias": (16,)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def gradients(count):
    return jax.tree.map(lambda p: np.sin(np.asarray(p) * (count + 2)), params())


def train(tx, run, steps):
    @jax.jit
    def step(run, gradients):
        updates, state = tx.update(gradients, run["state"], run["params"])
        return {"params": optax.apply_updates(run["params"], updates), "state": state}

    for count in steps:
        run = step(run, gradients(count))
    return run


def start(tx):
    return {"params": params(), "state": tx.init(params())}


def placed_shapes(tx, devices):
    """The shapes of a run with its state split over some of the devices."""
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    run = jax.eval_shape(start, tx) if False else {"params": params(), "state": jax.eval_shape(tx.init, params())}
    whole = jax.tree.map(lambda _: NamedSharding(mesh, P()), run["params"])
    state = aj.state_shardings(tx, params(), mesh=mesh, mode="zero1", min_size=16)
    return checkpoints.shapes(run, {"params": whole, "state": state})
