"""What the text of a compiled program tells: bytes moved, kernels launched, registers, the compiler's cycles."""

import math
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
_LINE = re.compile(r"^\s*(?:ROOT )?%(?P<name>[\w.-]+) = (?P<result>\(.*?\)|\S+) (?P<operation>[\w-]+)\((?P<rest>.*)")
NO_KERNEL = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"}
"""Operations that move nothing and launch nothing."""

LARGE = 1024
"""Elements from which on an array is no scalar and no handful of them."""


class Instruction(NamedTuple):
    """A line of a program: its name, what it does, and the types and sizes of its operands and results."""

    name: str
    operation: str
    results: list[tuple[str, int]]
    operands: list[str]
    text: str


def _arrays(text: str) -> list[tuple[str, int]]:
    return [(dtype, math.prod(int(n) for n in dims.split(",") if n)) for dtype, dims in _ARRAY.findall(text)]


def _width(dtype: str) -> float:
    return 1 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0]) / 8


def entry(text: str) -> list[Instruction]:
    """Return the instructions of the computation where a program begins."""
    lines = text[re.search(r"^ENTRY", text, re.MULTILINE).start() :].splitlines()[1:]
    found = []
    for line in lines[: lines.index("}")]:
        match = _LINE.match(line)
        operands = re.findall(r"%([\w.-]+)", match["rest"].split("), ")[0])
        found.append(Instruction(match["name"], match["operation"], _arrays(match["result"]), operands, line))
    return found


def instructions(text: str) -> int:
    """Return how many instructions a program has, those inside of its loops among them."""
    return len(re.findall(r"^\s+(?:ROOT )?%[\w.-]+ = ", text, re.MULTILINE))


def kernels(text: str) -> list[Instruction]:
    """Return the instructions of ENTRY that read and write: on a GPU, each is a launch."""
    return [each for each in entry(text) if each.operation not in NO_KERNEL]


def bytes_moved(text: str) -> float:
    """Return the bytes of the operands and results of all kernels of ENTRY."""
    sizes = {each.name: sum(_width(d) * n for d, n in each.results) for each in entry(text)}
    return sum(sizes[each.name] + sum(sizes[name] for name in each.operands if name in sizes) for each in kernels(text))


def large_results(text: str) -> list[int]:
    """Return how many large arrays each kernel writes, for the kernels that write one."""
    counts = [sum(n >= LARGE for _, n in each.results) for each in kernels(text)]
    return [count for count in counts if count]


def wide_floats(text: str) -> tuple[int, int]:
    """Return how often a program names a float64 array, scalars and larger ones."""
    sizes = [n for dtype, n in _arrays(text) if dtype == "f64"]
    return sum(n == 1 for n in sizes), sum(n > 1 for n in sizes)


def cycles(text: str) -> int:
    """Return the sum of the TPU compiler's estimates for the loops of a program."""
    return sum(int(number) for number in re.findall(r'"estimated_cycles":"(\d+)"', text))


def registers(ptx: str, ptxas: str) -> list[tuple[int, int]]:
    """Return registers and bytes of spilled registers of every kernel in some PTX, as NVIDIA's assembler says."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernels.ptx")
        source.write_text(ptx)
        command = [ptxas, "-v", "-arch=sm_90a", str(source), "-o", str(Path(folder, "out"))]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill stores", told)]
    used = [int(n) for n in re.findall(r"Used (\d+) registers", told)]
    return list(zip(used, spilled, strict=True))


def assembler() -> str:
    """Return the path of NVIDIA's assembler for PTX.

    Raises:
      ValueError: it is not installed.
    """
    packaged = [str(p) for root in sys.path for p in Path(root).glob("nvidia/*/bin/ptxas")]
    found = next(iter(packaged), shutil.which("ptxas"))
    if found is None:
        raise ValueError("`ptxas` must be installed, got none: `make compiled-gpu` fills an environment that has it")
    return found


def compiled_for_gpu(lowered: Any) -> tuple[Any, list[tuple[int, int]]]:
    """Return a program compiled for a GPU, and registers and spilled bytes of each of its kernels."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        sources = [path.read_text() for path in sorted(Path(folder).glob("*.ptx"))]
    path = assembler()
    return compiled, [each for source in sources if source for each in registers(source, path)]
