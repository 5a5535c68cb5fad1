"""When do the claims of "Decoupled Weight Decay Regularization" show? Regimes x claims, each form at its own optimum.

    maps        the picture of the front page: the loss over rate and decay, the paper's form beside the coupled one
    rotation    why: the angle by which kernels turn per update, against sqrt(2 decay (1 - b1) / (1 + b1))
    grid        (b) how the best decay depends on the rate, for every regime and form
    best        (a) the best pair of each grid on fresh seeds
    budgets     (c) how the best decay depends on the number of updates
    restarts    (d) the test error on the way, warm restarts against one cosine and a constant rate
    multiplier  (e) fine-tuning: the rate of the pretrained layers against the new head's
    sizes       what a batch and a width ask for, by the best decay and rate
    width       what a rate tuned at one width is worth at others: decay against norms that are held
    tables      every table and picture, from what was measured

What is measured goes to results/decoupling/, one file per part and regime. MNIST-1D needs the extra `bench`.
"""

import argparse

from benchmarks.decoupling import rotation, runs, sizes, width
from benchmarks.decoupling.grids import SEEDS, best, grid
from benchmarks.decoupling.publish import publish
from benchmarks.decoupling.regimes import REGIMES


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["maps", "rotation", "grid", "best", "budgets", "restarts", "multiplier", "sizes", "width", "tables"]
    parser.add_argument("--parts", default=",".join(parts))
    parser.add_argument("--regimes", nargs="*", default=list(REGIMES), help="of grid, best and width; all of them")
    parser.add_argument("--forms", nargs="*", help="of grid; all of a regime's")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of grid")
    args = parser.parse_args()
    calls = {
        "maps": runs.front_page,
        "rotation": rotation.measure,
        "grid": lambda: [grid(title, REGIMES[title], args.forms, SEEDS[: args.seeds]) for title in args.regimes],
        "best": lambda: [best(title, REGIMES[title]) for title in args.regimes],
        "budgets": runs.budgets,
        "restarts": runs.restarts,
        "multiplier": runs.multiplier,
        "sizes": sizes.measure,
        "width": lambda: width.measure(args.regimes),
        "tables": publish,
    }
    for part in args.parts.split(","):
        calls[part]()


if __name__ == "__main__":
    main()
