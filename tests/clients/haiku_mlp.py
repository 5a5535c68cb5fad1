"""An MLP of Haiku: its parameters are {module: {name: array}}.

Packages: dm-haiku
"""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from tests.clients.common import check

x = jax.random.normal(jax.random.key(0), (32, 4))
model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 1])(x)))


def start(tx):
    def loss(params):
        return jnp.mean((model.apply(params, x)[:, 0] - x[:, 0]) ** 2)

    @jax.jit
    def step(carry):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    params = model.init(jax.random.key(1), x)
    return (params, tx.init(params)), step


check(start)
