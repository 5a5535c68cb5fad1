"""Run every client whose packages are installed, each in a process of its own, and print a table.

A client is a script in this folder whose docstring has a line "Packages: ..."; it prints a line for each optimizer.
"""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
NO_CLIENTS = ("run.py", "common.py", "optax_presets.py", "__init__.py")


def packages_of(script: pathlib.Path) -> list[str]:
    """Return the packages that a script names."""
    found = re.search(r"^Packages: (.*)$", script.read_text(), re.MULTILINE)
    return re.split(r",\s*", found[1]) if found else []


def version_of(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(script: pathlib.Path) -> list[tuple[str, str, str]]:
    """Return rows (client, versions, result)."""
    packages = packages_of(script)
    versions = {package: version_of(package) for package in packages}
    named = ", ".join(f"{package} {version or 'not installed'}" for package, version in versions.items())
    if None in versions.values():
        return [(script.stem, named, "not run")]
    # The folder above is the first on the path, and this one is not on it: a script may be named like its package.
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:
        lines = [*lines, "FAILED: " + (done.stderr.strip().splitlines() or ["without a message"])[-1]]
    return [(script.stem if not i else "", named if not i else "", line) for i, line in enumerate(lines)]


def main() -> int:
    """Print the table; fail where a client failed."""
    failed = 0
    for script in sorted(path for path in HERE.glob("*.py") if path.name not in NO_CLIENTS):
        for client, versions, line in run(script):
            failed += line.startswith("FAILED")
            print(f"{client:<20} {versions:<34} {line}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
