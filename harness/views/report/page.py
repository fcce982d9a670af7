"""The sections of a report, which the screen shows, and the same as Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True)
class Section:
    """A heading, an explanation, a table with notes, and figures (files)."""

    title: str
    text: str = ""
    table: Table | None = None
    notes: Sequence[str] = ()
    figures: Sequence[Path] = field(default_factory=tuple[Path, ...])


def rows_of(table: Table) -> tuple[list[str], list[bool], list[list[str]]]:
    """A table's titles, which of its columns are numbers, and its rows, as plain text."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    titles = [str(column.header) for column in table.columns]
    right = [column.justify == "right" for column in table.columns]
    return titles, right, [list(row) for row in zip(*columns, strict=True)]


def markdown(title: str, texts: Sequence[str], sections: Sequence[Section], out: Path) -> str:
    """The report as Markdown; figures are named relative to the folder `out`."""
    lines = [f"# {plain(title)}", "", *(line for text in texts for line in (plain(text), ""))]
    for section in sections:
        lines += [f"## {plain(section.title)}", "", plain(section.text), ""]
        if section.table:
            lines += [*table_lines(section.table), ""]
        lines += [f"- {plain(note)}" for note in section.notes] + [""] * bool(section.notes)
        lines += [f"![{path.stem}](<{_relative(path, out)}>)\n" for path in section.figures]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def table_lines(table: Table) -> list[str]:
    """The table's lines in Markdown."""
    titles, right, rows = rows_of(table)
    head = [_line(titles), _line(["---:" if each else "---" for each in right])]
    return [*head, *(_line([plain(cell) for cell in row]) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """The text, escaped so that Markdown shows it as it is."""
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path, out)).as_posix()
