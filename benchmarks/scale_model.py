"""Do the bytes and collectives of one update follow the cost model of docs/how-to/scale.md?

    python benchmarks/scale_model.py          every case below; results go to results/scale_model.json

Each case is compiled ahead of time from shapes alone, in a process with as many virtual devices as it needs: nothing
is allocated. What is predicted comes from the number of parameters; what is compiled, from `memory_analysis()` and from
the collectives in the text of the program.
"""

import argparse
import json
import math
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CASES = [
    ("gpt2-124m", "replicated", 8, 1),
    ("gpt2-124m", "zero1", 8, 1),
    ("gpt2-124m", "fsdp", 8, 1),
    ("llama-7b", "zero1", 64, 1),
    ("llama-7b", "fsdp", 64, 1),
    ("llama-70b", "fsdp", 256, 1),
    ("llama-70b", "zero1", 256, 8),
]
"""(model, mode, devices, how many of them split the parameters by tensor parallelism)."""

MATRICES_BY_COLUMNS = ("qkv", "up", "gate", "wq", "wk", "wv")


def gpt2() -> dict[str, Any]:
    """Shapes of GPT-2 (124 439 808 parameters): one leaf per layer and name, biases included."""
    width, layers = 768, 12

    def dense(rows: int, columns: int) -> dict[str, Any]:
        return {"kernel": (rows, columns), "bias": (columns,)}

    norm = {"scale": (width,), "bias": (width,)}
    block = {"qkv": dense(width, 3 * width), "out": dense(width, width), "norm_1": norm, "norm_2": norm}
    block |= {"up": dense(width, 4 * width), "down": dense(4 * width, width)}
    return {"tokens": (50257, width), "positions": (1024, width), "norm": norm} | {
        f"block_{i}": block for i in range(layers)
    }


def llama(layers: int, width: int, inner: int, key_value: int) -> dict[str, Any]:
    """Shapes of a Llama 2: one leaf per layer and name, no biases."""
    block = {"wq": (width, width), "wk": (width, key_value), "wv": (width, key_value), "wo": (width, width)}
    block |= {"gate": (width, inner), "up": (width, inner), "down": (inner, width)}
    block |= {"norm_1": (width,), "norm_2": (width,)}
    return {"tokens": (32000, width), "output": (width, 32000), "norm": (width,)} | {
        f"block_{i}": block for i in range(layers)
    }


MODELS = {
    "gpt2-124m": gpt2,
    "llama-7b": lambda: llama(32, 4096, 11008, 4096),
    "llama-70b": lambda: llama(80, 8192, 28672, 1024),
}


