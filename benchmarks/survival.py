"""Does a run that is killed again and again end with the bits of one that never was?

    python benchmarks/survival.py kills --count 20     one process of two devices, SIGKILL at random moments
    python benchmarks/survival.py pair                 two processes, one killed: how the other ends, and both resume

The worker is this file, too: it trains a small network, its state split over all devices, and saves it every few steps.
Results go to results/survival.json.
"""

import argparse
import hashlib
import json
import pathlib
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, EVERY, PAUSE = 120, 2, 0.02
SURVIVOR_LIMIT = 60.0
"""Seconds within which a process has to notice that its peer is gone."""


def work(options: argparse.Namespace) -> None:
    """Train from the last complete checkpoint to the end, and print a digest of the result."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np
    import optax
    from jax.experimental import multihost_utils
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

    import adamw_jax
    from examples import checkpoints

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    if options.processes > 1:
        jax.distributed.initialize(
            options.address, options.processes, options.index, heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10
        )
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))
    tx = adamw_jax.nadamw(
        1e-2,
        weight_decay={"kernel": 1e-2},
        schedule=adamw_jax.cosine_warm_restarts(7, t_mult=1.5),
        lr_multipliers={"2": 0.5},
    )
    rng = np.random.default_rng(0)
    params = {str(i): {"kernel": rng.normal(size=(16, 16)).astype(np.float32)} for i in range(3)}
    whole = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    split = adamw_jax.state_shardings(tx, params, mesh=mesh, mode="zero1", min_size=16)
    run = {"params": jax.device_put(params, whole)}
    run["state"] = adamw_jax.init_sharded(tx, run["params"], mesh=mesh, mode="zero1", min_size=16)

    def loss(params, x):
        y = x
        for layer in params.values():
            y = jax.numpy.tanh(y @ layer["kernel"])
        return ((y - x) ** 2).mean()

    def step(run, index):
        x = jax.numpy.sin(jax.numpy.arange(8 * 16.0).reshape(8, 16) * (1 + index))
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P("data")))
        updates, state = tx.update(jax.grad(loss)(run["params"], x), run["state"], run["params"])
        return {"params": optax.apply_updates(run["params"], updates), "state": state}

    step = jax.jit(step, out_shardings={"params": whole, "state": split})
    with checkpoints.open_manager(options.directory, every=EVERY) as manager:
        done = manager.latest_step() or 0
        if done:
            run = checkpoints.restore(manager, done, checkpoints.shapes(run))
        for index in range(done, options.steps):
            run = step(run, index)
            print(f"done {index + 1}", flush=True)
            checkpoints.save(manager, index + 1, run)
            time.sleep(PAUSE)
    values = multihost_utils.process_allgather(run, tiled=True) if options.processes > 1 else jax.device_get(run)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(values)))
    print(f"digest {digest.hexdigest()}", flush=True)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start(directory: pathlib.Path, processes: int = 1, steps: int = STEPS) -> list[subprocess.Popen[str]]:
    """Start the worker's processes."""
    command = [sys.executable, __file__, "work", "--directory", str(directory), "--steps", str(steps)]
    command += ["--processes", str(processes), "--address", free_address(), "--index"]
    return [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(processes)
    ]


def wait_for(worker: subprocess.Popen[str], step: int) -> None:
    """Return once the worker has done so many steps."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith("done ") and int(line.split()[1]) >= step:
            return
    raise RuntimeError(f"the worker ended with {worker.wait()} before step {step}: {worker.stderr.read()[-2000:]}")


def finish(workers: list[subprocess.Popen[str]]) -> str:
    """Wait for the workers' end, and return the digest that all of them print."""
    outputs = [worker.communicate(timeout=300) for worker in workers]
    digests = {line.split()[1] for out, _ in outputs for line in out.splitlines() if line.startswith("digest ")}
    if len(digests) != 1 or any(worker.returncode for worker in workers):
        raise RuntimeError(f"no one digest: {digests}, {[w.returncode for w in workers]}, {outputs[0][1][-2000:]}")
    return digests.pop()


