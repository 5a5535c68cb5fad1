"""The size of what one update changes in a layer's outputs, over widths: the check of a rule for the width."""

import jax
import jax.numpy as jnp
import optax

import adamw_jax as aj

WIDTHS, RATE, UPDATES = (32, 64, 128, 256), 1e-4, 10
INPUTS, OUTPUTS, BATCH = 16, 8, 64


def sizes(width):
    return {"first": (INPUTS, width), "hidden": (width, width), "last": (width, OUTPUTS)}


def multipliers(width):
    """Return the multipliers that `transfer` gives at a width, for a rate of the narrowest network."""

    def run(width):
        shapes = {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes(width).items()}
        return aj.Run(shapes, updates=UPDATES, batch=BATCH)

    one = dict.fromkeys(sizes(width), 1.0)
    return aj.transfer({"learning_rate": RATE}, run(WIDTHS[0]), run(width)).get("lr_multipliers", one)


def changes(width, multipliers):
    """Return the root mean square of what each of ten updates changes in the hidden layer's and the last's outputs."""
    keys = jax.random.split(jax.random.key(0), 5)
    pairs = zip(keys, sizes(width).items(), strict=False)
    params = {name: jax.random.normal(key, size) / size[0] ** 0.5 for key, (name, size) in pairs}
    x, y = jax.random.normal(keys[3], (BATCH, INPUTS)), jax.random.normal(keys[4], (BATCH, OUTPUTS))
    tx = aj.adamw(RATE, lr_multipliers=multipliers)

    def outputs(params, weights):
        """Return both layers' outputs with `weights`, for the inputs that `params` give them."""
        first = jax.nn.relu(x @ params["first"])
        hidden = jax.nn.relu(first @ params["hidden"])
        return {"hidden": first @ weights["hidden"], "last": hidden @ weights["last"]}

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: jnp.mean((outputs(p, p)["last"] - y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        new = optax.apply_updates(params, updates)
        moved = jax.tree.map(
            lambda a, b: jnp.sqrt(jnp.mean((a - b) ** 2)), outputs(params, new), outputs(params, params)
        )
        return (new, state), moved

    _, moved = jax.lax.scan(step, (params, tx.init(params)), length=UPDATES)
    return moved
