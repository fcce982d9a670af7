"""Tables on a screen of any width: each figure is shown in full, whatever has to give way for it.

Rich cuts or crushes what does not fit, and takes milliseconds a row. Here a table that is too wide gives up, in turn, its
wide gaps, headings on one line, texts on one line, and at last its single block: the columns go on below, with those that
tell the rows apart. A word, such as a path, is never broken: if it is too long for its column, it has a line of its own.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

USUAL = 80
"""Columns of a log, and of a terminal that does not say."""
_MOST_LINES = 3  # a text is folded into, unless it is the last column
_LEAST = 18  # columns, of a text that is folded
_WORD = 24  # columns, of a word that stays in its column, if that is at most half the width
_ITEM = 3  # words of an item of a list at most, such as "routing 3"
_CHUNK = 50  # rows, after which a table of several blocks begins anew
_NUMBER = re.compile(r"\d*")

Cell = str | Text


def width_of(console: Console) -> int:
    """The columns that tables may take: the terminal's own; in a log or a pipe as `COLUMNS` says, else at least 80."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return console.width if console.is_terminal and not console.is_dumb_terminal else max(console.width, USUAL)


def lines(console: Console, table: Table, width: int) -> Iterator[Cell]:
    """The lines of a table that may be `width` columns wide; those that are styled as `Text`."""
    columns = [_column(console, table, place) for place in range(len(table.columns))]
    rows = max((len(column.cells) for column in columns), default=0)
    layout = _arranged(columns, width)
    if len(layout) == 1:
        yield from _block(layout[0], range(rows), table)
        return
    for start in range(0, rows, _CHUNK) or (0,):
        for number, block in enumerate(layout):
            if number or start:
                yield ""
            yield from _block(block, range(start, min(rows, start + _CHUNK)), table)


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: Sequence[Cell]
    is_figure: bool  # stands to the right, and is never folded
    width: int = 0

    @property
    def can_tell(self) -> bool:
        """Whether it can be what a row is about: a text, or whole numbers such as seeds."""
        return not self.is_figure or all(map(_NUMBER.fullmatch, map(_plain, self.cells)))

    def natural(self, *, folded_heading: bool) -> int:
        """The width at which no cell is folded."""
        words = _pieces(self.heading) if folded_heading else [self.heading]
        return max(map(cell_len, (*words, *map(_plain, self.cells))), default=0)

    def least(self) -> int:
        """The width of its longest word."""
        texts = (self.heading, *map(_plain, self.cells))
        return max((cell_len(word) for text in texts for word in text.split()), default=0)


@dataclass(frozen=True)
class _Block:
    columns: Sequence[_Column]
    gap: str


def _arranged(columns: Sequence[_Column], width: int) -> list[_Block]:
    """The blocks, one below the other, in which the columns are shown: one if that is possible at all."""
    if found := _in_one(columns, width):
        return [found]
    columns = [each for each in columns if any(map(_plain, each.cells))] or list(columns)[:1]
    keys = _keys(columns, width)
    blocks: list[_Block] = []
    taken: list[int] = []

    def fitting(places: Sequence[int], *, at_any_rate: bool = False) -> _Block | None:
        chosen = [columns[place] for place in sorted({*keys, *places})]
        return _in_one(chosen, width) or (_forced(chosen, width) if at_any_rate else None)

    for place in (place for place in range(len(columns)) if place not in keys):
        if taken and fitting([*taken, place]) is None:
            blocks += filter(None, [fitting(taken, at_any_rate=True)])
            taken = []
        taken.append(place)
    return [*blocks, *filter(None, [fitting(taken, at_any_rate=True)])]


def _keys(columns: Sequence[_Column], width: int) -> list[int]:
    """The columns that tell rows apart, repeated in each block: the first ones that do, of half the width at most."""
    found: list[int] = []
    told: list[tuple[str, ...]] = [()] * len(columns[0].cells)
    for place, column in enumerate(columns[:-1]):
        if found and not column.can_tell:  # the figures begin
            break
        further = [(*row, _plain(cell)) for row, cell in zip(told, column.cells, strict=True)]
        if found and len({*further}) == len({*told}):
            continue
        taken = [columns[each].natural(folded_heading=True) for each in (*found, place)]
        if found and 2 * sum(min(_LEAST, each) + 2 for each in taken) > width:
            break
        found, told = [*found, place], further
    return found or [0]


def _in_one(columns: Sequence[_Column], width: int) -> _Block | None:
    """All columns side by side, with as little given up as possible; None if they do not fit."""
    for is_folded, gap in ((False, "  "), (False, " "), (True, "  "), (True, " ")):
        natural = [each.natural(folded_heading=is_folded) for each in columns]
        if sum(natural) + len(gap) * (len(columns) - 1) <= width:
            return _Block([replace(each, width=w) for each, w in zip(columns, natural, strict=True)], gap)
    for gap in ("  ", " "):
        if found := _with_folded_texts(columns, width - len(gap) * (len(columns) - 1)):
            return _Block(found, gap)
    return None


