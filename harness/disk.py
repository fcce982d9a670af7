"""Files that are written whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast


def write_atomic(path: Path, text: str | bytes) -> None:
    """Replaces a file: readers see the old text or the new, and the new survives a crash after this returns.

    A link stays, and what it names is replaced. A device or a pipe is no file to replace: it is written to. If it fails,
    as on a full disk, the old file stays, and nothing is left beside it.
    """
    content = text.encode() if isinstance(text, str) else text
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    flush(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if the file is absent or not one."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return cast(dict[str, Any], document) if isinstance(document, dict) else None


def obstacle(folder: Path, *, to_write: bool = True) -> str | None:
    """What keeps `folder` from being used, or made, in words: "X is a link to Y, which does not exist"; None if nothing."""
    for each in (folder, *folder.absolute().parents):
        try:
            each.stat()
            if not each.is_dir():
                return f"{each} is a file, not a folder"
            is_good = os.access(each, os.R_OK | os.X_OK | (os.W_OK if to_write else 0))
            return None if is_good else f"{each} may not be {'written' if to_write else 'read'}"
        except (FileNotFoundError, NotADirectoryError):
            if each.is_symlink():
                return f"{each} is a link to {each.readlink()}, which does not exist"
        except OSError as error:  # a name that is too long, a link to itself, a folder that may not be searched
            return f"{each}: {error.strerror}"
    return None


def free_bytes(path: Path) -> int | None:
    """How much this process may still write where `path` is, or will be; None if the file system does not tell.

    Quotas are not in it.
    """
    try:
        found = os.statvfs(_existing(path))
    except OSError:
        return None
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return blocks * found.f_frsize if found.f_blocks else None


def mount_point(path: Path) -> Path:
    """Where the file system of `path` begins."""
    each = _existing(path)
    while not os.path.ismount(each) and each != each.parent:
        each = each.parent
    return each


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder around it that exists."""
    path = Path(os.path.realpath(path))
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))


def finite(value: Any) -> Any:
    """`value` with every number that is not finite replaced by None: strict JSON has neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in cast(list[Any], value)]
    return value


@contextmanager
def file_lock(path: Path, timeout_s: float) -> Generator[bool, None, None]:
    """Holds an exclusive lock on `path`; yields False if another process kept it for `timeout_s` seconds."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            acquire(handle, timeout_s)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def acquire(handle: int, timeout_s: float = 0.5) -> None:
    """Takes a lock within `timeout_s`; the wait allows for `is_live`, which holds it for an instant."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def flush(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