def compile_case(model: str, mode: str, devices: int, tensor: int) -> dict[str, Any]:
    """Compile one update and return what was predicted and what was found, in bytes per device."""
    import jax
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

    import adamw_jax
    from benchmarks.collectives import bytes_by_kind, collectives

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    mesh = jax.make_mesh((devices // tensor, tensor), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def tensor_parallel(path: Any, shape: tuple[int, ...]) -> P:
        if tensor == 1 or len(shape) == 1:
            return P()
        by_columns = any(getattr(key, "key", None) in (*MATRICES_BY_COLUMNS, "output") for key in path)
        return P(None, "model") if by_columns else P("model")

    def leaf(path: Any, shape: tuple[int, ...]) -> Any:
        return jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, tensor_parallel(path, shape)))

    params = jax.tree.map_with_path(leaf, MODELS[model](), is_leaf=lambda node: isinstance(node, tuple))
    if mode == "fsdp":
        split = adamw_jax.fsdp_shardings(params, mesh=mesh)
        params = jax.tree.map(lambda p, to: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=to), params, split)
    tx = adamw_jax.adamw(1e-3, weight_decay=1e-2, schedule=adamw_jax.cosine_warm_restarts(1000))
    state_mode = "like_params" if mode == "fsdp" else mode
    shardings = adamw_jax.state_shardings(tx, params, mesh=mesh, mode=state_mode)
    state = jax.tree.map(
        lambda s, to: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=to), jax.eval_shape(tx.init, params), shardings
    )

    def update(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    outputs = (jax.tree.map(lambda p: p.sharding, params), shardings)
    began = time.perf_counter()
    compiled = jax.jit(update, out_shardings=outputs, donate_argnums=(0, 1)).lower(params, state, params).compile()
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    leaves = len(jax.tree.leaves(params))
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    held = 4 * count / tensor  # bytes of the parameters on each group of devices that shares them
    replicas = devices // tensor
    predicted = {
        "params": held / replicas if mode == "fsdp" else held,
        "state": 2 * held if mode == "replicated" else 2 * held / replicas,
        "gathered": held if mode == "zero1" else 0.0,
    }
    arguments = 2 * predicted["params"] + predicted["state"]
    found = {"params": adamw_jax.bytes_per_device(params), "state": adamw_jax.bytes_per_device(state)}
    kinds = bytes_by_kind(compiled)
    return {
        "model": model,
        "program": "update",
        "mode": mode,
        "devices": devices,
        "tensor_parallel": tensor,
        "parameters": count,
        "leaves": leaves,
        "predicted_bytes": {name: round(value) for name, value in predicted.items()} | {"arguments": round(arguments)},
        "compiled_bytes": found
        | {"gathered": kinds.get("all-gather", 0), "arguments": memory.argument_size_in_bytes}
        | {"outputs": memory.output_size_in_bytes, "aliased": memory.alias_size_in_bytes}
        | {"temporary": memory.temp_size_in_bytes},
        "collective_bytes": kinds,
        "collectives": len(collectives(compiled)),
        "compile_s": round(seconds, 1),
    }


def compile_step(mode: str) -> dict[str, Any]:
    """Compile a whole training step of the example's transformer in GPT-2's size, on 8 devices."""
    import jax
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

    import adamw_jax
    from benchmarks.collectives import bytes_by_kind
    from examples import sharded

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    sharded.VOCABULARY, sharded.WIDTH, sharded.HEADS, sharded.LAYERS = 50257, 768, 12, 12
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, P())
    params = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, sharded.init_params()))
    placed = adamw_jax.fsdp_shardings(params, mesh=mesh) if mode == "fsdp" else jax.tree.map(lambda _: whole, params)
    params = jax.tree.map(lambda p, to: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=to), params, placed)
    tx = sharded.OPTIMIZER
    shardings = adamw_jax.state_shardings(tx, params, mesh=mesh, mode="like_params" if mode == "fsdp" else mode)
    state = jax.tree.map(
        lambda s, to: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=to), jax.eval_shape(tx.init, params), shardings
    )

    def step(params: Any, state: Any, index: Any) -> Any:
        tokens = sharded.by_rows(sharded.batch(index))
        loss, gradients = jax.value_and_grad(sharded.loss_of)(params, tokens)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    began = time.perf_counter()
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, out_shardings=(placed, shardings, whole), donate_argnums=(0, 1))
        compiled = jitted.lower(params, state, 0).compile()
    memory = compiled.memory_analysis()
    held = 4 * sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    return {
        "model": "gpt2-124m, stacked layers, no biases",
        "program": "step",
        "mode": mode,
        "devices": 8,
        "parameter_bytes": held,
        "collective_bytes_over_parameter_bytes": {k: round(v / held, 4) for k, v in bytes_by_kind(compiled).items()},
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "compile_s": round(time.perf_counter() - began, 1),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table of Markdown, in MB per device, predicted / compiled."""
    lines = ["| model | devices | mode | state | gathered | arguments | temporary | collectives |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for case in results:
        predicted, found = case["predicted_bytes"], case["compiled_bytes"]
        pairs = [f"{predicted[k] / 1e6:,.1f} / {found[k] / 1e6:,.1f}" for k in ("state", "gathered", "arguments")]
        tensor = f" x {case['tensor_parallel']}" if case["tensor_parallel"] > 1 else ""
        devices = f"{case['devices'] // case['tensor_parallel']}{tensor}"
        cells = [case["model"], devices, case["mode"], *pairs, f"{found['temporary'] / 1e6:,.1f}"]
        lines.append(f"| {' | '.join(cells)} | {case['collectives']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, help="compile the update of this one of the cases and print the result")
    parser.add_argument("--step", help="compile the whole step in this mode and print the result")
    options = parser.parse_args()
    if options.case is not None or options.step:
        print(json.dumps(compile_step(options.step) if options.step else compile_case(*CASES[options.case])))
        return
    path = ROOT / "benchmarks" / "results" / "scale_model.json"
    path.parent.mkdir(exist_ok=True)

    def compiled(*arguments: str) -> dict[str, Any]:
        done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    results = [compiled("--case", str(number)) for number in range(len(CASES))]
    steps = [compiled("--step", mode) for mode in ("replicated", "zero1", "fsdp")]
    machine = f"{platform.machine()}, CPU, Python {platform.python_version()}"
    about = {"command": "python benchmarks/scale_model.py", "machine": machine}
    path.write_text(json.dumps(about | {"updates": results, "steps": steps}, indent=1) + "\n")
    print(table(results))
    print(json.dumps(steps, indent=1))


if __name__ == "__main__":
    main()
