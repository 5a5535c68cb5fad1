"""How long do narrow moments compile, against optax, for a CPU, an H100 and a TPU v5e; and how long did they before?

    python -m benchmarks.compiled_times v5e --before FOLDER

FOLDER is a checkout of another version. Both versions compile in turns, each time in a process of its own, optax
first; seconds are those of all of the process's threads, which a busy machine changes less than the clock's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

NAMES = ("optax adamw", "adamw float32", "adamw bfloat16", "adamw packed", "adamw packed8")


def seconds(target: str, leaves: int) -> dict[str, list[float]]:
    """Return the clock's and the threads' seconds that each optimizer takes to compile, in this process."""
    from benchmarks import targets

    import jax  # isort: skip - targets says first that it runs on the CPU
    import optax

    import adamw_jax as aj
    from benchmarks.compiled import LEAVES, placed
    from benchmarks.problems import small_leaves

    place = jax.sharding.SingleDeviceSharding(jax.devices()[0]) if target == "cpu" else targets.device(target)
    tree = small_leaves(leaves) if target == "cpu" else LEAVES

    def lowered(name: str) -> Any:
        options = {} if name.startswith("optax") else {"moment_dtype": name.split()[1], "coupling": "learning_rate"}
        tx = (optax if name.startswith("optax") else aj).adamw(1e-3, weight_decay=0.1, **options)
        params = placed(tree, "float32", place)
        state = jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), jax.eval_shape(tx.init, params)
        )

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        jax.clear_caches()
        return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)

    lowered(NAMES[0]).compile()  # the first pays for start-up
    found = {}
    for name in NAMES:
        program = lowered(name)
        clock, threads = time.perf_counter(), time.process_time()
        program.compile()
        found[name] = [time.perf_counter() - clock, time.process_time() - threads]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="cpu, h100 or v5e")
    parser.add_argument("--before", help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--leaves", type=int, default=2000, help="on the CPU; 24 elsewhere")
    parser.add_argument("--one", action="store_true", help="measure in this process and print it")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(seconds(args.target, args.leaves)))
        return
    from benchmarks.report import HERE, publish

    versions = {"now": None} | ({"before": args.before} if args.before else {})
    measured: dict[tuple[str, str], list[list[float]]] = {}
    command = [sys.executable, "-m", "benchmarks.compiled_times", args.target, "--one", "--leaves", str(args.leaves)]
    for _ in range(args.rounds):
        for version, folder in versions.items():
            # What comes first in PYTHONPATH is the version's package; benchmarks are this version's.
            paths = ([folder] if folder else []) + [str(HERE.parent)]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            each = json.loads(done.stdout.splitlines()[-1])
            for name in NAMES:
                baseline = each[NAMES[0]]
                ratios = [x / y for x, y in zip(each[name], baseline, strict=True)]
                measured.setdefault((version, name), []).append([*each[name], *ratios])
    rows = []
    for (version, name), runs in measured.items():
        middle = [sorted(column)[len(column) // 2] for column in zip(*runs, strict=True)]
        rows.append(
            {"target": args.target, "version": version, "optimizer": name}
            | dict(zip(("s", "s of all threads", "against optax", "against optax, all threads"), middle, strict=True))
            | {"runs": len(runs)}
        )
    publish(f"compiled_times_{args.target}", rows)


if __name__ == "__main__":
    main()
