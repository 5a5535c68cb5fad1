"""Eight virtual devices and Keras on JAX for the whole suite: both are read once, before the first import."""

import os

from benchmarks.environments import PACKAGES, installed, told

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("KERAS_BACKEND", "jax")
if any(map(installed, PACKAGES)):
    os.environ["JAX_PLATFORMS"] = "cpu"

collect_ignore = [f"tests/test_compiled_{platform}.py" for platform in PACKAGES if not installed(platform)]


def pytest_terminal_summary(terminalreporter):
    """Say which of the compiled checks ran."""
    terminalreporter.write_line(told())
