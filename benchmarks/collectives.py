"""What a compiled program sends between devices: its collectives, with the bytes of their results per device."""

import math
import re
from typing import NamedTuple

import jax

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_COMPUTATION = re.compile(r"(?:ENTRY )?%(?P<name>[\w.-]+) \(")
_LOOP = re.compile(r" while\(.*body=%(?P<body>[\w.-]+).*\"known_trip_count\":\{\"n\":\"(?P<times>\d+)\"")
_CHAIN = re.compile(r'frontend_attributes=\{[^}]*chain_id="?(?P<chain>[^",}]+)')
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>[\d,]*)\]")


class Collective(NamedTuple):
    """One array that a collective produces on each device, and how often one run of the program does so."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    times: int = 1

    @property
    def bytes(self) -> int:
        bits = int(re.sub(r"\D", "", self.dtype) or 8)
        return self.times * math.prod(self.shape) * bits // 8


def collectives(compiled: jax.stages.Compiled) -> list[Collective]:
    """Every array produced by a collective in the text of the compiled program; loops count as often as they run.

    XLA for TPUs overlaps a collective with arithmetic by clones of it in several fusions, which share a chain_id in
    their frontend_attributes: these are one collective.
    """
    found: list[tuple[str, Collective]] = []
    chains: set[tuple[str, str]] = set()
    loops: dict[str, tuple[str, int]] = {}  # a loop's body: where the loop is, and how often it runs
    here = ""
    for line in compiled.as_text().splitlines():
        if match := _COMPUTATION.match(line):
            here = match["name"]
        elif match := _LOOP.search(line):
            loops[match["body"]] = here, int(match["times"])
        elif match := _INSTRUCTION.search(line):
            if chain := _CHAIN.search(line):
                if (match["kind"], chain["chain"]) in chains:
                    continue
                chains.add((match["kind"], chain["chain"]))
            arrays = [(m["dtype"], m["shape"].split(",")) for m in _ARRAY.finditer(match["result"])]
            if match["start"]:  # an asynchronous start returns its operands first, then its results
                arrays = arrays[len(arrays) // 2 :]
            found += [
                (here, Collective(match["kind"], dtype, tuple(int(n) for n in dims if n))) for dtype, dims in arrays
            ]

    def times(computation: str) -> int:
        if computation not in loops:
            return 1
        outer, runs = loops[computation]
        return runs * times(outer)

    return [each._replace(times=times(computation)) for computation, each in found]


def bytes_by_kind(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of the results of the collectives, summed by kind; kinds that do not occur are left out."""
    totals: dict[str, int] = {}
    for collective in collectives(compiled):
        totals[collective.kind] = totals.get(collective.kind, 0) + collective.bytes
    return totals