def complete_steps(directory: pathlib.Path) -> tuple[list[int], int]:
    """Return the complete checkpoints of a run, and the number of interrupted ones."""
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return sorted(int(name) for name in names if name.isdigit()), sum("tmp" in name for name in names)


def kills(count: int, seed: int = 0, steps: int = STEPS) -> dict[str, object]:
    """Kill a run `count` times, let it end, and compare it with a run that was left alone."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = finish(start(pathlib.Path(folder) / "alone", steps=steps))
        directory, log = pathlib.Path(folder) / "killed", []
        for number in range(count):
            saved, _ = complete_steps(directory)
            resumed = saved[-1] if saved else 0
            (worker,) = start(directory, steps=steps)
            if number % 5 == 4:  # every fifth one dies while it starts
                target, delay = None, moments.uniform(0.0, 2.0)
            else:
                target = resumed + 1 + int(moments.uniform(0.0, 1.8) * (steps - resumed) / (count - number + 1))
                delay = moments.uniform(0.0, PAUSE + 0.03)  # somewhere in the step, the save or the pause after it
                wait_for(worker, target)
            time.sleep(delay)
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
            saved, interrupted = complete_steps(directory)
            log.append({"resumed_at": resumed, "after_step": target, "delay_s": round(delay, 3)})
            log[-1] |= {"exit": worker.returncode, "last_complete": saved[-1] if saved else 0}
            log[-1]["interrupted_saves"] = interrupted
        found = finish(start(directory, steps=steps))
    return {"count": count, "steps": steps, "save_every": EVERY, "identical": found == expected, "digest": found} | {
        "kills": log
    }


def pair(victim: int, seed: int = 0, steps: int = STEPS) -> dict[str, object]:
    """Kill one process of two, time the other's end, and let both resume."""
    with tempfile.TemporaryDirectory() as folder:
        expected = finish(start(pathlib.Path(folder) / "alone", 2, steps))
        directory = pathlib.Path(folder) / "killed"
        workers = start(directory, 2, steps)
        for worker in workers:
            wait_for(worker, 1)
        while not complete_steps(directory)[0]:
            time.sleep(0.05)
        time.sleep(random.Random(seed).uniform(0.0, 0.5))
        killed = time.monotonic()
        workers[victim].send_signal(signal.SIGKILL)
        survivor = workers[1 - victim]
        try:
            _, errors = survivor.communicate(timeout=SURVIVOR_LIMIT)
        except subprocess.TimeoutExpired:
            survivor.kill()
            _, errors = survivor.communicate()
        ended = time.monotonic() - killed
        workers[victim].communicate()
        saved, interrupted = complete_steps(directory)
        resumed = finish(start(directory, 2, steps))
    reasons = [line for line in errors.splitlines() if "UNAVAILABLE" in line or "Terminating" in line]
    return {
        "victim": victim,
        "survivor_exit": survivor.returncode,
        "survivor_ended_after_s": round(ended, 2),
        "survivor_said": reasons[0][:240] if reasons else errors[-240:],
        "last_complete": saved[-1],
        "interrupted_saves": interrupted,
        "identical": resumed == expected,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "pair", "work"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--directory")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--address")
    parser.add_argument("--index", type=int, default=0)
    options = parser.parse_args()
    if options.what == "work":
        work(options)
        return
    result = kills(options.count) if options.what == "kills" else [pair(victim) for victim in (0, 1)]
    path = ROOT / "benchmarks" / "results" / "survival.json"
    path.parent.mkdir(exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    results |= {options.what: result, "machine": f"{platform.machine()}, CPU, Python {platform.python_version()}"}
    results["command"] = "python benchmarks/survival.py kills --count 20; python benchmarks/survival.py pair"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
