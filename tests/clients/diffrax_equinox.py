"""A neural differential equation of Diffrax, a module of Equinox trained through the solver.

Packages: diffrax, equinox
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from tests.clients.common import check


class Field(eqx.Module):
    mlp: eqx.nn.MLP

    def __call__(self, t, y, args):
        return self.mlp(y)


times = jnp.linspace(0.0, 1.0, 5)
wanted = jnp.stack([jnp.cos(times), jnp.sin(times)], 1)


def start(tx):
    model = Field(eqx.nn.MLP(2, 2, 8, 1, activation=jnp.tanh, key=jax.random.key(0)))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params):
        field = diffrax.ODETerm(eqx.combine(params, static))
        saved = diffrax.SaveAt(ts=times)
        found = diffrax.diffeqsolve(field, diffrax.Heun(), 0.0, 1.0, 0.1, wanted[0], saveat=saved)
        return jnp.mean((found.ys - wanted) ** 2)

    @jax.jit
    def step(carry):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return (eqx.apply_updates(params, updates), state), value

    return (params, tx.init(params)), step


check(start)
