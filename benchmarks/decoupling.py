"""When do the claims of "Decoupled Weight Decay Regularization" show? Regimes x claims, each form at its own optimum.

    maps        the picture of the front page: the loss over rate and decay, the paper's form beside the coupled one
    rotation    why: the angle by which kernels turn per update, against sqrt(2 decay (1 - b1) / (1 + b1))
    grid        (b) how the best decay depends on the rate, for every regime and form
    best        (a) the best pair of each grid on fresh seeds
    budgets     (c) how the best decay depends on the number of updates
    restarts    (d) the test error on the way, warm restarts against one cosine and a constant rate
    multiplier  (e) fine-tuning: the rate of the pretrained layers against the new head's
    sizes       what a batch and a width ask for
    tables      every table and picture, from what was measured

What is measured goes to results/decoupling/, one file per part and regime. MNIST-1D needs the extra `bench`.
"""

import argparse
import json

from benchmarks import decoupling_pictures, decoupling_rotation, decoupling_runs
from benchmarks.decoupling_figures import best_pair as best_pair, coupling_slope as coupling_slope, optimum as optimum
from benchmarks.decoupling_grids import best, grid, load
from benchmarks.decoupling_regimes import REGIMES
from benchmarks.decoupling_tables import TABLES
from benchmarks.report import HERE, README, table

PAGES = (README, HERE.parent / "docs" / "concepts" / "decoupling.md")
"""Where tables stand between marks of their names."""


def tables():
    """Write results/decoupling_*.json and the tables of the pages, and draw the pictures."""
    for name, (rows_of, part) in TABLES.items():
        measured = [facts for facts, _ in load(part).values()]
        if not measured:
            continue
        rows = rows_of()
        wall, cpu = (sum(facts[key] for facts in measured) for key in ("wall s", "CPU s"))
        loads = sorted(facts["load"] for facts in measured)
        where = "{processor}, {cores} cores, jax {versions[jax]}, optax {versions[optax]}".format(**measured[-1])
        said = f"`python -m benchmarks.decoupling --parts {part}` on {where}; load {loads[0]} to {loads[-1]}"
        said += f"; {wall} s, {cpu or 'unknown'} CPU s"
        (HERE / "results" / f"{name}.json").write_text(json.dumps({"measured": said, "rows": rows}, indent=1) + "\n")
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        for page in PAGES:
            text = page.read_text()
            if begin in text:
                head, tail = text.split(begin)[0], text.split(end)[1]
                page.write_text(f"{head}{begin}\n{said}:\n\n{table(rows)}\n{end}{tail}")
    decoupling_pictures.draw_all()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["maps", "rotation", "grid", "best", "budgets", "restarts", "multiplier", "sizes", "tables"]
    parser.add_argument("--parts", default=",".join(parts))
    parser.add_argument("--regimes", nargs="*", default=list(REGIMES), help="of grid and best; all of them")
    args = parser.parse_args()
    calls = {
        "maps": decoupling_runs.front_page,
        "rotation": decoupling_rotation.measure,
        "grid": lambda: [grid(title, REGIMES[title]) for title in args.regimes],
        "best": lambda: [best(title, REGIMES[title]) for title in args.regimes],
        "budgets": decoupling_runs.budgets,
        "restarts": decoupling_runs.restarts,
        "multiplier": decoupling_runs.multiplier,
        "sizes": decoupling_runs.sizes,
        "tables": tables,
    }
    for part in args.parts.split(","):
        calls[part]()


if __name__ == "__main__":
    main()
