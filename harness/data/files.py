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
    """The files of one data set.

    Hashes are of the uncompressed files: gzip wrappers differ from mirror to mirror. If `exact`, they are of the files
    as published, which keep their names. None: no hash was published; then it is a zip archive, with checksums inside.
    """

    name: str  # also the folder's name within the data directory
    sha256: Mapping[str, str | None]
    mirrors: tuple[
        str, ...
    ] = ()  # URL prefixes; each serves every file as <prefix><name>.gz, or <prefix><name> if exact
    exact: bool = False
    instead: str = "No files needed: data.name=digits."  # an alternative that needs no files

    def served_as(self, name: str) -> str:
        """What a mirror calls the file."""
        return name if self.exact else f"{name}.gz"


def locate(files: FileSet, directory: Path) -> dict[str, Path]:
    """The files found: each as `name` or `name.gz`, in `<directory>/<set>/` or in `<directory>/` itself.

    Exact ones are only looked for as `name` in `<directory>/<set>/`: other sets have files of the same names.
    """
    found: dict[str, Path] = {}
    folders = (directory / files.name,) if files.exact else (directory / files.name, directory)
    for name in files.sha256:
        places = (folder / file for folder in folders for file in dict.fromkeys((name, files.served_as(name))))
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
            contents[name] = read_verified(path, files.sha256[name], files.exact)
        except CorruptFile as error:
            corrupt.append(str(error))
    if corrupt:
        raise CorruptFile(
            "\n".join(corrupt) + "\nRemove or replace what is named here and run the same command again; "
            "files that are not named are good and are used as they are."
        )
    if len(found) < len(files.sha256):
        raise missing(files, directory)
    return contents


def read_verified(path: Path, sha256: str | None, exact: bool = False) -> bytes:
    """The file's uncompressed content. Raises `CorruptFile` if it (if `exact`, the file) does not match `sha256`."""
    try:
        content = path.read_bytes()
        if exact:
            _compare(path, content, sha256, "SHA-256")
        if content.startswith(b"\x1f\x8b"):  # by content, not by name: some servers decompress it
            content = gzip.decompress(content)
    except EOFError:
        raise CorruptFile(f"{path}: truncated gzip.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFile(f"{path}: corrupt gzip ({error}).") from None
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read ({error.strerror}).") from None
    if not exact:
        _compare(path, content, sha256, "uncompressed SHA-256")
    return content


def _compare(path: Path, content: bytes, sha256: str | None, what: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptFile(f"{path}: corrupt; {what} expected {sha256}, found {found}.")


def missing(files: FileSet, directory: Path) -> MissingFiles:
    """Says what is missing and how to fetch it."""
    return MissingFiles(f"{instructions(files, directory)}\n`capsbench data fetch {files.name}` fetches them.")


def instructions(files: FileSet, directory: Path) -> str:
    """Which files are missing from `directory`, where to put them, and the alternative that needs no files."""
    found = locate(files, directory)
    lines = [
        f"{name}  SHA-256 {sha256}" if sha256 else name for name, sha256 in files.sha256.items() if name not in found
    ]
    how = (
        "as it is published"
        if files.exact
        else "each as it is or gzipped (NAME.gz); the hashes are of the uncompressed files"
    )
    return (
        f"Data set {files.name}: {len(lines)} of {len(files.sha256)} files are missing from {directory}:\n  "
        + "\n  ".join(lines)
        + f"\nPut them into {directory / files.name}, {how}.\n"
        f"Another folder: set the environment variable CAPSBENCH_DATA, or data.dir in the suite. {files.instead}"
    )
