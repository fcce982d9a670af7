"""A suite's file: read, whatever stands there instead; and which one was meant."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path

from harness.errors import UserError, nearest
from harness.sniff import remedy, what_are

STDIN, SHOWN = Path("-"), Path("stdin")
"""What stands for it on the command line, and in messages."""
_MAX_BYTES = 1_000_000
_READABLE = ("text", "lines of JSON", "a JSON document", "an empty file", "binary data")
"""How the words begin for what may be a suite, or is judged by whoever reads it."""


def read_text(path: Path) -> str:
    """The text of the file, pipe, or with "-" of stdin. Raises `UserError` for what is missing, unreadable or no text."""
    try:
        if path == STDIN:
            return _decoded(_read(sys.stdin.fileno(), SHOWN), SHOWN)
        if not path.exists():
            hint = f": a link to {path.readlink()}, which does not exist" if path.is_symlink() else nearest_file(path)
            raise UserError(f"{path}: no such file{hint}")
        if not path.is_file() and not is_passing(path):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UserError(f"{path}: {kind}; name a .yaml file{nearest_file(path / 'suite.yaml')}")
        if is_passing(path):
            with path.open("rb") as file:
                return _decoded(_read(file.fileno(), path), path)
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; a suite has at most {_MAX_BYTES:,}")
        return _decoded(path.read_bytes(), path)
    except io.UnsupportedOperation as error:
        raise UserError(f"{SHOWN}: cannot be read here; name a file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def is_passing(path: Path) -> bool:
    """Whether it can be read only once: stdin, a pipe, `<(command)` of a shell."""
    if path == STDIN:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _read(descriptor: int, path: Path) -> bytes:
    """All there is, unless it is too much for a suite."""
    data = b""
    while piece := os.read(descriptor, 1 << 16):
        data += piece
        if len(data) > _MAX_BYTES:
            raise UserError(f"{path}: more than {_MAX_BYTES:,} bytes; a suite has at most that many")
    return data


def _decoded(data: bytes, path: Path) -> str:
    found = what_are(data)
    if not found.startswith(_READABLE):
        advice = remedy(found)
        raise UserError(f"{path}: {found}, expected a suite in YAML{f'; {advice}' if advice else ''}")
    if b"\x00" in data:
        raise UserError(f"{path}: binary data, expected a suite in YAML")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = error.object  # without the byte-order mark
        line, before = text.count(b"\n", 0, error.start) + 1, text[: error.start].rpartition(b"\n")[2].decode()
        byte, column = f"byte 0x{text[error.start]:02x}", len(before) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text ({byte}) in column {column}; save the file as UTF-8") from error


def nearest_file(path: Path) -> str:
    """The end of a message about a missing suite file: which nearby file was probably meant, and which ones exist."""
    found = files_near(path)
    if not found:
        return "; there is no .yaml file in that folder"
    other = path.with_suffix(".yml" if path.suffix == ".yaml" else ".yaml")  # suite.yml of a suite.yaml
    return nearest(str(other if str(other) in found else path), found)


def files_near(path: Path) -> set[str]:
    """The suite files in the folder of `path`, and in `suites` in the current folder."""
    folders = (path.parent, Path("suites"))
    return {str(file) for folder in folders if folder.is_dir() for file in folder.glob("*.y*ml") if file.is_file()}
