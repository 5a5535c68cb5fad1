"""Which collectives does one update have on 8, 64 and 256 chips, as the compilers of TPUs and GPUs see it?

    python -m benchmarks.compiled_scale v5e:2x4 v5e:8x8 ...

One update of AdamW from shapes alone, in float32, layers stacked, for the state of this library and of optax under the
same rule. Predicted: ZeRO-1 gathers the new parameters, 4 bytes each, and FSDP sends nothing.
"""

import argparse
import math
import time
from typing import Any

from benchmarks import targets

import jax  # isort: skip - targets says first that it runs on the CPU
import optax

import adamw_jax as aj
from benchmarks.collectives import bytes_by_kind, collectives
from benchmarks.report import publish


def gpt2() -> dict[str, Any]:
    """GPT-2 without biases, its twelve layers stacked: 124 million parameters."""
    blocks = {"qkv": (12, 768, 2304), "out": (12, 768, 768), "up": (12, 768, 3072), "down": (12, 3072, 768)}
    return {"tokens": (50257, 768), "positions": (1024, 768), "norms": (25, 768)} | blocks


def llama(layers: int, width: int, inner: int, key_value: int) -> dict[str, Any]:
    """A Llama 2, its layers stacked."""
    attention = {"wq": (width, width), "wk": (width, key_value), "wv": (width, key_value), "wo": (width, width)}
    block = attention | {"gate": (width, inner), "up": (width, inner), "down": (inner, width), "norms": (2, width)}
    stacked = {name: (layers, *shape) for name, shape in block.items()}
    return {"tokens": (32000, width), "output": (width, 32000), "norm": (width,)} | stacked


MODELS = {
    "124M": gpt2(),
    "1.3B": llama(24, 2048, 5632, 2048),
    "6.7B": llama(32, 4096, 11008, 4096),
    "70B": llama(80, 8192, 28672, 1024),
}
OPTIMIZERS = {
    "optax adamw": lambda: optax.adamw(1e-3, weight_decay=0.1),
    "adamw": lambda: aj.adamw(1e-3, weight_decay=0.1, coupling="learning_rate"),
    "adamw packed": lambda: aj.adamw(1e-3, weight_decay=0.1, coupling="learning_rate", moment_dtype="packed"),
}


def row(target: str, model: str, mode: str, optimizer: str) -> dict[str, Any]:
    """Compile one update, and compare its collectives with the model."""
    mesh = targets.mesh(target)
    shapes, tx = MODELS[model], OPTIMIZERS[optimizer]()
    whole = jax.NamedSharding(mesh, jax.P())
    params = {name: jax.ShapeDtypeStruct(shape, "float32", sharding=whole) for name, shape in shapes.items()}
    if mode == "fsdp":
        split = aj.fsdp_shardings(params, mesh=mesh)
        params = jax.tree.map(lambda p, to: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=to), params, split)
    places = aj.state_shardings(tx, params, mesh=mesh, mode="like_params" if mode == "fsdp" else mode)
    state = jax.tree.map(
        lambda s, to: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=to), jax.eval_shape(tx.init, params), places
    )

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    outputs = (jax.tree.map(lambda p: p.sharding, params), places)
    count = sum(math.prod(shape) for shape in shapes.values())
    facts = {"chips": target, "model": model, "mode": mode, "optimizer": optimizer}
    facts["predicted, MB"] = 4 * count / 1e6 if mode == "zero1" else 0.0
    began = time.perf_counter()
    try:
        compiled = jax.jit(step, donate_argnums=(0, 1), out_shardings=outputs).lower(params, state, params).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return facts | {"compiled, MB": "does not fit", "collectives": "", "arguments, MB": "", "temporary, MB": ""}
    kinds = bytes_by_kind(compiled)
    memory = compiled.memory_analysis()
    print(facts, kinds, f"{time.perf_counter() - began:.0f} s", flush=True)
    return facts | {
        "compiled, MB": sum(kinds.values()) / 1e6,
        "collectives": ", ".join(f"{sum(each.kind == kind for each in collectives(compiled))} {kind}" for kind in kinds)
        or "none",
        "arguments, MB": memory.argument_size_in_bytes / 1e6,
        "temporary, MB": memory.temp_size_in_bytes / 1e6,
    }


CASES = {
    8: (("124M", "zero1"), ("124M", "fsdp"), ("1.3B", "zero1"), ("1.3B", "fsdp")),
    16: (("124M", "zero1"), ("6.7B", "zero1")),
    64: (("124M", "zero1"), ("6.7B", "zero1"), ("6.7B", "fsdp")),
    256: (("124M", "zero1"), ("6.7B", "zero1"), ("70B", "fsdp")),
}
"""(model, mode) by the number of chips."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    name = f"compiled_scale_{targets.target(args.targets[0]).platform}"
    rows = [
        row(target, *case, optimizer)
        for target in args.targets
        for case in CASES[targets.target(target).devices]
        for optimizer in OPTIMIZERS
    ]
    publish(name, rows)


if __name__ == "__main__":
    main()
