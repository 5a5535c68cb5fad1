"""From a small run to a large one: what tuned numbers are worth at other widths, depths, batches and numbers of tokens.

`run` trains point by point, and goes on where it was stopped; `tables` writes the tables and draws the picture; no word
stands for both. One process on one core:

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false nice -n 19 taskset -c 0 python -m benchmarks.transfer run
"""

import argparse
from pathlib import Path

from benchmarks.transfer import plan, store
from benchmarks.transfer.trainings import score


def run(path):
    """Score the points of all stages that are not in the file yet."""
    scored = store.load(path)
    known = {store.key_of(point): point for point in scored}
    labelled = {(point["label"], store.key_of(point)) for point in scored}
    for points in plan.stages(scored):
        for point in points:
            key = store.key_of(point)
            if (point["label"], key) in labelled:
                continue
            known[key] = (known[key] | {"label": point["label"]}) if key in known else score(point)
            labelled.add((point["label"], key))
            scored.append(known[key])
            store.save(scored, path)
        if points:
            print(points[-1]["label"], len(scored), f"{sum(p['seconds'] for p in scored):.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=["all", "run", "tables"])
    parser.add_argument("--file", type=Path, default=store.FILE)
    args = parser.parse_args()
    if args.part != "tables":
        run(args.file)
    if args.part != "run":
        from benchmarks.transfer import publish

        publish.publish(store.load(args.file))


if __name__ == "__main__":
    main()
