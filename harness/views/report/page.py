"""A report as files: Markdown and one static HTML page, made from the same sections that the screen shows."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from harness.disk import obstacle, write_atomic
from harness.errors import UserError

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 96rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
div { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #ddd }
.right { text-align: right } img { max-width: 100% } li { color: #444 }
"""


@dataclass(frozen=True)
class Section:
    """A heading, an explanation, a table with notes, and figures (files)."""

    title: str
    text: str = ""
    table: Table | None = None
    notes: Sequence[str] = ()
    figures: Sequence[Path] = field(default_factory=tuple[Path, ...])


def write(title: str, texts: Sequence[str], sections: Sequence[Section], out: Path) -> list[Path]:
    """Writes report.md and report.html to the folder `out`; returns their paths. Raises `UserError` if it cannot."""
    paths = [out / "report.md", out / "report.html"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, (_markdown, _html), strict=True):
            write_atomic(path, content(title, [text for text in texts if text], sections, out))
    except OSError as error:
        raise UserError(
            f"cannot write the report to {out}: {obstacle(out) or error.strerror}; choose a place with --out DIR"
        ) from error
    return paths


def _rows(table: Table) -> tuple[list[str], list[bool], list[list[str]]]:
    """A table's titles, which of its columns are numbers, and its rows, as plain text."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    titles = [str(column.header) for column in table.columns]
    right = [column.justify == "right" for column in table.columns]
    return titles, right, [list(row) for row in zip(*columns, strict=True)]


def _markdown(title: str, texts: Sequence[str], sections: Sequence[Section], out: Path) -> str:
    lines = [f"# {_plain(title)}", "", *(line for text in texts for line in (_plain(text), ""))]
    for section in sections:
        lines += [f"## {_plain(section.title)}", "", _plain(section.text), ""]
        if section.table:
            titles, right, rows = _rows(section.table)
            lines += [_line(titles), _line(["---:" if each else "---" for each in right])]
            lines += [*(_line([_plain(cell) for cell in row]) for row in rows), ""]
        lines += [f"- {_plain(note)}" for note in section.notes] + [""] * bool(section.notes)
        lines += [f"![{path.stem}](<{_relative(path, out)}>)\n" for path in section.figures]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _html(title: str, texts: Sequence[str], sections: Sequence[Section], out: Path) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(text)}</p>" for text in texts)]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts.append(f"<p>{html.escape(section.text)}</p>" if section.text else "")
        if section.table:
            titles, right, rows = _rows(section.table)
            parts.append("<div><table>")
            parts += [_row("th", titles, right), *(_row("td", row, right) for row in rows), "</table></div>"]
        if section.notes:
            parts.append(f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in section.notes)}</ul>")
        for path in section.figures:
            address = html.escape(_relative(path, out), quote=True)
            parts.append(f'<p><img src="{address}" alt="{html.escape(path.stem, quote=True)}"></p>')
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(filter(None, parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(tag: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    made = (
        f"<{tag}{' class=right' if number else ''}>{html.escape(cell)}</{tag}>"
        for cell, number in zip(cells, right, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def _plain(text: str) -> str:
    """The text, escaped so that Markdown shows it as it is."""
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path, out)).as_posix()
