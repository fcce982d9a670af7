"""Data for nodes that have none: what the driver has verified travels once to each node, by its SHA-256.

A parcel says which files a trial's data are. A node that has them uses its own; another one fetches them into its cache, checks
every hash, and keeps them for later trials and runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from harness.data import data_dir
from harness.data.kept import kept
from harness.disk import file_lock, flush
from harness.errors import UserError
from harness.machine.surroundings import own_folder
from harness.spec.trial import DataConfig

PART_BYTES = 32 * 2**20
Read = Callable[[str, int, int], bytes]
"""Path on the driver's node, offset, size -> the bytes there."""
_WAIT_S = 3600.0


@dataclass(frozen=True)
class Piece:
    """One file: its place within a data directory, and where the driver has it."""

    place: str
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Parcel:
    """The files of a trial's data; none if they come with a package."""

    pieces: tuple[Piece, ...]

    @property
    def digest(self) -> str:
        """Of places and contents: the same parcel from another driver is the same."""
        content = [[piece.place, piece.sha256] for piece in self.pieces]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces)


def packed(config: DataConfig) -> Parcel:
    """What has to be on a node to load `config`. The driver has verified it (`harness.data.ensure`)."""
    return Parcel(tuple(_piece(place, path) for place, path in sorted(kept(config).items())))


def delivered(
    parcel: Parcel, config: DataConfig, environ: Mapping[str, str], read: Read, waiting: Callable[[str], None]
) -> str | None:
    """The data directory on this node for the trial, with all of the parcel; None if it needs no other than it would take.

    Args:
        environ: the trial's, which may name this node's data directory.
        waiting: called with a sentence if something has to be fetched.

    Raises `UserError` if it cannot be kept here, or is not what was sent.
    """
    if not parcel.pieces:
        return None
    chosen = config.dir or environ.get("CAPSBENCH_DATA")
    if _has(Path(chosen).expanduser() if chosen else data_dir(None), parcel) or _has_paths(parcel):
        return None
    base = _cache()
    folder = base / parcel.digest
    with file_lock(base / f"{parcel.digest}.lock", _WAIT_S) as ours:
        if not _has(folder, parcel):
            if not ours:
                raise UserError(f"{folder}: another process has been fetching the data for an hour")
            _fetch(parcel, folder, read, waiting)
    return str(folder)


def _fetch(parcel: Parcel, folder: Path, read: Read, waiting: Callable[[str], None]) -> None:
    waiting(f"fetching {parcel.bytes / 1e6:,.0f} MB of data from the driver's node")
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for piece in parcel.pieces:
            path = partial / piece.place
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for start in range(0, piece.bytes, PART_BYTES):
                    file.write(read(piece.path, start, min(PART_BYTES, piece.bytes - start)))
                file.flush()
                os.fsync(file.fileno())
            if (found := _sha256(path)) != piece.sha256:
                raise UserError(
                    f"{piece.path} changed on the driver's node while it was fetched: SHA-256 {found}, not {piece.sha256}"
                )
        partial.rename(folder)
        flush(folder.parent)
    except OSError as error:
        raise UserError(
            f"this node cannot keep {parcel.bytes / 1e6:,.0f} MB of data in {folder.parent}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _piece(place: str, path: Path) -> Piece:
    return Piece(place, str(path.absolute()), _sha256(path), path.stat().st_size)


def _has(directory: Path, parcel: Parcel) -> bool:
    return all(_is(directory / piece.place, piece) for piece in parcel.pieces)


def _has_paths(parcel: Parcel) -> bool:
    """Whether the driver's files are here under the same names, as on a shared file system."""
    return all(_is(Path(piece.path), piece) for piece in parcel.pieces)


def _is(path: Path, piece: Piece) -> bool:
    try:
        found = path.stat()
        return (
            found.st_size == piece.bytes and _known_sha256(str(path), found.st_mtime_ns, found.st_size) == piece.sha256
        )
    except OSError:
        return False


@cache
def _known_sha256(path: str, _mtime_ns: int, _size: int) -> str:
    return _sha256(Path(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cache() -> Path:
    """A folder of this node for data; the user's cache, or where that cannot be written, beside the leases."""
    for base in (platformdirs.user_cache_path("capsbench"), own_folder()):
        try:
            (base / "fetched").mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(base / "fetched", os.W_OK | os.X_OK):
            return base / "fetched"
    raise UserError("this node has no folder for data that can be written to; set XDG_CACHE_HOME or TMPDIR there")
