"""Tables of many rows, set out without Rich: that takes four milliseconds a row, a third of a minute for 10,000 trials."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

MANY = 200
"""Rows from which it is worth it."""


def print_rows(console: Console, table: Table) -> None:
    """Prints a table without box and edges, whose cells are single lines, in full; its gaps are narrowed if it is too wide."""
    columns = [[_cell(console, cell) for cell in (column.header, *column.cells)] for column in table.columns]
    widths = [max(cell_len(_plain(each)) for each in cells) for cells in columns]
    places = [(width, column.justify == "right") for width, column in zip(widths, table.columns, strict=True)]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= console.width else " "
    lines: list[str] = []
    for number, row in enumerate(zip(*columns, strict=True)):
        padded = gap.join(_padded(_plain(cell), *each) for cell, each in zip(row, places, strict=True))
        if not number:
            console.print(Text(padded, table.header_style or ""), soft_wrap=True)
        elif any(isinstance(cell, Text) for cell in row):
            _flush(console, lines)
            cells = [_styled(cell, *each) for cell, each in zip(row, places, strict=True)]
            console.print(Text(gap).join(cells), soft_wrap=True)
        else:
            lines.append(padded)
    _flush(console, lines)


def _flush(console: Console, lines: list[str]) -> None:
    if lines:
        console.out("\n".join(lines), highlight=False)
    lines.clear()


def _cell(console: Console, cell: RenderableType) -> str | Text:
    if isinstance(cell, Text):
        return cell
    text = str(cell)
    return console.render_str(text, highlight=False) if "[" in text or ":" in text else text


def _plain(cell: str | Text) -> str:
    return cell.plain if isinstance(cell, Text) else cell


def _padded(text: str, width: int, to_the_right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if to_the_right else text + space


def _styled(cell: str | Text, width: int, to_the_right: bool) -> Text:
    space = " " * (width - cell_len(_plain(cell)))
    return Text.assemble(space, cell) if to_the_right else Text.assemble(cell, space)
