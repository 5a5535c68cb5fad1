"""Train a small transformer with its parameters and its optimizer's state placed in four ways, and compare.

    python examples/sharded.py                 8 virtual devices in this process
    python examples/sharded.py --processes 2   2 processes of 2 virtual devices, which meet over the loopback

Data parallel: every device holds everything. ZeRO-1: the state is split. FSDP: the parameters are split, too. All three
print the losses of one device, and what a device holds.
"""

import argparse
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import adamw_jax

VOCABULARY, WIDTH, HEADS, LAYERS, LENGTH, BATCH, STEPS = 64, 64, 4, 2, 32, 16, 30

STATE_MODES = {"data parallel": "replicated", "zero1": "zero1", "fsdp": "like_params"}

OPTIMIZER = adamw_jax.adamw(
    3e-3,
    weight_decay={"kernel": 1e-2},
    lr_multipliers={"embedding": 0.5},
    schedule=adamw_jax.cosine_warm_restarts(10, warmup=2),
)


def init_params():
    rng = np.random.default_rng(0)

    def normal(scale, *shape):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    shapes = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    blocks = {name: {"kernel": normal(shape[0] ** -0.5, LAYERS, *shape)} for name, shape in shapes.items()}
    blocks |= {name: np.ones((LAYERS, WIDTH), np.float32) for name in ("norm_1", "norm_2")}
    return {"embedding": normal(0.1, VOCABULARY, WIDTH), "blocks": blocks}


def by_rows(activations):
    """Keep activations split by the rows of the batch; left alone, the compiler may move them instead of parameters."""
    return jax.lax.with_sharding_constraint(activations, P("data"))


def logits(params, tokens):
    def normalize(x, scale):
        return scale * x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    def apply(x, block):
        qkv = by_rows(normalize(x, block["norm_1"]) @ block["qkv"]["kernel"])
        q, k, v = (part.reshape(*tokens.shape, HEADS, -1) for part in jnp.split(qkv, 3, axis=-1))
        mixed = by_rows(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))
        x += by_rows(mixed @ block["out"]["kernel"])
        inner = by_rows(jax.nn.gelu(normalize(x, block["norm_2"]) @ block["up"]["kernel"]))
        return x + by_rows(inner @ block["down"]["kernel"]), None

    x, _ = jax.lax.scan(apply, by_rows(params["embedding"][tokens]), params["blocks"])
    return by_rows(x @ params["embedding"].T)


def loss_of(params, tokens):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, tokens[:, :-1]), tokens[:, 1:])
    return losses.mean()


def batch(step):
    """Sequences that count on by 1, 2 or 3: made by the devices, the same ones on every mesh."""
    row = jnp.arange(BATCH)[:, None] + BATCH * step
    start, stride = 37 * row, 1 + row % 3
    return (start + stride * jnp.arange(LENGTH)) % VOCABULARY


def train(mesh: Mesh, mode: str) -> tuple[list[float], str]:
    """Return the losses, and a line that says what one device holds."""
    whole = NamedSharding(mesh, P())
    params = init_params()
    placement = adamw_jax.fsdp_shardings(params, mesh=mesh) if mode == "fsdp" else jax.tree.map(lambda _: whole, params)
    params = jax.device_put(params, placement)
    state_mode = STATE_MODES[mode]
    state_placement = adamw_jax.state_shardings(OPTIMIZER, params, mesh=mesh, mode=state_mode)
    state = adamw_jax.init_sharded(OPTIMIZER, params, mesh=mesh, mode=state_mode)

    def step(params, state, index):
        tokens = by_rows(batch(index))
        loss, gradients = jax.value_and_grad(loss_of)(params, tokens)
        updates, state = OPTIMIZER.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    step = jax.jit(step, out_shardings=(placement, state_placement, whole), donate_argnums=(0, 1))
    losses = []
    with jax.set_mesh(mesh):
        for index in range(STEPS):
            params, state, loss = step(params, state, index)
            losses.append(float(loss))
    held = [adamw_jax.bytes_per_device(tree) for tree in (params, state)]
    line = f"{mode:<14}{mesh.size:>8}{held[0]:>16,}{held[1]:>16,}{losses[0]:>12.6f}{losses[-1]:>12.6f}"
    return losses, line


def compare(modes: list[str]) -> None:
    """Train on all devices in each way; the first process trains on one device, too, and compares."""
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    runs = {mode: train(mesh, mode) for mode in modes}
    if jax.process_index() > 0:
        return
    print(f"{jax.process_count()} process(es), {len(devices)} devices")
    print(f"{'':<14}{'devices':>8}{'params, B/dev':>16}{'state, B/dev':>16}{'first loss':>12}{'last loss':>12}")
    alone = Mesh(devices[:1], ("data",), axis_types=(AxisType.Auto,))
    expected, line = train(alone, "data parallel")
    print(line.replace("data parallel", "one device   "))
    for mode, (losses, line) in runs.items():
        gap = max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
        print(f"{line}   within {gap:.0e} of one device")
        if gap > 1e-4:  # float32 sums over devices in another order, amplified by the steps of training
            raise SystemExit(f"{mode}: a loss differs from one device's by a factor of 1 + {gap:.1e}")


def launch(processes: int, modes: list[str]) -> None:
    """Start this program once per process, and end with an error if one of them does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, __file__, "--processes", str(processes), "--modes", *modes]
    command += ["--address", address, "--index"]
    children = [subprocess.Popen([*command, str(index)]) for index in range(processes)]
    if codes := [code for code in (child.wait() for child in children) if code]:
        raise SystemExit(f"a process ended with exit code {codes[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=STATE_MODES, default=list(STATE_MODES))
    parser.add_argument("--address", help="where the processes meet; set by the program itself")
    parser.add_argument("--index", type=int, help="which of the processes this one is; set by the program itself")
    options = parser.parse_args()
    if options.processes > 1 and options.index is None:
        launch(options.processes, options.modes)
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8 if options.processes == 1 else 2)
    if options.processes > 1:
        jax.distributed.initialize(options.address, options.processes, options.index)
    compare(options.modes)


if __name__ == "__main__":
    main()
