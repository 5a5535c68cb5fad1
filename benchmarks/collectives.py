"""What a compiled program sends between devices: its collectives, with the bytes of their results per device."""

import math
import re
from typing import NamedTuple

import jax

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>[\d,]*)\]")


class Collective(NamedTuple):
    """One array that one collective produces on each device."""

    kind: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        bits = int(re.sub(r"\D", "", self.dtype) or 8)
        return math.prod(self.shape) * bits // 8


def collectives(compiled: jax.stages.Compiled) -> list[Collective]:
    """Every array produced by a collective in the text of the compiled program; one inside a loop counts once."""
    found = []
    for line in compiled.as_text().splitlines():
        if match := _INSTRUCTION.search(line):
            arrays = [(m["dtype"], m["shape"].split(",")) for m in _ARRAY.finditer(match["result"])]
            if match["start"]:  # an asynchronous start returns its operands first, then its results
                arrays = arrays[len(arrays) // 2 :]
            found += [Collective(match["kind"], dtype, tuple(int(n) for n in dims if n)) for dtype, dims in arrays]
    return found


def bytes_by_kind(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of the results of the collectives, summed by kind; kinds that do not occur are left out."""
    totals: dict[str, int] = {}
    for collective in collectives(compiled):
        totals[collective.kind] = totals.get(collective.kind, 0) + collective.bytes
    return totals
