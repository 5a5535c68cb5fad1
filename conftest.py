"""Eight virtual devices and Keras on JAX for the whole suite: both are read once, before the first import."""

import contextlib
import gc
import hashlib
import os
import pathlib
import re
from importlib.metadata import version

from benchmarks.environments import PACKAGES, installed, told

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8"
    # Most programs run a few times on a few numbers: LLVM's optimization costs more than it saves. Where bits of what
    # users run or compiled text are looked at, `optimized_jit` of tests/running.py asks for it.
    " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1",
)
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

import jax  # noqa: E402, because of the variables above
import pytest  # noqa: E402, because of the variables above

# The programs and traces of a run are millions of objects that live on: looking at them took a seventh of its time.
gc.set_threshold(20_000, 20, 20)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

OTHERS_CODE = re.compile(
    "keras|documents|examples|newcomers|decoupling|benchmarks|directions|equivalences|golden|invariance|rounding|sweep|turn"
)
"""Test modules that run other packages, peers, models or users' snippets, which may mix dtypes and ranks."""

SLOW = re.compile(
    "keras|documents|examples|processes|decoupling|scale_invariance|equivalences|host|sharding|golden|sweep|benchmarks"
    "|fuzz|turn|mesh|checkpoints|study|intervene|directions|properties|health"
)
"""Modules that `make quick` leaves out."""


@contextlib.contextmanager
def standard_promotion():
    """Promote dtypes and ranks as JAX does where nothing is set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def lenient():
    """Run one test under standard promotion."""
    with standard_promotion():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Run the modules of others' code, with their fixtures, and the docstrings' examples under standard promotion."""
    name = f"{item.path.parent.name}/{item.path.stem}"
    example = type(item).__name__ == "DoctestItem"
    with standard_promotion() if example or OTHERS_CODE.search(name) else contextlib.nullcontext():
        return (yield)


def pytest_addoption(parser):
    """`--quick` leaves out what runs Keras, examples, documents, other processes and whole trainings."""
    parser.addoption("--quick", action="store_true", help="leave out the slow modules: for work in progress")


def pytest_ignore_collect(collection_path, config):
    """Leave out the slow modules where `--quick` is given."""
    return True if config.getoption("quick") and SLOW.search(collection_path.name) else None


collect_ignore_glob = ["tests/clients/*"]
collect_ignore = [f"tests/test_compiled_{platform}.py" for platform in PACKAGES if not installed(platform)]


def pytest_terminal_summary(terminalreporter):
    """Say which of the compiled checks ran."""
    terminalreporter.write_line(told())
