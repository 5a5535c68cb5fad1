"""A model of Penzai under its own trainer: parameters are labelled boxes, the state lies in the trainer.

Packages: penzai
"""

import jax
import jax.numpy as jnp
from penzai import pz
from penzai.models import simple_mlp
from penzai.toolshed import basic_training

from tests.clients.common import OPTIMIZERS, end

x = pz.nx.wrap(jax.random.normal(jax.random.key(0), (32, 4))).tag("batch", "features")


def loss(model, rng, state):
    difference = model(x)[{"features": 0}] - x[{"features": 0}]
    value = jnp.mean(difference.unwrap("batch") ** 2)
    return value, state, {"loss": value}


for name, make in OPTIMIZERS.items():
    model = simple_mlp.MLP.from_config(name="mlp", init_base_rng=jax.random.key(1), feature_sizes=[4, 8, 1])
    trainer = basic_training.StatefulTrainer.build(
        root_rng=jax.random.key(2), model=model, optimizer_def=make(), loss_fn=loss
    )
    end(name, [float(trainer.step()["loss"]) for _ in range(40)])
