"""Stochastic variational inference of NumPyro, which takes an optax optimizer as it is.

Packages: numpyro
"""

import jax
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO, autoguide

from tests.clients.common import check

x = jax.random.normal(jax.random.key(0), (64, 3))
y = x @ jax.numpy.array([1.0, -2.0, 0.5])


def model(x, y):
    weights = numpyro.sample("weights", dist.Normal(jax.numpy.zeros(3), 1.0).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(x @ weights, 0.5), obs=y)


def start(tx):
    svi = SVI(model, autoguide.AutoNormal(model), tx, Trace_ELBO(num_particles=4))
    step = jax.jit(lambda state: svi.update(state, x, y))
    return svi.init(jax.random.key(1), x, y), step


check(start, steps=100)
