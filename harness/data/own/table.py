"""`data.name: csv`: a row a picture, one column with its label and one for each pixel, as Kaggle's digit files have it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.files import CorruptFile
from harness.data.files import content as uncompressed
from harness.data.own.arrays import collected, the_file
from harness.data.own.collected import Arrays, Collected, Part
from harness.errors import UserError, nearest
from harness.sniff import UNKNOWN, remedy, what_are
from harness.spec.trial import DataConfig

_EXPECTED = "a CSV file: a row a picture, one column with the label, one for each pixel"
_LABELS = ("label", "labels", "class", "target", "y", "digit", "category")
_NUMBERS = ("", "id", "index", "imageid", "unnamed: 0")  # columns that number the rows, as pandas writes them
_LEAST_COLUMNS = 10  # a picture of 3x3 and its label
_LOOK = 2_000  # rows that decide which column has the labels


@dataclass(frozen=True)
class _Table:
    """A file's rows as text, its header if it has one, and what separates its columns."""

    path: Path
    lines: list[str]
    header: list[str] | None
    separator: str
    first: int  # the number of the first row's line, from 1


def files(config: DataConfig) -> list[Path]:
    """The file, and that of `data.test_path`."""
    found = [the_file(config.path, "data.path", _EXPECTED)]
    return [*found, the_file(config.test_path, "data.test_path", _EXPECTED)] if config.test_path else found


def collect(config: DataConfig) -> Collected:
    """What the files hold. Raises `UserError` naming file and line."""
    paths = files(config)
    tables = [_table(path) for path in paths]
    column = _label_column(tables[0], config)
    parts: dict[Part, Arrays] = {}
    order: tuple[Part, ...] = ("train", "test")
    for part, table in zip(order, tables, strict=False):
        here = column if table.header is None else _named_column(table.header, column, tables[0].header)
        if here is None or _width(table) == _width(tables[0]) - 1:
            raise UserError(
                f"{table.path}: no labels in it, so it cannot be tested on (Kaggle's test.csv is such a file); leave "
                "data.test_path out: some of the labelled rows are held out for testing then"
            )
        labels, pixels = _read(table, here)
        parts[part] = Arrays(_shaped(pixels, table, config), labels, str(table.path))
    return collected(parts, config)


