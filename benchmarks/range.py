"""Laws of the suite under several versions of JAX and optax, each pair in an environment of its own under .range/.

Prints a table: the versions, how many tests passed, and which failed. `make range`, or

    python -m benchmarks.range 0.6.2 0.8.3
"""

import argparse
import collections
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / ".range"
OPTAX = {"0.6.2": "0.2.6", "0.7.2": "0.2.6", "0.8.3": "0.2.6", "newest": "newest"}
"""JAX -> optax of its time."""

NAMES = ("contract", "directions", "over_time", "bad_input", "schedules", "restarts")
TESTS = [f"tests/test_{name}.py" for name in NAMES]

SELECTED = "not test_contract or structure_shapes or state_holds or empty_trees"
"""Of the contract the laws of structures, dtypes and states, which a version's interface decides; `--all` runs all."""


def pinned(package, version):
    return package if version == "newest" else f"{package}=={version}"


def environment(jax, python):
    """Return the interpreter of the environment with this version of JAX, made where it is missing."""
    folder = FOLDER / f"jax-{jax}"
    interpreter = folder / "bin" / "python"
    if not (folder / ".filled").exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        tools = ["chex", "hypothesis", "pytest>=8.3", "scikit-learn"]
        packages = [pinned("jax", jax), pinned("jaxlib", jax), pinned("optax", OPTAX.get(jax, "newest")), *tools]
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / ".filled").touch()
    return interpreter


def installed(interpreter):
    """Return the versions of Python, JAX and optax in an environment."""
    code = "import sys, importlib.metadata as m; print(sys.version.split()[0], m.version('jax'), m.version('optax'))"
    return subprocess.run([interpreter, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def run(interpreter, tests, selected):
    """Return the tests' outcomes: name -> None, or the first line of what went wrong."""
    report = interpreter.parents[1] / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-k", selected, f"--junitxml={report}", "-W", "default"]
    command = [interpreter, "-m", "pytest", *tests, *options]
    log = interpreter.parents[1] / "log.txt"
    with log.open("w") as stream:
        subprocess.run(command, cwd=ROOT, stdout=stream, stderr=stream, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    if not report.exists():
        raise SystemExit(f"the tests of {interpreter} wrote no report: see {log}")
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failed = [child for child in case if child.tag in ("failure", "error")]
        name = f"{case.get('classname').rpartition('.')[2]}::{case.get('name')}"
        outcomes[name] = failed[0].get("message").splitlines()[0] if failed else None
    return outcomes


def failures(outcomes):
    """Return the tests that failed, each with how many of its cases and the first reason."""
    cases = collections.defaultdict(list)
    for name, why in outcomes.items():
        if why is not None:
            cases[name.partition("::")[2].partition("[")[0]].append(why[:100])
    return "; ".join(f"{name} ({len(whys)}): {whys[0]}" for name, whys in cases.items()) or "nothing"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=list(OPTAX), help="of JAX; all of the table, if none is given")
    parser.add_argument("--python", default=sys.executable, help="interpreter that makes the environments")
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--all", action="store_true", help="run every law of the contract")
    parser.add_argument("--fresh", action="store_true", help="make the environments again")
    options = parser.parse_args()
    if options.fresh and FOLDER.exists():
        shutil.rmtree(FOLDER)
    print("| Python | JAX | optax | passed | failed |\n|---|---|---|---|---|", flush=True)
    for version in options.versions:
        interpreter = environment(version, options.python)
        outcomes = run(interpreter, options.tests, "" if options.all else SELECTED)
        passed = sum(why is None for why in outcomes.values())
        cells = [*installed(interpreter), f"{passed} of {len(outcomes)}", failures(outcomes)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
