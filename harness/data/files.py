"""Published files in a directory: finding, verifying, decompressing. Nothing here writes or uses the network."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError


class MissingFiles(UserError):
    """Files of a data set are not on this machine."""


class CorruptFile(UserError):
    """A file is there, but is not what was published."""


@dataclass(frozen=True)
class FileSet:
    """The files of one data set. Hashes are of the uncompressed files: gzip wrappers differ from mirror to mirror."""

    name: str  # also the folder's name within the data directory
    sha256: Mapping[str, str]
    mirrors: tuple[str, ...] = ()  # URL prefixes; each serves every file as <prefix><name>.gz


def locate(files: FileSet, directory: Path) -> dict[str, Path]:
    """The files that are there: each as `name` or `name.gz`, in `<directory>/<set>/` or in `<directory>/` itself."""
    found: dict[str, Path] = {}
    for name in files.sha256:
        places = (folder / file for folder in (directory / files.name, directory) for file in (name, f"{name}.gz"))
        path = next((place for place in places if place.is_file()), None)
        if path:
            found[name] = path
    return found


def read_all(files: FileSet, directory: Path) -> dict[str, bytes]:
    """The verified contents of all files. Raises `CorruptFile` naming each corrupt one, else `MissingFiles`."""
    found = locate(files, directory)
    contents: dict[str, bytes] = {}
    corrupt: list[str] = []
    for name, path in found.items():
        try:
            contents[name] = read_verified(path, files.sha256[name])
        except CorruptFile as error:
            corrupt.append(str(error))
    if corrupt:
        raise CorruptFile(
            "\n".join(corrupt) + "\nRemove or replace what is named here and run the same command again; "
            "files that are not named are good and are used as they are."
        )
    if len(found) < len(files.sha256):
        raise MissingFiles(f"{instructions(files, directory)}\n`capsbench data fetch {files.name}` fetches them.")
    return contents


def read_verified(path: Path, sha256: str) -> bytes:
    """The file's uncompressed content. Raises `CorruptFile` if it is not what `sha256` promises."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):  # by content, not by name: some servers decompress on the way
            content = gzip.decompress(content)
    except EOFError:
        raise CorruptFile(f"{path}: truncated gzip.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFile(f"{path}: corrupt gzip ({error}).") from None
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read ({error.strerror}).") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptFile(f"{path}: corrupt; uncompressed SHA-256 expected {sha256}, found {found}.")
    return content


def instructions(files: FileSet, directory: Path) -> str:
    """Which files are missing from `directory`, where they may be put, and what needs no file at all."""
    found = locate(files, directory)
    lines = [f"{name}  SHA-256 {sha256}" for name, sha256 in files.sha256.items() if name not in found]
    return (
        f"Data set {files.name}: {len(lines)} of {len(files.sha256)} files are missing from {directory}:\n  "
        + "\n  ".join(lines)
        + f"\nPut them into {directory / files.name}, each as it is or gzipped (NAME.gz); the hashes are of the "
        "uncompressed files.\nAnother folder: set the environment variable CAPSBENCH_DATA, or data.dir in the suite. "
        "No files needed: data.name=digits."
    )
