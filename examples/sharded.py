"""Train a small transformer with its parameters and its optimizer's state placed in four ways, and compare.

    python examples/sharded.py                 8 virtual devices in this process
    python examples/sharded.py --processes 2   2 processes of 2 virtual devices, which meet over the loopback

Data parallel: every device holds everything. ZeRO-1: the state is split. FSDP: the parameters are split, too. All three
print the losses of one device, and what a device holds; the picture shows both, in examples/out/sharded.png.
"""

import pathlib
import socket
import subprocess
import sys

try:
    import terminal
except ModuleNotFoundError:  # imported from the folder above
    from examples import terminal

with terminal.extras():
    import jax
    import jax.numpy as jnp
    import matplotlib.pyplot as plt
    import numpy as np
    import optax
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

    import adamw_jax

VOCABULARY, WIDTH, HEADS, LAYERS, LENGTH, BATCH = 64, 64, 4, 2, 32, 16
STEPS, QUICK_STEPS = 30, 2

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


def train(mesh: Mesh, mode: str, steps: int) -> tuple[list[float], list[int]]:
    """Return the losses, and the bytes of the parameters and of the state that one device holds."""
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
        for index in range(steps):
            params, state, loss = step(params, state, index)
            losses.append(float(loss))
    return losses, [adamw_jax.bytes_per_device(tree) for tree in (params, state)]


def draw(runs: dict[str, tuple[list[float], list[int]]], path: pathlib.Path) -> None:
    """Draw what a device holds, and the losses: lines that lie on top of one another."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    begin = np.zeros(len(runs))
    for index, (what, color) in enumerate((("parameters", "#0072B2"), ("optimizer's state", "#D55E00"))):
        values = np.array([held[index] for _, held in runs.values()]) / 1024
        left.barh(list(runs), values, left=begin, color=color, label=what)
        begin += values
    left.invert_yaxis()
    left.set(xlabel="KiB on each device", title="What a device holds")
    left.legend()
    for (name, (losses, _)), width in zip(runs.items(), np.linspace(7, 1, len(runs)), strict=True):
        right.plot(range(1, len(losses) + 1), losses, linewidth=width, label=name)
    right.set(xlabel="update", ylabel="loss", title="The same losses, one line on top of the other")
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def compare(modes: list[str], steps: int, path: pathlib.Path) -> None:
    """Train on all devices in each way; the first process trains on one device, too, compares and draws."""
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    sharded = {mode: train(mesh, mode, steps) for mode in modes}
    if jax.process_index() > 0:
        return
    alone = Mesh(devices[:1], ("data",), axis_types=(AxisType.Auto,))
    runs = {"one device": train(alone, "data parallel", steps)} | sharded
    expected, rows, gaps = runs["one device"][0], [], {}
    for mode, (losses, (params, state)) in runs.items():
        gap = gaps[mode] = max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
        number, said = (mesh.size, f"within {gap:.0e} of one device") if mode in sharded else (1, "-")
        rows.append([mode, number, f"{params:,}", f"{state:,}", f"{losses[0]:.6f}", f"{losses[-1]:.6f}", said])
    print(f"{jax.process_count()} process(es), {len(devices)} devices\n")
    titles = ["", "devices", "params, B/dev", "state, B/dev", "first loss", "last loss", "all losses"]
    print(terminal.table(titles, rows))
    draw(runs, path)
    print(f"\npicture: {path}")
    if max(gaps.values()) > 1e-4:  # float32 sums over devices in another order, amplified by the steps of training
        terminal.stop(f"a loss differs from one device's: {gaps}", code=1)


def launch(processes: int, arguments: list[str]) -> None:
    """Start this program once per process, and end with an error if one of them does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, __file__, *arguments, "--address", address, "--index"]
    children = [subprocess.Popen([*command, str(index)]) for index in range(processes)]
    if codes := [code for code in (child.wait() for child in children) if code]:
        raise SystemExit(f"a process ended with exit code {codes[0]}")


def main(argv: list[str] | None = None) -> None:
    parser = terminal.flags(__doc__)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=STATE_MODES, default=list(STATE_MODES))
    parser.add_argument("--address", help="where the processes meet; set by the program itself")
    parser.add_argument("--index", type=int, help="which of the processes this one is; set by the program itself")
    options = parser.parse_args(argv)
    if options.processes < 1:
        parser.error(f"--processes must be 1 or more, got {options.processes}")
    path = terminal.writable(options.out) / "sharded.png"
    if options.processes > 1 and options.index is None:
        launch(options.processes, sys.argv[1:] if argv is None else argv)
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8 if options.processes == 1 else 2)
    if options.processes > 1:
        jax.distributed.initialize(options.address, options.processes, options.index)
    compare(options.modes, QUICK_STEPS if options.quick else STEPS, path)


if __name__ == "__main__":
    main()