def _with_folded_texts(
    columns: Sequence[_Column], width: int, least_text: int = _LEAST, most_lines: int = _MOST_LINES
) -> list[_Column] | None:
    """Columns whose texts share what the figures leave; None if a text would become too narrow, or too high before others."""
    natural = [each.natural(folded_heading=True) for each in columns]
    last = len(columns) - 1
    texts = [place for place, each in enumerate(columns) if not each.is_figure]
    word = max(width // 3, min(_WORD, width // 2))
    least = {
        place: min(natural[place], least_text)
        if place == last
        else min(natural[place], max(min(least_text, width // 3), min(columns[place].least(), word)))
        for place in texts
    }
    left = width - sum(natural) + sum(natural[place] for place in texts)
    spare = left - sum(least.values())
    if not texts or spare < 0:
        return None
    given = dict(least)
    for count, place in enumerate(sorted(texts, key=lambda each: natural[each] - least[each])):
        more = min(natural[place] - least[place], spare // (len(texts) - count))
        given[place], spare = given[place] + more, spare - more
    for place in (place for place in texts if place != last):
        if any(len(_folded(_plain(cell), given[place])) > most_lines for cell in columns[place].cells):
            return None
    return [replace(each, width=given.get(place, natural[place])) for place, each in enumerate(columns)]


def _forced(columns: Sequence[_Column], width: int) -> _Block:
    """Columns that cannot do with fewer beside them: texts as narrow and high as it takes, figures in full even so."""
    for least in (_LEAST, *range(_LEAST - 1, 0, -1)):
        if found := _with_folded_texts(columns, width - len(columns) + 1, least, 10**6):
            return _Block(found, " ")
    return _Block([replace(each, width=each.natural(folded_heading=True)) for each in columns], " ")


def _block(block: _Block, rows: Sequence[int], table: Table) -> Iterator[Cell]:
    if table.show_header:
        headings = [_heading(each.heading, each.width) for each in block.columns]
        height = max(map(len, headings), default=0)
        for number in range(height):  # the last words of all headings stand on one line
            words = [each[number - height + len(each)] if number >= height - len(each) else "" for each in headings]
            yield Text(_joined(words, block), table.header_style or "")
    for number in rows:
        cells = [column.cells[number] for column in block.columns]
        parts = [_parts(cell, column) for cell, column in zip(cells, block.columns, strict=True)]
        style = str(table.rows[number].style or "")
        if style or any(isinstance(cell, Text) for cell in cells):
            yield from (_styled(line, block, style) for line in _side_by_side(parts, block))
        else:
            yield from (_joined(line, block) for line in _side_by_side(parts, block))


def _side_by_side(parts: Sequence[Sequence[Cell]], block: _Block) -> Iterator[Sequence[Cell]]:
    """The lines of a row. What is wider than its column, but for the last one, has a line of its own before the others."""
    left = [deque(each) for each in parts]
    while any(left):
        for place, (lines, column) in enumerate(zip(left[:-1], block.columns, strict=False)):
            while lines and cell_len(_plain(lines[0])) > column.width:
                yield [lines.popleft() if each == place else "" for each in range(place + 1)]
        if any(left):
            yield [each.popleft() if each else "" for each in left]


def _styled(cells: Sequence[Cell], block: _Block, style: str) -> Text:
    line = Text.assemble(*_padded(cells, block), style=style)
    line.rstrip()
    return line


def _joined(cells: Sequence[Cell], block: _Block) -> str:
    return "".join(_plain(each) for each in _padded(cells, block)).rstrip()


def _padded(cells: Sequence[Cell], block: _Block) -> list[Cell]:
    """The cells of a line with the space between them."""
    found: list[Cell] = []
    for place, (cell, column) in enumerate(zip(cells, block.columns, strict=False)):
        space = " " * (column.width - cell_len(_plain(cell)))
        is_last = place == len(cells) - 1
        found += [space, cell] if column.is_figure else [cell, "" if is_last else space]
        found += [] if is_last else [block.gap]
    return found


def _parts(cell: Cell, column: _Column) -> Sequence[Cell]:
    """The lines of a cell."""
    text = _plain(cell)
    if column.is_figure or cell_len(text) <= column.width:
        return [cell]
    parts = _folded(text, column.width)
    return [Text(part, cell.style) for part in parts] if isinstance(cell, Text) else parts


def _folded(text: str, width: int) -> list[str]:
    """A text in lines of this width, broken between words alone; a list such as a setting's rather at its commas."""
    if cell_len(text) <= width:
        return [text]
    items = [f"{item}," for item in text.split(", ")]
    items[-1] = items[-1][:-1]
    is_list = all(cell_len(item) <= width and len(item.split()) <= _ITEM for item in items)
    words = items if is_list else text.split()
    return _filled(words, width) or [""]


def _filled(words: Sequence[str], width: int, gap: str = " ") -> list[str]:
    found: list[str] = []
    for word in words:
        if found and cell_len(found[-1]) + len(gap) + cell_len(word) <= width:
            found[-1] += f"{gap}{word}"
        else:
            found.append(word)
    return found


def _pieces(heading: str) -> list[str]:
    """What a heading may be folded into: "images/s" into "images/" and "s"."""
    return [piece for word in heading.split() for piece in re.findall(r"[^/]+/?|/", word)]


def _heading(text: str, width: int) -> list[str]:
    """A heading in lines of this width."""
    if cell_len(text) <= width:
        return [text]
    words = text.split()
    if all(cell_len(word) <= width for word in words):
        return _filled(words, width)
    return [line for word in words for line in _filled(_pieces(word), width, "")]


def _column(console: Console, table: Table, place: int) -> _Column:
    column = table.columns[place]
    cells = [_cell(console, cell) for cell in column.cells]
    return _Column(_plain(_cell(console, column.header)), cells, column.justify == "right")


def _cell(console: Console, cell: RenderableType) -> Cell:
    if isinstance(cell, Text):
        return cell
    text = str(cell)
    return console.render_str(text, highlight=False) if "[" in text or ":" in text else text


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell
