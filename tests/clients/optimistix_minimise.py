"""A minimisation of Optimistix, which wraps an optax optimizer and stops where it has converged.

Packages: optimistix
"""

import jax.numpy as jnp
import optimistix as optx

from tests.clients.common import OPTIMIZERS, end


def loss(params, scale):
    return jnp.sum((params["kernel"] @ params["kernel"] - scale * jnp.eye(3)) ** 2) + jnp.sum(params["bias"] ** 2)


for name, make in OPTIMIZERS.items():
    start = {"kernel": jnp.eye(3) + 0.1, "bias": jnp.ones(3)}
    solver = optx.OptaxMinimiser(make(), rtol=1e-4, atol=1e-4)
    found = optx.minimise(loss, solver, start, args=2.0, max_steps=500, throw=False)
    end(name, [float(loss(start, 2.0)), float(loss(found.value, 2.0))], f"{int(found.stats['num_steps'])} steps")
