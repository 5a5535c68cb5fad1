"""Every table and picture of the study, from what was measured."""

import json

from benchmarks.decoupling import pictures
from benchmarks.decoupling.grids import load
from benchmarks.decoupling.tables import TABLES
from benchmarks.report import HERE, README, table

PAGES = (README, HERE.parent / "docs" / "evidence" / "decoupling.md")
"""Where tables stand between marks of their names."""


def publish():
    """Write results/decoupling_*.json and the tables of the pages, and draw the pictures."""
    for name, (rows_of, part) in TABLES.items():
        measured = [facts for facts, _ in load(part).values()]
        if not measured:
            continue
        rows = rows_of()
        if not rows:
            continue
        wall, cpu = (sum(facts[key] for facts in measured) for key in ("wall s", "CPU s"))
        loads = sorted(facts["load"] for facts in measured)
        machines = "{processor}, {cores} cores, jax {versions[jax]}, optax {versions[optax]}"
        where = " and ".join(sorted({machines.format(**facts) for facts in measured}))
        said = f"`python -m benchmarks.decoupling --parts {part}` on {where}; load {loads[0]} to {loads[-1]}"
        said += f"; {wall} s, {cpu or 'unknown'} CPU s"
        (HERE / "results" / f"{name}.json").write_text(json.dumps({"measured": said, "rows": rows}, indent=1) + "\n")
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        for page in PAGES:
            text = page.read_text()
            if begin in text:
                head, tail = text.split(begin)[0], text.split(end)[1]
                page.write_text(f"{head}{begin}\n{said}:\n\n{table(rows)}\n{end}{tail}")
    pictures.draw_all()
