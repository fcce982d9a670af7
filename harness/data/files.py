"""Published files in a directory: finding, verifying, decompressing. Only `ensure` writes there, or uses the network."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.data.idx_header import wrong_length
from harness.errors import UserError
from harness.sniff import UNKNOWN, what_are, with_remedy

_OWN: dict[str, str | tuple[str, ...]] = {
    "a gzip file": ".gz", "a MATLAB file of version 5": ".mat", "a zip archive": ".zip",
    **{f"an IDX file of uint8, {n}-dimensional": (f"idx{n}-ubyte", f"idx{n}-ubyte.gz") for n in (1, 3)},
}  # fmt: skip
"""What a file's name promises: not worth saying."""


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
    elsewhere: tuple[str, ...] = ()  # folders within the data directory where other tools keep the same files

    def served_as(self, name: str) -> str:
        """What a mirror calls the file."""
        return name if self.exact else f"{name}.gz"


def locate(files: FileSet, directory: Path) -> dict[str, Path]:
    """The files found: each as `name` or `name.gz`, in `<directory>/<set>/`, in `<directory>/` itself or `elsewhere`.

    Exact ones are only looked for as `name`, and not in `<directory>/`: other sets have files of the same names. Dotted
    names (train-images.idx3-ubyte), as archives of MNIST have them, are found too.
    """
    found: dict[str, Path] = {}
    folders = [
        directory / files.name,
        *([] if files.exact else [directory]),
        *(directory / each for each in files.elsewhere),
    ]
    for name in files.sha256:
        dotted = name.replace("-idx", ".idx")
        names = dict.fromkeys((name, files.served_as(name), dotted, files.served_as(dotted)))
        places = (folder / file for folder in folders for file in names)
        path = next((place for place in places if place.is_file()), None)
        if path:
            found[name] = path
    return found


def kept_files(files: FileSet, directory: Path) -> dict[str, Path]:
    """Place within a data directory where `locate` looks first -> the file found here."""
    return {f"{files.name}/{path.name}": path for path in locate(files, directory).values()}


def ensure(read: Callable[[Path], object], files: FileSet, directory: Path, *, progress: bool) -> None:
    """Fetches the files if `read` misses one; if it does not, nothing is written to `directory`. Raises `UserError`."""
    try:
        read(directory)
    except MissingFiles:
        from harness.data.net.download import fetch

        fetch(files, directory, progress=progress)
        read(directory)


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
    found = _bytes(path)
    if exact:
        _compare(path, found, sha256, "SHA-256")
        return _uncompressed(path, found)
    found = _uncompressed(path, found)
    _compare(path, found, sha256, "uncompressed SHA-256")
    return found


def content(path: Path) -> bytes:
    """What is in the file, uncompressed if it is gzipped. Raises `CorruptFile` if it cannot be read."""
    return _uncompressed(path, _bytes(path))


def _uncompressed(path: Path, found: bytes) -> bytes:
    if not found.startswith(b"\x1f\x8b"):  # by content, not by name: some servers decompress it
        return found
    try:
        return gzip.decompress(found)
    except EOFError:
        raise CorruptFile(f"{path}: truncated gzip, after {len(found):,} bytes.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFile(f"{path}: corrupt gzip ({error}).") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read ({error.strerror}).") from None


def _compare(path: Path, content: bytes, sha256: str | None, what: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found == sha256:
        return
    said, what_it_is = wrong_length(content), what_are(content)
    if not said and what_it_is != UNKNOWN and not path.name.endswith(_OWN.get(what_it_is, "-")):
        said = f"it is {with_remedy(what_it_is)}"
    said = f"{said}; " if said else ""
    raise CorruptFile(f"{path}: corrupt; {said}{what} expected {sha256}, found {found}.")


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
        + _misnamed(files, directory, found)
        + f"Another folder: set the environment variable CAPSBENCH_DATA, or data.dir in the suite. {files.instead}"
    )


def _misnamed(files: FileSet, directory: Path, found: Mapping[str, Path]) -> str:
    """What a file is called that is missing by its name only: unpacked, or packed otherwise, or in another folder."""
    said: list[str] = []
    folders = [directory / files.name, *(directory / each for each in files.elsewhere)]
    for name in files.sha256:
        if name in found:
            continue
        bare = name.removesuffix(".gz").removesuffix(".zip")
        for folder in folders:
            for other in (
                bare,
                f"{bare}.zip",
                f"{name}.zip",
                f"{name}.part",
                f"{name}.crdownload",
                f"{name} (1)",
                f"{name}.1",
            ):
                place = folder / other
                if other != name and place.is_file():
                    said.append(f"{place} is there: {_remedy(place, name, bare)}\n")
    return "".join(said)


def _remedy(place: Path, name: str, bare: str) -> str:
    if place.name.endswith((".part", ".crdownload")):
        return "a download that was not finished."
    if place.name == bare and name.endswith((".gz", ".zip")):
        return f"it was unpacked, and only {name} as published can be verified."
    if place.suffix == ".zip" and not name.endswith(".zip"):
        return f"a zip archive; unpack it, so that {bare} lies there."
    return f"if it is the published file, rename it to {name}."
