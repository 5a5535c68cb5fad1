"""How much device memory does an update need whose state lives in the host's memory, compiled for a TPU v5e?

    python -m benchmarks.compiled_host

Nothing runs: the figures are the compiler's memory analysis of one jitted, donating step.
"""

import math
from typing import Any

from benchmarks import targets

import jax  # isort: skip - targets says first that it runs on the CPU
import optax

import adamw_jax as aj
from benchmarks.report import publish

PARTS = "mu|nu|moments"
CASES = {
    "12 of 2048 x 2048": (12, (2048, 2048)),
    "18 of 10240 x 10240": (18, (10240, 10240)),
}


def streamed(moment_dtype: str) -> Any:
    return aj.with_host_state(aj.adamw(1e-3, weight_decay=0.1, moment_dtype=moment_dtype), PARTS)


def at_once(moment_dtype: str) -> Any:
    """Return an optimizer that copies its whole state to the device, and back when all is done."""
    inner = aj.adamw(1e-3, weight_decay=0.1, moment_dtype=moment_dtype)
    host = aj.with_host_state(inner, PARTS)

    def update(updates: Any, state: Any, params: Any) -> Any:
        spaces = jax.tree.map(lambda leaf: jax.typeof(leaf).memory_space, state)
        onto = jax.tree.map(lambda leaf: jax.device_put(leaf, jax.memory.Space.Device), state)
        updates, new = inner.update(updates, onto, params)
        return updates, jax.tree.map(jax.device_put, new, spaces)

    return optax.GradientTransformation(host.init, update)


KINDS = {
    "in device memory": lambda dtype: aj.adamw(1e-3, weight_decay=0.1, moment_dtype=dtype),
    "in the host, copied at once": at_once,
    "in the host, streamed": streamed,
}


def compiled(tx: Any, shapes: Any, mesh: Any, mode: str) -> Any:
    """Compile one donating step of an optimizer for a mesh, every array placed."""
    whole = jax.NamedSharding(mesh, jax.P())
    params = [jax.ShapeDtypeStruct(shape, "float32", sharding=whole) for shape in shapes]
    places = aj.state_shardings(tx, params, mesh=mesh, mode=mode)
    state = jax.tree.map(
        lambda s, to: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=to), jax.eval_shape(tx.init, params), places
    )

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    outputs = ([whole] * len(params), places)
    return jax.jit(step, donate_argnums=(0, 1), out_shardings=outputs).lower(params, state, params).compile()


def row(name: str, kind: str, moment_dtype: str, mesh: Any, mode: str) -> dict[str, Any]:
    number, shape = CASES[name]
    facts = {"leaves": name, "state": kind, "moments": moment_dtype, "chips": mesh.size}
    try:
        memory = compiled(KINDS[kind](moment_dtype), [shape] * number, mesh, mode).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return facts | dict.fromkeys(
            ("arguments, MB", "temporary, MB", "in a leaf's state", "host, MB"), "does not fit"
        )
    bytes_of_leaf = math.prod(shape) * (8 if moment_dtype == "float32" else 4) / (mesh.size if mode == "zero1" else 1)
    return facts | {
        "arguments, MB": memory.argument_size_in_bytes / 1e6,
        "temporary, MB": memory.temp_size_in_bytes / 1e6,
        "in a leaf's state": memory.temp_size_in_bytes / bytes_of_leaf,
        "host, MB": (memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes) / 1e6,
    }


def main() -> None:
    one, four = targets.mesh("v5e"), targets.mesh("v5e:2x2")
    rows = [
        row(name, kind, moment_dtype, one, "like_params")
        for name in CASES
        for kind in KINDS
        for moment_dtype in ("float32", "packed")
    ]
    rows += [row("12 of 2048 x 2048", kind, "packed", four, "zero1") for kind in KINDS]
    publish("compiled_host", rows)


if __name__ == "__main__":
    main()
