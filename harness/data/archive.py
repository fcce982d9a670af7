"""Zip archives of MATLAB files: read entry by entry into memory; nothing is ever unpacked to disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from harness.data.files import CorruptFile
from harness.sniff import UNKNOWN, remedy, what_is


def check_archive(path: Path) -> None:
    """Raises `CorruptFile` unless `path` is a complete zip archive, all entries inside it and with the right checksum."""
    for _ in entries(path):
        pass


def entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each .mat entry, 2.mat before 10.mat. Raises `CorruptFile` for a damaged or hostile archive.

    `path` may also be one .mat file, or a folder of them, as the archives unpack to.
    """
    try:
        if path.is_dir() or path.suffix == ".mat":
            inside = path.glob("*.mat") if path.is_dir() else [path]
            for each in sorted(inside, key=lambda each: (len(each.stem), each.stem)):
                yield each.name, each.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for entry in _files(path, archive):
                yield entry.filename, archive.read(entry)  # verifies the entry's CRC-32
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        found = what_is(path)
        said = f"it is {found}" if found != UNKNOWN and "zip archive" not in found else error
        advice = f"; {told}" if (told := remedy(found)) else ""
        raise CorruptFile(f"{path}: truncated or corrupt zip archive ({said}){advice}.") from None
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read ({error.strerror or error}).") from None


def _files(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    found: list[tuple[int, str, zipfile.ZipInfo]] = []
    for entry in archive.infolist():
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in entry.filename:
            raise CorruptFile(f'{path}: its entry "{entry.filename}" points outside of its folder; refused.')
        if place.suffix == ".mat" and "__MACOSX" not in place.parts:
            found.append((len(place.stem), place.stem, entry))
    if not found:
        raise CorruptFile(f"{path}: there is no .mat file in it.")
    return [entry for *_, entry in sorted(found, key=lambda each: each[:2])]
