"""The points that were trained, as one JSON file: columns, and a row per point."""

import functools
import json
import os
from pathlib import Path

from benchmarks.peers import machine
from benchmarks.transfer.trainings import SHAPE

FILE = Path(__file__).parents[1] / "results" / "transfer.json"
SCORES = ("label", "tuning", "reported", "seconds")


_machine = functools.cache(machine)


def key_of(point):
    """Return what tells a training from others: its optimizer, shape and numbers, to five digits."""
    numbers = {k: v for k, v in point.items() if k not in SCORES}
    return json.dumps({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in numbers.items()}, sort_keys=True)


def load(path=FILE):
    """Return the points of a file, each a dict; none where there is no file."""
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def save(points, path=FILE):
    """Write the points, all at once, so that an interruption leaves the file as it was."""
    columns = list(dict.fromkeys(("label", "optimizer", *SHAPE, *(key for point in points for key in point))))
    rows = [[point.get(column) for column in columns] for point in points]
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = json.dumps({"machine": _machine(), "columns": columns})[:-1]
    temporary = path.with_suffix(".new")
    temporary.write_text(f'{head}, "rows": [\n{lines}\n]}}\n')
    os.replace(temporary, path)
