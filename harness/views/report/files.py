"""A report's files in the forms that were asked for."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.analysis.frames import aligned
from harness.analysis.rows import Row
from harness.disk import obstacle, write_atomic
from harness.errors import UserError

FORMATS = ("html", "md", "csv", "parquet", "latex", "png", "svg")
DEFAULT = ("md", "html", "png")


def write_texts(texts: Mapping[str, str], out: Path) -> list[Path]:
    """Writes each text to the file of that name in `out`. Raises `UserError` if it cannot."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomic(out / name, text)
    except OSError as error:
        raise _refused(out, error) from error
    return [out / name for name in texts]


def write_tables(frames: Mapping[str, Sequence[Row]], out: Path, kind: str) -> list[Path]:
    """Writes each table to a file of its own, as "csv" or "parquet". Raises `UserError` if it cannot."""
    if kind == "csv":
        return write_texts({f"{name}.csv": as_csv(rows) for name, rows in frames.items()}, out)
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            "--format parquet needs pyarrow, which is not installed: pip install pyarrow. Or take --format csv."
        )
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in frames.items():
            sink = io.BytesIO()
            parquet.write_table(arrow.Table.from_pylist(_of_one_type(aligned(rows))), sink)
            write_atomic(out / f"{name}.parquet", sink.getvalue())
    except OSError as error:
        raise _refused(out, error) from error
    return [out / f"{name}.parquet" for name in frames]


def as_csv(rows: Sequence[Row]) -> str:
    """The rows with a header; unknown values are empty, true and false in lower case, numbers in full."""
    table = aligned(rows)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows([_cell(value) for value in row.values()] for row in table)
    return sink.getvalue()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _of_one_type(rows: Sequence[Row]) -> list[Row]:
    """The rows; a column that mixes numbers with other things is text, as a column has one type in Parquet."""
    made = [dict(row) for row in rows]
    for column in rows[0]:
        kinds: set[type[Any]] = {type(row[column]) for row in rows if row[column] is not None}
        if len(kinds) > 1:
            change = float if kinds <= {int, float} else _text
            for row in made:
                row[column] = None if row[column] is None else change(row[column])
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _refused(out: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write the report to {out}: {obstacle(out) or error.strerror}; choose a place with --out DIR"
    )
