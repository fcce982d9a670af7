"""Markdown as CI services show it in a job's summary: a heading, the verdict, tables, notes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.table import Table

_ROWS = 300
"""Rows of a table at most: GitHub drops a step's summary of more than a mebibyte."""
_LONGEST = 600  # characters of a cell or a note


def heading(title: str, is_good: bool, verdict: str) -> list[str]:
    """A heading, and the verdict behind a sign that can be told without its colour."""
    return [f"## {plain(title)}", "", f"{'✅' if is_good else '❌'} **{plain(verdict)}**", ""]


def table(made: Table, first: Sequence[int] = ()) -> list[str]:
    """The lines of a table. If it has too many rows, those in `first` stay, and as many others as there is room for."""
    columns = [[str(cell) for cell in column.cells] for column in made.columns]
    rows = [row for row in zip(*columns, strict=True) if any(row)]
    if len(rows) > _ROWS:
        chosen = sorted([*dict.fromkeys([*first, *range(len(rows))])][:_ROWS])
        told = f"{_ROWS} of {len(rows):,} rows; all of them are in the JUnit file and in the JSON."
        rows = [rows[place] for place in chosen]
    else:
        told = ""
    kept = [k for k, column in enumerate(made.columns) if str(column.header) or any(row[k] for row in rows)]
    titles = [plain(str(made.columns[k].header)) for k in kept]
    lines = [_line(titles), _line(["---:" if made.columns[k].justify == "right" else "---" for k in kept])]
    lines += [_line([plain(row[k]) for k in kept]) for row in rows]
    return [*lines, "", *([told, ""] if told else [])]


def notes(lines: Sequence[str]) -> list[str]:
    """A list, each line an entry."""
    shown = [f"- {plain(line)}" for line in lines[:_ROWS]]
    more = [f"- and {len(lines) - _ROWS:,} more"] if len(lines) > _ROWS else []
    return [*shown, *more, ""] if lines else []


def plain(text: str) -> str:
    """The text, escaped so that Markdown shows it as it is, on one line, and not endlessly long."""
    text = re.sub(r"\s+", " ", text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...").strip()
    text = re.sub(r"[\x00-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|~>\[\]#@])", r"\\\1", text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
