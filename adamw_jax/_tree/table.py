"""Tables: aligned text for a terminal, HTML for a notebook."""

import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def format_cell(value: Any) -> str:
    """Return a cell's text: numbers with three significant digits, a dash for what does not apply.

    >>> [format_cell(value) for value in (None, 1234567, 0.00012345, 0.0, (2, 3), (), True, ("a", "b"))]
    ['-', '1,234,567', '0.000123', '0', '2x3', '', 'yes', 'a; b']
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple) and all(isinstance(each, int) for each in value):
        return "x".join(map(str, value))
    return "; ".join(value) if isinstance(value, tuple) else str(value)


def plain(value: Any) -> Any:
    """Return a cell's value as JSON has it: tuples as lists."""
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def _cells(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[format_cell(row[key]) if key in row else "" for key in columns] for row in rows]


def _are_numbers(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    return [any(isinstance(row.get(key), (int, float)) for row in rows) for key in columns]


def to_text(
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    totals: Mapping[str, Any] | None = None,
    right: Collection[str] = (),
    ruled: bool = True,
) -> str:
    """Return the table as plain text, with numbers and the columns `right` aligned to the right.

    Args:
      columns: {key: title}.
      rows, totals: {key: value} of each line, and of a last one.
      right: keys of text columns.
      ruled: whether a line separates the titles from the rows.

    >>> print(to_text({"path": "path", "size": "size"}, [{"path": "w", "size": 10}], {"path": "total", "size": 10}))
    path   size
    -----------
    w        10
    -----------
    total    10
    """
    body, last = _cells(columns, rows), [] if totals is None else _cells(columns, [totals])
    lines = [list(columns.values()), *body, *last]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    numbers = [each or key in right for each, key in zip(_are_numbers(columns, rows), columns, strict=True)]

    def line_of(cells: list[str]) -> str:
        parts = zip(cells, widths, numbers, strict=True)
        return "  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in parts).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    head = [line_of(lines[0]), rule] if ruled else [line_of(lines[0])]
    return "\n".join([*head, *map(line_of, body), *([rule, *map(line_of, last)] if last else [])])


def to_html(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], totals: Mapping[str, Any], marked: str
) -> str:
    """Return the table as HTML, aligned as text is; rows whose value at the key `marked` is not empty are coloured.

    >>> table = to_html({"path": "path"}, [{"path": "<w>", "flags": ()}], {"path": "total"}, "flags")
    >>> print(table[table.index("<tbody>") : table.index("</tbody>")])
    <tbody><tr><td style="text-align: left; padding: 0 0.6em">&lt;w&gt;</td></tr>
    """
    sides = ["right" if number else "left" for number in _are_numbers(columns, rows)]

    def line_of(cells: Sequence[str], tag: str = "td", style: str = "") -> str:
        parts = [
            f'<{tag} style="text-align: {side}; padding: 0 0.6em">{html.escape(cell)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        ]
        return f"<tr{style}>{''.join(parts)}</tr>"

    colour = ' style="background: #fff3cd; color: #000"'
    body = [
        line_of(cells, style=colour if row.get(marked) else "")
        for cells, row in zip(_cells(columns, rows), rows, strict=True)
    ]
    return (
        f"<table><thead>{line_of(list(columns.values()), 'th')}</thead><tbody>{''.join(body)}</tbody>"
        f"<tfoot>{line_of(_cells(columns, [totals])[0], 'th')}</tfoot></table>"
    )
