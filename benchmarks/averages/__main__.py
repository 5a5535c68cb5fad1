"""What an average of the weights is worth: five schedules, each alone and with averages, each at its own best rate.

`run` measures grids and fresh seeds, one regime after another, into results/averages/; `tables` writes the tables and
draws the picture. MNIST-1D needs the extra `bench`. On one core:

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python -m benchmarks.averages run
"""

import argparse

from benchmarks.averages.grids import STUDIED, study


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=["all", "run", "tables"])
    parser.add_argument("--regimes", nargs="*", default=list(STUDIED), help="of run; all of them")
    args = parser.parse_args()
    if args.part != "tables":
        for title in args.regimes:
            study(title, *STUDIED[title])
    if args.part != "run":
        from benchmarks.averages.publish import publish

        publish()


if __name__ == "__main__":
    main()
