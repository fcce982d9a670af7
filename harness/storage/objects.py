"""Objects below one address, through fsspec: written whole or not at all, read into files whole or not at all."""

# fsspec has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage.place import Place

_ALL_AT_ONCE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "wasb"}
"""Object stores: an object appears when it has been sent completely, and there are no folders to make."""
_PACKAGES = {
    "s3": "capsbench[s3]",
    "s3a": "capsbench[s3]",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}
_OPTIONS: dict[str, dict[str, Any]] = {
    # Each try is bounded, so that the reason is known before this process is given up.
    "s3": {
        "config_kwargs": {"connect_timeout": 4, "read_timeout": 30, "retries": {"max_attempts": 2, "mode": "standard"}}
    },
}
_PARTIAL = ".partial-"
Progress = Callable[[], None]


class Objects:
    """Names are relative to the address, with slashes. Methods raise `OSError`, or what the protocol's library raises."""

    def __init__(self, place: Place) -> None:
        """Raises `UserError` if a package is missing or the protocol is unknown."""
        protocol = place.protocol
        if importlib.util.find_spec("fsspec") is None:
            raise UserError(
                '--storage needs fsspec: pip install "capsbench[s3]", or pip install fsspec for a shared folder'
            )
        import fsspec

        options = _OPTIONS.get("s3" if protocol == "s3a" else protocol, {})
        try:
            self._fs, self._root = fsspec.core.url_to_fs(
                place.url, use_listings_cache=False, skip_instance_cache=True, **options
            )
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            how = f'pip install "{package}"' if package else str(error)
            raise UserError(f"--storage {place}: {protocol}:// needs a package that is not installed: {how}") from error
        except ValueError as error:
            raise UserError(f"--storage {place}: {error}") from error
        self._is_whole = protocol in _ALL_AT_ONCE

    def send(self, path: Path, name: str, progress: Progress = lambda: None) -> None:
        """Replaces the object with a file's content."""
        self._replace(name, lambda target: self._fs.put_file(str(path), target, callback=_callback(progress)))

    def write(self, name: str, content: bytes) -> None:
        self._replace(name, lambda target: self._fs.pipe_file(target, content))

    def read(self, name: str) -> bytes | None:
        """The object's content; None if there is none."""
        try:
            return bytes(self._fs.cat_file(self._at(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def fetch(self, name: str, path: Path, accepted: Collection[str], progress: Progress = lambda: None) -> bool:
        """Makes `path` the object's content if that has one of these SHA-256; otherwise nothing changes, and it is False."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            try:
                self._fs.get_file(self._at(name), str(partial), callback=_callback(progress))
            except (FileNotFoundError, NotADirectoryError):
                return False
            with partial.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            if found not in accepted:
                return False
            partial.replace(path)
            return True
        finally:
            partial.unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of all objects."""
        try:
            found: dict[str, Any] = self._fs.find(self._root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        start = len(self._fs._strip_protocol(self._root).rstrip("/")) + 1
        return {path[start:]: int(entry["size"]) for path, entry in found.items() if _PARTIAL not in path}

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _replace(self, name: str, send: Callable[[str], object]) -> None:
        target = self._at(name)
        if self._is_whole:
            send(target)
            return
        folder, _, last = target.rpartition("/")
        partial = f"{folder}/{_PARTIAL}{uuid.uuid4().hex[:8]}-{last}"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            send(partial)
            self._fs.mv(partial, target)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(partial)
            raise


def _callback(progress: Progress) -> Any:
    from fsspec.callbacks import Callback

    class _Told(Callback):
        def call(self, *_: Any, **__: Any) -> None:
            progress()

    return _Told()
