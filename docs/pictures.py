"""Draws docs/pictures/*.png: python docs/pictures.py."""

import pathlib

import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import adamw_jax as aj
from adamw_jax import plot

HERE = pathlib.Path(__file__).parent / "pictures"


def main():
    """Draw them all."""
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    plot.schedule(aj.cosine_warm_restarts(50, t_mult=2), 350, ax=ax)
    ax.set(title="cosine_warm_restarts(50, t_mult=2)", ylabel="eta")
    figure.savefig(HERE / "restarts.png", dpi=110)

    params = {"embed": jnp.ones((4, 2)), "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    tx = aj.adamw(
        1e-3,
        weight_decay={"kernel": 0.02},
        normalize_decay="cycle",
        lr_multipliers={"embed": 0.3},
        schedule=aj.cosine_warm_restarts(50, t_mult=2, warmup=20),
    )
    plot.schedule(tx, 370, params)[0].figure.savefig(HERE / "preset.png", dpi=110)


if __name__ == "__main__":
    main()
