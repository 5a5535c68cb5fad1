"""How long do narrow moments compile, against optax, for a CPU, an H100 and a TPU v5e; and how long did they before?

    python -m benchmarks.compiled_times v5e --before FOLDER

FOLDER is a checkout of another version. Both versions compile in turns, each time in a process of its own, optax
first; seconds are those of all of the process's threads, which a busy machine changes less than the clock's, and
instructions are those of the compiled program, which it does not change.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

NAMES = ("optax adamw", "adamw float32", "adamw bfloat16", "adamw packed", "adamw packed8")
SPENT = ("s", "s of all threads", "instructions/leaf")
COLUMNS = (*SPENT, *("against optax" + of for of in ("", ", all threads", ", instructions")))


def costs(target: str, leaves: int, names: list[str]) -> dict[str, list[float]]:
    """Return the clock's and the threads' seconds of compiling each optimizer here, and its instructions a leaf."""
    from benchmarks import programs, targets

    import jax  # isort: skip - targets says first that it runs on the CPU
    import optax

    import adamw_jax as aj
    from benchmarks.compiled import LEAVES, placed
    from benchmarks.problems import small_leaves

    place = jax.sharding.SingleDeviceSharding(jax.devices()[0]) if target == "cpu" else targets.device(target)
    everything, few = (small_leaves(leaves), small_leaves(8)) if target == "cpu" else (LEAVES, LEAVES)
    count = len(jax.tree.leaves(everything, is_leaf=lambda node: isinstance(node, tuple)))

    def lowered(name: str, tree: Any) -> Any:
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

    lowered(names[0], few).compile()  # the first pays for start-up
    found = {}
    for name in names:
        program = lowered(name, everything)
        clock, threads = time.perf_counter(), time.process_time()
        compiled = program.compile()
        spent = [time.perf_counter() - clock, time.process_time() - threads]
        found[name] = [*spent, programs.instructions(compiled.as_text()) / count]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="cpu, h100 or v5e")
    parser.add_argument("--before", help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--leaves", type=int, default=2000, help="on the CPU; 24 elsewhere")
    parser.add_argument("--optimizers", default=",".join(NAMES), help="optax's first")
    parser.add_argument("--one", action="store_true", help="measure in this process and print it")
    args = parser.parse_args()
    names = args.optimizers.split(",")
    if args.one:
        if args.before:
            sys.path.insert(0, args.before)  # its package, and this version's benchmarks, which are being imported
        print(json.dumps(costs(args.target, args.leaves, names)))
        return
    from benchmarks.report import HERE, publish

    versions = {"now": None} | ({"before": args.before} if args.before else {})
    measured: dict[tuple[str, str], list[list[float]]] = {}
    command = [sys.executable, "-m", "benchmarks.compiled_times", args.target, "--one", "--leaves", str(args.leaves)]
    command += ["--optimizers", args.optimizers]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "PYTHONSAFEPATH": "1"}
    for _ in range(args.rounds):
        for version, folder in versions.items():
            of_version = ["--before", folder] if folder else []
            done = subprocess.run([*command, *of_version], env=environment, capture_output=True, text=True, check=True)
            each = json.loads(done.stdout.splitlines()[-1])
            print(version, each, flush=True)
            for name in names:
                baseline = each[names[0]]
                ratios = [x / y for x, y in zip(each[name], baseline, strict=True)]
                measured.setdefault((version, name), []).append([*each[name], *ratios])
    rows = []
    for (version, name), runs in measured.items():
        middle = [statistics.median(column) for column in zip(*runs, strict=True)]
        rows.append(
            {"target": args.target, "version": version, "optimizer": name}
            | dict(zip(COLUMNS, middle, strict=True))
            | {"runs": len(runs)}
        )
    # Where the other version lay is nobody's affair.
    sys.argv[:] = [arg.replace(args.before, "FOLDER") if args.before else arg for arg in sys.argv]
    publish(f"compiled_times_{args.target}" + (f"_{args.leaves}" if args.target == "cpu" else ""), rows)


if __name__ == "__main__":
    main()
