"""Results to disk: JSON files, the tables in results/README.md, the plots."""

import json
import math
from pathlib import Path

from benchmarks import pictures
from benchmarks.peers import machine

HERE = Path(__file__).parent
README = HERE / "results" / "README.md"


def table(rows):
    """Return rows (dicts with the same keys) as a Markdown table."""

    def show(value):
        if not isinstance(value, float):
            return str(value)
        digits = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(digits, 6)}f}"

    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(show(row[column]) for column in columns) + " |" for row in rows])


def publish(name, rows):
    """Write results/<name>.json, put the table between its marks in results/README.md, and draw the picture."""
    facts = machine()
    (HERE / "results" / f"{name}.json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    where = "{device}, {processor}, {cores} cores, load {load}".format(**facts)
    where += "".join(f", {package} {version}" for package, version in facts["versions"].items())
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = README.read_text()
    head, tail = text.split(begin)[0], text.split(end)[1]
    README.write_text(f"{head}{begin}\n`{facts['command']}` on {where}:\n\n{table(rows)}\n{end}{tail}")
    if name in pictures.PICTURES:
        pictures.draw(name)
    print(table(rows))
