"""Train a small transformer (Flax NNX) on Python's own source: Muon for the matrices, Adam for the rest.

    python examples/language_model.py             stop it with Ctrl-C whenever you like
    python examples/language_model.py --resume    goes on, and ends with the same bits
    python examples/language_model.py --mesh      over all devices: every parameter split, every matrix owned by one

AdamW trains next to it, from the same start on the same batches. Prints what every parameter gets, what the last step
did and a table; writes examples/out/language_model.png.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import signal
import sysconfig
import threading

import terminal

with terminal.extras():
    import checkpoints
    import jax
    import jax.numpy as jnp
    import matplotlib.pyplot as plt
    import numpy as np
    import optax
    from flax import nnx
    from jax.sharding import AxisType
    from tqdm import tqdm

    import adamw_jax as aj
    from adamw_jax import plot

VOCABULARY = 128  # ASCII; what else there is in the files is left out


@dataclasses.dataclass(frozen=True)
class Size:
    """What makes a run this run: a checkpoint of another size is none of it."""

    updates: int = 300
    warmup: int = 20
    decay: int = 100
    every: int = 10
    batch: int = 16
    length: int = 96
    width: int = 96
    heads: int = 4
    blocks: int = 3


QUICK = Size(updates=24, warmup=4, decay=8, every=4, batch=4, length=16, width=16, heads=2, blocks=1)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, size, rngs):
        linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.heads = size.heads
        self.norm_1, self.norm_2 = nnx.RMSNorm(size.width, rngs=rngs), nnx.RMSNorm(size.width, rngs=rngs)
        # Three matrices, not one: Muon makes each of them orthogonal by itself.
        self.query, self.key, self.value = (linear(size.width, size.width) for _ in range(3))
        self.out = linear(size.width, size.width)
        self.up, self.down = linear(size.width, 4 * size.width), linear(4 * size.width, size.width)

    def __call__(self, x):
        normed = self.norm_1(x)
        q, k, v = (f(normed).reshape(*x.shape[:-1], self.heads, -1) for f in (self.query, self.key, self.value))
        x += self.out(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.norm_2(x))))


class Transformer(nnx.Module):
    """Tokens (batch, length) -> logits of the next ones (batch, length, vocabulary)."""

    def __init__(self, size, rngs):
        self.embed = nnx.Embed(VOCABULARY, size.width, rngs=rngs)
        self.position = nnx.Embed(size.length, size.width, rngs=rngs)
        self.blocks = nnx.List([Block(size, rngs) for _ in range(size.blocks)])
        self.norm = nnx.RMSNorm(size.width, rngs=rngs)
        self.head = nnx.Linear(size.width, VOCABULARY, use_bias=False, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.position(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@functools.cache
def shardings_of(size):
    """Return where the parameters lie on a mesh of all devices, each split over all of them if it can be."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    shapes = nnx.state(nnx.eval_shape(lambda: Transformer(size, nnx.Rngs(0))), nnx.Param)
    return aj.fsdp_shardings(shapes, mesh=mesh)


@functools.cache
def make_optimizers(size, mesh=False):
    """Return two optimizers by name, one rate, schedule and decay for both; and the same, watched and guarded."""
    # The last update makes a step, too, so that there is something to report of it.
    schedule = aj.warmup_stable_decay(size.updates, warmup=size.warmup, decay=size.decay, shape="sqrt", eta_min=0.02)
    options = {
        "learning_rate": 6e-3,
        "weight_decay": aj.matrices(1e-3, but=("embed", "position")),
        "schedule": schedule,
    }
    # consistent_rms makes Muon's steps as large as Adam's, so that one rate suits both.
    places = {"distribute": "owned", "shardings": shardings_of(size)} if mesh else {}
    by_path = {r"blocks/.*kernel": aj.scale_by_muon(consistent_rms=0.2, **places), "": aj.scale_by_adam(b2=0.95)}
    plain = {"muon and adam": aj.decoupled(by_path, **options), "adamw": aj.adamw(b2=0.95, **options)}
    # A window shorter than the warm-up, so that the guard is up when the rate is.
    window = size.warmup - 1
    guarded = {name: aj.observe(aj.skip_spikes(tx, window=window), every=size.every) for name, tx in plain.items()}
    return plain, guarded


