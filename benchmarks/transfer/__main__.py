"""From a small run to a large one: what tuned numbers are worth at other widths, depths, batches and numbers of tokens.

run      trains point by point, and goes on where it was stopped: start it as one process on one core
tables   the tables and pictures, from what was scored

XLA_FLAGS=--xla_cpu_multi_thread_eigen=false nice -n 19 taskset -c 0 python -m benchmarks.transfer run
"""

import argparse
import json
from pathlib import Path

from benchmarks.transfer import plan
from benchmarks.transfer.trainings import key_of, score

POINTS = Path(__file__).parents[1] / "results" / "transfer" / "points.jsonl"


def run(path):
    """Score the points of all stages that are not in the file yet, and append each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scored = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {key_of(point): point for point in scored}
    for points in plan.stages(scored):
        for point in points:
            found = known.get(key_of(point))
            if found is not None and found["label"] == point["label"]:
                continue
            found = score(point) if found is None else found | {"label": point["label"]}
            known[key_of(point)] = found
            scored.append(found)
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")
        if points:
            last = scored[-1]
            print(last["label"], len(scored), f"{sum(p['seconds'] for p in scored):.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["run"])
    parser.add_argument("--points", type=Path, default=POINTS)
    args = parser.parse_args()
    run(args.points)


if __name__ == "__main__":
    main()
