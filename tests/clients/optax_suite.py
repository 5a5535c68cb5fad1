"""optax's own tests, run over this library's presets in place of optax's: from a checkout or an unpacked sdist.

Packages: optax, absl-py, scikit-learn

OPTAX says where the sources are. PyPI's sdist has the tests: pip download --no-binary optax --no-deps optax==0.2.8
"""

import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

FILES = [
    "_src/alias_test.py",
    "_src/combine_test.py",
    "_src/sharding_test.py",
    "contrib/_common_test.py",
    "schedules/_inject_test.py",
    "transforms/_accumulation_test.py",
    "transforms/_conditionality_test.py",
    "transforms/_masking_test.py",
]

REPLACED = [
    # As strings, "0.10" comes before "0.7": without this, the tests of sharding would be skipped.
    (r"jax\.__version__ < '[\d.]+'", "False"),
    (r"^from optax\._src import (alias|transform)$", r"from tests.clients.optax_presets import \1"),
    (
        r"^_OPTIMIZERS_UNDER_TEST = \(\n.*?^\)$",
        "from tests.clients.optax_presets import ENTRIES as _OPTIMIZERS_UNDER_TEST",
    ),
    (r"^OPTIMIZERS = \{\n.*?^\}$", "from tests.clients.optax_presets import OPTIMIZERS"),
    (
        r"^_ALL_OPTIMIZERS_UNDER_TEST = tuple\(\n.*?^\)\n_MAIN_OPTIMIZERS_UNDER_TEST = .*?$",
        "from tests.clients.optax_presets import CONTRIB as _MAIN_OPTIMIZERS_UNDER_TEST\n"
        "_ALL_OPTIMIZERS_UNDER_TEST = _MAIN_OPTIMIZERS_UNDER_TEST",
    ),
]

ON_PURPOSE = {
    "complex parameters are refused: optax.contrib.split_real_and_imaginary gives the real ones": (
        r"must have real floating leaves, got complex|`moment_dtype` must be .*, got complex"
    ),
    "moments of bfloat16 parameters are float32, unless moment_dtype= says otherwise": (
        r"dtype\(bfloat16\) != dtype\('float32'\)"
    ),
    "parameters that are whole numbers are refused, unless they are frozen": r"must have real floating leaves, got int",
    "the velocity lies inside the owner of the rate, not at the state's first place": r"test_masked_state_structure",
}
"""Differences that are wanted: the reason, and what the failure says."""


def run(file: pathlib.Path, folder: pathlib.Path) -> list[tuple[str, str]]:
    """Return (test, what its failure says, "" where it passed) of a file."""
    text = file.read_text()
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE | re.DOTALL)
    copy = folder / f"test_{file.stem}.py"
    copy.write_text(text)
    report = folder / f"{file.stem}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "not LBFGS and not microbatch",
        f"--junitxml={report}",
    ]
    done = subprocess.run([*command, str(copy)], cwd=folder, capture_output=True, text=True, check=False)
    if not report.exists():
        return [(file.stem, (done.stdout + done.stderr)[-500:])]
    cases = ElementTree.parse(report).getroot().iter("testcase")
    rows = []
    for case in cases:
        bad = [child for child in case if child.tag in ("failure", "error")]
        if not any(child.tag == "skipped" for child in case):
            rows.append((f"{file.stem}: {case.get('name')}", "".join(f"{b.get('message')}\n{b.text}" for b in bad)))
    return rows


def main() -> int:
    """Print a line for each file and each reason."""
    root = pathlib.Path(os.environ.get("OPTAX", "nowhere"))
    if not (root / "optax" / FILES[0]).exists():
        print("not run: OPTAX must name a checkout or an unpacked sdist of optax, see this file")
        return 0
    reasons: collections.Counter[str] = collections.Counter()
    unexpected = []
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            rows = run(root / "optax" / name, pathlib.Path(folder))
            failed = [(test, said) for test, said in rows if said]
            for test, said in failed:
                why = next((why for why, pattern in ON_PURPOSE.items() if re.search(pattern, f"{test} {said}")), None)
                reasons.update([why] if why else [])
                unexpected += [] if why else [(test, said)]
            print(f"{name}: {len(rows)} run, {len(rows) - len(failed)} passed", flush=True)
    for why, count in reasons.items():
        print(f"{count} differ on purpose: {why}")
    for test, said in unexpected:
        lines = [line for line in said.splitlines() if line.startswith("E ")] or said.splitlines()
        print(f"UNEXPECTED {test}: {' '.join(lines)[:300]}")
    return len(unexpected)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