def read_source():
    """Return tokens to train on, and those of every tenth file of the standard library to validate with."""
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [np.frombuffer(file.read_bytes(), np.uint8) for file in files]
    texts = [text[text < VOCABULARY].astype(np.int32) for text in texts]
    train = np.concatenate([text for i, text in enumerate(texts) if i % 10])
    return train, np.concatenate(texts[::10])


def windows(tokens, size, number, seed):
    """Return `number` stretches of length + 1 tokens, the same for the same seed: a resumed run sees its own."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - size.length, number)
    return tokens[starts[:, None] + np.arange(size.length + 1)]


def loss_of(model, tokens):
    """Return the mean cross-entropy in nats per character."""
    return optax.softmax_cross_entropy_with_integer_labels(model(tokens[:, :-1]), tokens[:, 1:]).mean()


@nnx.jit
def train_step(model, optimizer, tokens):
    grads = nnx.grad(loss_of)(model, tokens)
    optimizer.update(model, grads)


evaluate = nnx.jit(loss_of)


@dataclasses.dataclass
class Run:
    """All that a checkpoint holds.

    Attributes:
      nodes: {name: {"model": model, "optimizer": optimizer}}.
      losses: {name: validation losses}, one every `every` updates, nan where the run has not been yet.
      ratios: of the first contender, the size of each parameter's step against the parameter's (records, parameters).
      count: updates made.
    """

    nodes: dict
    losses: dict
    ratios: np.ndarray
    count: int = 0

    def tree(self):
        states = {
            name: {role: nnx.to_pure_dict(nnx.state(node)) for role, node in pair.items()}
            for name, pair in self.nodes.items()
        }
        return {"nodes": states, "losses": self.losses, "ratios": self.ratios, "count": np.asarray(self.count)}

    def restore(self, tree):
        for name, pair in self.nodes.items():
            for role, node in pair.items():
                state = nnx.state(node)
                nnx.replace_by_pure_dict(state, tree["nodes"][name][role])
                nnx.update(node, state)
        # In the order of before, which the picture's colours follow; Orbax sorts by name.
        self.losses = {name: np.array(tree["losses"][name]) for name in self.nodes}
        self.ratios, self.count = np.array(tree["ratios"]), int(tree["count"])


def begin(size, mesh=False):
    """Return a run before its first update, and print what every parameter will get in it."""
    nodes, records = {}, size.updates // size.every
    plain, guarded = make_optimizers(size, mesh)
    for name, tx in guarded.items():
        model = Transformer(size, nnx.Rngs(0))
        params = nnx.state(model, nnx.Param)
        if mesh:
            params = jax.device_put(params, shardings_of(size))
            nnx.update(model, params)
        if not nodes:
            print(aj.explain(plain[name], params, updates=size.updates), flush=True)
        nodes[name] = {"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=nnx.Param)}
    losses = {name: np.full(records, np.nan, np.float32) for name in nodes}
    return Run(nodes, losses, np.full((records, len(aj.leaf_paths(params))), np.nan, np.float32))


def report_of(run, name):
    return aj.report(run.nodes[name]["optimizer"].opt_state)


def read_json(path):
    """Return what a file says in JSON; nothing where it says something else."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def open_checkpoints(folder, size, text, resume):
    """Return the manager of a folder of this run; a folder of something else ends the program."""
    identity = {"example": "language_model", **dataclasses.asdict(size), "text": hashlib.sha256(text).hexdigest()[:12]}
    note = terminal.writable(folder, "--checkpoints") / "run.json"
    another = "give another folder, --checkpoints FOLDER"
    if not note.exists() and any(folder.iterdir()):
        terminal.stop(f"{folder} holds something else than this example's checkpoints: {another}")
    if resume and not note.exists():
        terminal.stop(f"{folder} holds no run to go on with: leave out --resume, or {another}")
    manager = checkpoints.open_manager(folder)
    step = manager.latest_step()
    if note.exists():
        found = read_json(note)
        if found.get("example") != "language_model":
            terminal.stop(f"{folder} holds checkpoints of something else: {another}")
        wrong = [f"{key} {found.get(key)}, now {value}" for key, value in identity.items() if found.get(key) != value]
        if resume and wrong:
            terminal.stop(f"{folder} holds another run ({wrong[0]}): take the flags that it had, or {another}")
        if not resume and step is not None and step < found.get("updates", 0):
            terminal.stop(f"{folder} holds a run stopped after update {step}: add --resume, or {another}")
    if resume and step is None:
        terminal.stop(f"{folder} holds no finished checkpoint: leave out --resume")
    if not resume:
        for each in manager.all_steps():
            manager.delete(each)
        note.write_text(json.dumps(identity))
    return manager


