"""Tables of many rows look as Rich would print them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.views import tables
from harness.views.rows import MANY


def _printed(width: int, monkeypatch: pytest.MonkeyPatch, many: int) -> list[str]:
    monkeypatch.setattr(tables, "MANY", many)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "setting \\[s]", "estimate"):
        table.add_column(title, no_wrap=True, justify="right" if title == "estimate" else "left")
    for row in range(MANY):
        cell = Text("FAILED", "bold red") if row == 3 else f"a={row % 7} 目 \\[1, 2]"
        table.add_row(str(row), cell, "1.0" * (row % 3))
    console = Console(file=io.StringIO(), width=width)
    tables.print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().split("\n")]


@pytest.mark.parametrize("width", [200, 30])
def test_the_same_as_rich(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _printed(width, monkeypatch, 1)
    assert lines == _printed(width, monkeypatch, 10**6)
    assert lines[0] == "trial  setting [s]    estimate" if width == 200 else "trial setting [s]   estimate"


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MANY", 1)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("parity", justify="right")
    table.add_row(Text("ok", "green"))
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    tables.print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "\x1b[1mparity\x1b[0m\n    \x1b[32mok\x1b[0m\n"
