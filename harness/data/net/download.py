"""Fetches published files from mirrors: resumes interrupted transfers, verifies, and puts files in place atomically."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from rich.console import Console
from urllib3.exceptions import HTTPError

from harness import __version__
from harness import progress as steps
from harness.data.archive import check_archive
from harness.data.files import CorruptFile, FileSet, instructions, locate, read_verified
from harness.errors import UserError

TIMEOUT_S = (6.1, 30.0)  # to connect; between two pieces of the answer
_TRIES = 5  # per file and mirror, as long as each try makes progress
_CHUNK_BYTES = 1 << 16

_NETWORK = (requests.RequestException, HTTPError)
_Report = Callable[[int, int | None], None]  # bytes so far, bytes in all


def fetch(files: FileSet, directory: Path, *, progress: bool, timeout_s: tuple[float, float] = TIMEOUT_S) -> None:
    """Puts the missing files, verified and uncompressed, into `<directory>/<set>/`; those already there are left alone.

    One process fetches at a time; another waits and then finds the files there. The next call continues an interrupted
    transfer. Raises `UserError` if no mirror serves a file or the directory cannot be written.
    """
    folder = directory / files.name
    console = Console(stderr=True, quiet=not progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder, console):
            mirrors = files.mirrors
            found = locate(files, directory)
            for name in (name for name in files.sha256 if name not in found):
                with steps.task(f"fetching {name}", unit="B") if progress else nullcontext() as task:
                    report: _Report = task.reached if task else lambda _done, _total: None
                    served_by = _fetch_file(files, name, mirrors, directory, report, timeout_s)
                mirrors = (served_by, *(mirror for mirror in mirrors if mirror != served_by))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder} cannot be written: {reason}.\n{instructions(files, directory)}") from error


def alone_in(folder: Path, console: Console) -> AbstractContextManager[object]:
    """A lock on `folder` for writing; prints a note if it has to wait."""
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        console.print(f"Waiting for another process, which is fetching into {folder}.")
        return lock.acquire()


def _fetch_file(
    files: FileSet,
    name: str,
    mirrors: tuple[str, ...],
    directory: Path,
    report: _Report,
    timeout_s: tuple[float, float],
) -> str:
    """Fetches one file from the first mirror that serves it completely, and returns that mirror."""
    folder = directory / files.name
    errors: list[str] = []
    for mirror in mirrors:
        # Wrappers differ from mirror to mirror, so a partial download can only be continued from the same one.
        part = folder / f".{name}.{zlib.crc32(mirror.encode()):08x}.part"
        try:
            _transfer(f"{mirror}{files.served_as(name)}", part, report, timeout_s)
            complete = _verified(files, name, part)
        except _NETWORK as error:
            errors.append(f"{mirror}: {_reason(error)}")
        except CorruptFile as error:
            part.unlink(missing_ok=True)
            errors.append(f"{mirror}: {str(error).removeprefix(f'{part}: ')}")
        else:
            complete.replace(folder / name)
            for leftover in folder.glob(f".{name}.*.part"):
                leftover.unlink()
            return mirror
    tried = "".join(f"\n  {error}" for error in errors)
    raise UserError(
        f"{files.served_as(name)} could not be fetched from any mirror:{tried}\n{instructions(files, directory)}"
    )


def _verified(files: FileSet, name: str, part: Path) -> Path:
    """A file with the content of `part` that is to be kept. Raises `CorruptFile`."""
    sha256 = files.sha256[name]
    if sha256 is None:
        check_archive(part)
        return part
    content = read_verified(part, sha256, files.exact)
    if files.exact:
        return part
    complete = part.with_name(f".{name}.tmp")
    complete.write_bytes(content)
    return complete


def _transfer(url: str, part: Path, report: _Report, timeout_s: tuple[float, float]) -> None:
    """Downloads the rest of `part`, continuing what is there."""
    for attempt in range(1, _TRIES + 1):
        start = _size(part)
        try:
            return _stream(url, part, start, report, timeout_s)
        except _NETWORK:
            if attempt == _TRIES or _size(part) <= start:
                raise


def _stream(url: str, part: Path, start: int, report: _Report, timeout_s: tuple[float, float]) -> None:
    headers = {"User-Agent": f"capsbench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
        if start and response.status_code == requests.codes.range_not_satisfiable:
            return  # there is nothing beyond what we have: its hash decides
        response.raise_for_status()
        continued = response.status_code == requests.codes.partial_content
        done = start if continued else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if continued else "wb") as out:
            # The raw bytes: if a Content-Encoding were decoded, a partial file could not be continued.
            for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                done += out.write(chunk)
                report(done, total)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    """The innermost cause, without the connection's description."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    inner = [getattr(error, "reason", None), *error.args]
    cause = next((item for item in inner if isinstance(item, Exception)), None)
    return _reason(cause) if cause else re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", str(error))