@contextlib.contextmanager
def on_ctrl_c():
    """Give an event that the first Ctrl-C sets, so that no update is left half done; a second one ends at once."""
    asked = threading.Event()

    def ask(number, frame):
        asked.set()
        signal.signal(number, previous)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)


def train(run, size, text, manager):
    """Make the updates that are left; keep a checkpoint of every record, and of where Ctrl-C came."""
    train_text, held_out = text
    validation = windows(held_out, size, 4 * size.batch, seed=0)
    with on_ctrl_c() as asked, tqdm(total=size.updates, initial=run.count, unit="update", disable=None) as progress:
        while run.count < size.updates:
            tokens = windows(train_text, size, size.batch, seed=(1, run.count))
            for pair in run.nodes.values():
                train_step(pair["model"], pair["optimizer"], tokens)
            run.count += 1
            progress.update()
            record, rest = divmod(run.count, size.every)
            if rest == 0:
                for name, pair in run.nodes.items():
                    run.losses[name][record - 1] = evaluate(pair["model"], validation)
                run.ratios[record - 1] = [row["ratio"] for row in report_of(run, next(iter(run.nodes))).rows]
                progress.set_postfix({name: f"{values[record - 1]:.3f}" for name, values in run.losses.items()})
            if rest == 0 or asked.is_set():
                checkpoints.save(manager, run.count, run.tree())
            if asked.is_set() and run.count < size.updates:
                manager.close()
                progress.close()
                terminal.stop(f"stopped after update {run.count} of {size.updates}: go on with --resume", code=130)
    manager.wait_until_finished()


def bits(node):
    """Return a fingerprint of a model's parameters: equal only if all their bits are."""
    leaves = jax.device_get(jax.tree.leaves(nnx.state(node, nnx.Param)))
    return hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)).hexdigest()[:12]


def summary(run):
    rows = []
    for name, pair in run.nodes.items():
        loss = run.losses[name][-1]
        skipped = int(pair["optimizer"].opt_state.inner_state.skipped.get_value())
        rows.append([name, f"{loss:.4f}", f"{np.exp(loss):.2f}", skipped, bits(pair["model"])])
    return terminal.table(
        [
            "optimizer",
            "validation loss (nats)",
            "perplexity per character",
            "updates skipped",
            "bits of the parameters",
        ],
        rows,
    )


def draw(run, size, path):
    """Draw the validation losses, and what every step of the first contender did to every parameter."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained", width_ratios=(2, 3))
    plot.history(
        run.losses,
        xlabel="update",
        ylabel="validation loss (nats per character)",
        first=size.every,
        step=size.every,
        ax=left,
    )
    left.set_title("Python's standard library, character by character")
    first = next(iter(run.nodes))
    paths = [row["path"] for row in report_of(run, first).rows]
    reports = [
        aj.Report([{"path": p, "ratio": float(r)} for p, r in zip(paths, ratios, strict=True)], (i + 1) * size.every)
        for i, ratios in enumerate(run.ratios)
    ]
    plot.steps(reports, ax=right)
    right.set_title(f"{first}: step / weight of every parameter")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv=None):
    parser = terminal.flags(__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint")
    parser.add_argument("--mesh", action="store_true", help="split the parameters over all devices")
    parser.add_argument("--checkpoints", type=pathlib.Path, help="their folder (default: language_model in --out)")
    given = parser.parse_args(argv)
    size = QUICK if given.quick else Size()
    out = terminal.writable(given.out)
    text = read_source()
    folder = given.checkpoints or out / "language_model"
    manager = open_checkpoints(folder, size, text[0].tobytes(), given.resume)
    run = begin(size, given.mesh)
    if given.resume:
        step = manager.latest_step()
        try:
            run.restore(checkpoints.restore(manager, step, checkpoints.shapes(run.tree())))
        except ValueError as error:
            terminal.stop(f"{error}; begin anew in another folder, --checkpoints FOLDER")
        print(f"\nat update {run.count} of {size.updates}, from {folder}")
    train(run, size, text, manager)
    manager.close()
    print(f"\n{report_of(run, next(iter(run.nodes)))}\n\n{summary(run)}")
    draw(run, size, out / "language_model.png")
    print(f"\npicture: {out / 'language_model.png'}")


if __name__ == "__main__":
    main()
