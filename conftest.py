"""Eight virtual devices and Keras on JAX for the whole suite: both are read once, before the first import."""

import hashlib
import os
import pathlib
from importlib.metadata import version

from benchmarks.environments import PACKAGES, installed, told

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("KERAS_BACKEND", "jax")


def processor():
    """The processor's model and features, as programs are compiled for them."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return hashlib.sha256("".join(told[:2]).encode()).hexdigest()[:12]


CACHE = pathlib.Path(__file__).parent / ".jax_cache" / f"{processor()}-jaxlib-{version('jaxlib')}"
"""What XLA compiled, kept from run to run: most of the suite's time."""

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if any(map(installed, PACKAGES)):
    os.environ["JAX_PLATFORMS"] = "cpu"

collect_ignore = [f"tests/test_compiled_{platform}.py" for platform in PACKAGES if not installed(platform)]


def pytest_terminal_summary(terminalreporter):
    """Say which of the compiled checks ran."""
    terminalreporter.write_line(told())