def _table(path: Path) -> _Table:
    try:
        content = uncompressed(path)
    except CorruptFile as error:
        raise UserError(str(error)) from None
    what = what_are(content)
    if what not in ("text", UNKNOWN) and not (what == "a JSON document" and content.lstrip()[:1] == b"["):
        advice = remedy(what) or ("unpack it first" if "archive" in what else None)
        raise UserError(f"{path}: {what}; expected {_EXPECTED}" + (f"; {advice}" if advice else ""))
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 text (byte 0x{content[error.start]:02x}); expected {_EXPECTED}"
        ) from None
    start = next((number for number, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise UserError(f"{path}: no row in it; expected {_EXPECTED}")
    separator = max(",;\t", key=lines[start].count)
    first = _cells(lines[start], separator)
    if len(first) < _LEAST_COLUMNS:
        raise UserError(f"{path}: {len(first)} column{'s' * (len(first) > 1)}; expected {_EXPECTED}")
    words = [cell for cell in first if not _is_number(cell)]
    has_header = len(words) > 1 or (len(words) == 1 and words[0].strip().lower() in _LABELS)
    rows = lines[start + has_header :]
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise UserError(f"{path}: a header, but no row below it")
    return _Table(
        path, rows, [cell.strip() for cell in first] if has_header else None, separator, start + has_header + 1
    )


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _width(table: _Table) -> int:
    return len(_cells(table.lines[0], table.separator))


def _label_column(table: _Table, config: DataConfig) -> int:
    """The place of the label's column. Raises `UserError` if it is not clear."""
    last = _width(table) - 1
    asked, header = config.label_column, table.header
    if asked is not None:
        if header is not None and asked in header:
            return header.index(asked)
        if asked not in ("first", "last"):
            names = ["first", "last", *(header or ())[:1], *(header or ())[-1:]]
            raise UserError(f'data.label_column: {table.path} has no column "{asked}"{nearest(asked, names)}')
        return 0 if asked == "first" else last
    if header is not None and (named := [at for at, name in enumerate(header) if name.lower() in _LABELS]):
        return named[0]
    likely = [at for at in (0, last) if _looks_like_labels(table, at)]
    if len(likely) != 1:
        which = "both the first and the last column" if likely else "neither the first nor the last column"
        raise UserError(
            f"data.label_column: {which} of {table.path} may hold the labels; say which with first or last"
            + (", or by its name in the header" if header else "")
        )
    return likely[0]


def _looks_like_labels(table: _Table, at: int) -> bool:
    """Whether a column has few different values and is not one at the border of pictures, mostly black or white."""
    step = max(1, len(table.lines) // _LOOK)
    found = [cells[at] for cells in (_cells(line, table.separator) for line in table.lines[::step]) if len(cells) > at]
    different = {*found}
    if not all(map(_is_number, different)):
        return True
    values = {float(each) for each in different}
    if len(different) < 2 or any(value != round(value) or value < 0 for value in values):
        return False
    most = max(found.count(each) for each in different) / len(found)
    return len(values) <= max(2, len(found) // 2) and max(values) < 2 * len(values) + 2 and most < 0.9


def _named_column(header: Sequence[str], column: int, first: Sequence[str] | None) -> int | None:
    """Where the label's column is in another file with a header."""
    if first is None:
        return column if column < len(header) else None
    return list(header).index(first[column]) if first[column] in header else None


def _read(table: _Table, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, numbers or text, and pixels, float32 (N, P)."""
    labels: list[str] = []
    width = _width(table)
    numbering = [at for at, name in enumerate(table.header or ()) if name.lower() in _NUMBERS and at != column]
    dropped = sorted((column, *numbering), reverse=True)

    def rows() -> Iterator[str]:
        separator = table.separator
        for number, line in enumerate(table.lines, start=table.first):
            if not line.strip():
                continue
            cells = _cells(line, separator) if '"' in line else line.split(separator)
            if len(cells) != width:
                raise UserError(
                    f"{table.path}:{number}: {len(cells):,} columns; expected {width:,}, as in the first row"
                )
            labels.append(cells[column].strip())
            for at in dropped:
                del cells[at]
            yield ",".join(cells)

    try:
        pixels = np.loadtxt(rows(), delimiter=",", dtype=np.float32, ndmin=2, comments=None)
    except ValueError as error:
        raise UserError(f"{table.path}: {_in_file(str(error), table, dropped)}") from None
    if not all(map(_is_number, {*labels})):
        if empty := [number for number, each in enumerate(labels, start=table.first) if not each]:
            raise UserError(f"{table.path}:{empty[0]}: no label")
        return np.array(labels), pixels
    return np.array([float(each) for each in labels]), pixels


def _in_file(said: str, table: _Table, dropped: Sequence[int]) -> str:
    """NumPy's complaint with the line and column of the file."""
    found = re.search(r"could not convert string (.*) to .* at row (\d+), column (\d+)", said)
    if not found:
        return said
    at = int(found[3]) - 1
    for column in sorted(dropped):
        at += column <= at
    rows = [number for number, line in enumerate(table.lines, start=table.first) if line.strip()]
    return f"line {rows[int(found[2])]}, column {at + 1}: {found[1]} is no number"


def _shaped(pixels: np.ndarray, table: _Table, config: DataConfig) -> np.ndarray:
    """Rows of pixels as pictures."""
    count = pixels.shape[1]
    if config.shape is not None:
        height, width, channels = (*map(int, config.shape.split("x")), 1)[:3]
        if height * width * channels != count:
            raise UserError(
                f"data.shape: {config.shape} is {height * width * channels:,} pixels, but {table.path} has {count:,} columns "
                "of pixels"
            )
        return pixels.reshape(-1, height, width, channels)
    side = round(count**0.5)
    if side * side == count:
        return pixels.reshape(-1, side, side, 1)
    third = round((count / 3) ** 0.5)
    hint = f" ({third}x{third}x3 would fit)" if 3 * third * third == count else ""
    raise UserError(
        f"data.shape: {table.path} has {count:,} columns of pixels, which is no square; give data.shape{hint}"
    )
