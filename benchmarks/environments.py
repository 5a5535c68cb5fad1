"""Which compilers for devices that are not there this environment has. Imports nothing that would start jax."""

import importlib.util

PACKAGES = {"gpu": "jax_plugins.xla_cuda12", "tpu": "libtpu"}
"""The module that compiles for a target; `make compiled` installs it into an environment of its own."""


def installed(platform: str) -> bool:
    """Return True if this environment can compile for "gpu" or "tpu"."""
    package = PACKAGES[platform]
    parent = package.split(".")[0]
    return importlib.util.find_spec(parent) is not None and importlib.util.find_spec(package) is not None


def told() -> str:
    """Return a line that says which compiled checks this environment runs, and which command runs the others."""
    here = [platform for platform in PACKAGES if installed(platform)]
    missing = [platform for platform in PACKAGES if platform not in here]
    lines = [f"compiled for {' and '.join(map(str.upper, here))}: checked here"] if here else []
    if missing:
        names = " and ".join(map(str.upper, missing))
        lines.append(f"compiled for {names}: not checked here, `make compiled-test` does")
    return "; ".join(lines)
