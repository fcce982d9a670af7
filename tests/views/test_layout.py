"""Tables and sentences fit the screen, and nothing of them is lost."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Sequence

import pytest
from rich import console as rich
from rich.table import Table
from rich.text import Text

from harness.views.messages import Console, folded
from harness.views.tables import print_table

PATH = "/data/somebody/experiments/of/last/summer/capsules/results/with-a-name-that-does-not-end/0001.png"


def _table(titles: Sequence[str], *rows: Sequence[str | Text]) -> Table:
    """Columns whose title ends in "<" are texts, the others figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title.rstrip("<"), justify="left" if title.endswith("<") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _printed(table: Table, width: int) -> list[str]:
    console = rich.Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_what_fits_is_one_block() -> None:
    table = _table(["trial<", "setting \\[s]<", "estimate"], ["0", "a=1 目 \\[1, 2]", "1.0"], ["10", "b", "22.0"])
    assert _printed(table, 80) == [
        "trial  setting [s]    estimate", "0      a=1 目 [1, 2]       1.0", "10     b                  22.0",
    ]  # fmt: skip


def test_gaps_then_headings_then_texts_then_blocks_give_way() -> None:
    table = _table(["impl<", "setting<", "95% interval", "s/epoch"], ["torch", "routing 3, batch 128", "1 to 2", "376"])
    assert _printed(table, 53)[1] == "torch  routing 3, batch 128        1 to 2      376"
    assert _printed(table, 48)[1] == "torch routing 3, batch 128       1 to 2     376"
    assert _printed(table, 46) == [
        "                                  95%     s/", "impl   setting               interval  epoch",
        "torch  routing 3, batch 128    1 to 2    376",
    ]  # fmt: skip
    assert _printed(table, 42)[2] == "torch routing 3, batch 128   1 to 2   376"
    assert _printed(table, 40)[2:] == ["torch  routing 3,          1 to 2    376", "       batch 128"]
    assert len([line for line in _printed(table, 24) if line.startswith("torch")]) > 1


@pytest.mark.parametrize("width", [30, 40, 57, 80, 120])
def test_nothing_is_lost_or_too_wide(width: int) -> None:
    """Tables of all kinds: every word of every cell is there, and no line is wider than the screen but for one long word."""
    chosen = random.Random(width)
    for _ in range(40):
        titles = ["name<", *(f"text {i}<" for i in range(chosen.randrange(3))), *(f"figure of {i}" for i in range(8))]
        titles += ["verdict<"] * chosen.randrange(2)
        rows = [[_cell(chosen, title) for title in titles] for _ in range(chosen.randrange(1, 4))]
        lines = _printed(_table(titles, *rows), width)
        found = " ".join(lines)
        for cell in (cell for row in rows for cell in row):
            assert all(word in found for word in str(cell).split()), (cell, lines)
        assert not [line for line in lines if len(line) > width and len(line.split()[-1]) < width // 3], lines
        assert "…" not in found


def _cell(chosen: random.Random, title: str) -> str:
    if not title.endswith("<"):
        return f"{chosen.random():.{chosen.randrange(1, 6)}f}"
    words = ["torch", "within", "tolerance", "batch 128,", "routing 3,", "x" * 12]
    return " ".join(chosen.choice(words) for _ in range(chosen.randrange(1, 5 if title == "name<" else 9)))


def test_figures_stay_with_what_they_are_of() -> None:
    """Each block has the names of its rows, and a long table comes back to all blocks every few rows."""
    titles = ["trial<", *(f"measured figure {i}" for i in range(9))]
    table = _table(titles, *([f"t{row:03}", *(f"{row}.{i}00000" for i in range(9))] for row in range(120)))
    lines = _printed(table, 60)
    for row in range(120):
        mine = [line for line in lines if line.startswith(f"t{row:03}")]
        assert re.findall(rf"\b{row}\.\d", " ".join(mine)) == [f"{row}.{i}" for i in range(9)]
    assert lines.index(next(line for line in lines if line.startswith("t000 "))) < 5
    last = max(index for index, line in enumerate(lines) if line.startswith("t000"))
    assert last < 120  # not below the whole first block of 120 rows


def test_a_path_stays_whole_and_its_row_stays_in_columns() -> None:
    table = _table(
        ["picture<", "class<", "score", "next<"], [PATH, "seven", "0.99", "one"], ["b.png", "one", "0.5", PATH]
    )
    lines = _printed(table, 60)
    assert PATH in lines
    assert [line.split() for line in lines if "0." in line] == [["seven", "0.99", "one"], ["b.png", "one", "0.5", PATH]]
    assert len({line.index("0.") for line in lines if "0." in line}) <= 2


def test_a_log_has_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _table(["name<", *(f"figure {i}" for i in range(9))], ["x", *["0.12345678"] * 9])

    def widest(**more: str) -> int:
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        console = rich.Console(file=io.StringIO(), force_terminal=False)
        print_table(console, table)
        assert isinstance(console.file, io.StringIO)
        return max(map(len, console.file.getvalue().splitlines()))

    assert 40 < widest() <= 80
    assert 40 < widest(TERM="dumb", NO_COLOR="1") <= 80
    assert widest(COLUMNS="200") > 80  # Rich holds that a dumb terminal has 80 whatever it says
    assert widest(COLUMNS="40") <= 40


def test_colours() -> None:
    console = rich.Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    print_table(console, _table(["parity"], [Text("ok", "green")]))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "\x1b[1mparity\x1b[0m\n    \x1b[32mok\x1b[0m\n"


def test_sentences_are_folded_on_a_terminal_alone() -> None:
    told = "Nothing of this was lost, and it goes on from there with: capsbench run quickstart --out /somewhere/else/at/all"
    assert folded(Text(told), 50).plain.splitlines() == [
        "Nothing of this was lost, and it goes on from", "there with:",
        "capsbench run quickstart --out /somewhere/else/at/all",
    ]  # fmt: skip
    for is_terminal, lines in ((True, 2), (False, 1)):
        console = Console(file=io.StringIO(), width=80, force_terminal=is_terminal, color_system=None)
        console.print(Text(told), soft_wrap=True)
        assert isinstance(console.file, io.StringIO)
        assert len(console.file.getvalue().splitlines()) == lines
    styled = folded(Text.assemble(("one two ", "red"), ("three four", "green")), 9)
    assert [(line.plain, str(line.spans[0].style)) for line in styled.split("\n")] == [
        ("one two", "red"), ("three", "green"), ("four", "green"),
    ]  # fmt: skip
