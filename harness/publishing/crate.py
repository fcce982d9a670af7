"""A crate on the disk: a folder, or a ZIP file of one. Written whole or not at all; read without trust."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, cast

from harness import progress
from harness.disk import obstacle
from harness.errors import UserError
from harness.publishing import metadata
from harness.publishing.metadata import Said
from harness.weights.whole import fingerprint

SEAL = f"{metadata.NAME}.sha256"
"""A line for `sha256sum --check`: of the metadata, which has the hashes of all other files."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every ZIP entry: the same files make the same ZIP, byte for byte


class NoCrate(UserError):
    """What was given is no crate at all."""


def home_of_results(run_dir: Path) -> Path:
    """Where what is made of a run goes by default: its own folder; of a crate, which must stay as it is, `from-NAME` here."""
    return Path(f"from-{run_dir.resolve().name}") if (run_dir / metadata.NAME).is_file() else run_dir


def is_zip(target: Path) -> bool:
    """Whether a crate with this name is a ZIP file."""
    return target.suffix.lower() == ".zip"


def require_free(target: Path) -> None:
    """Raises `UserError` if a crate cannot be written there: nothing is ever overwritten."""
    if target.exists() and not (target.is_dir() and not is_zip(target) and not any(target.iterdir())):
        raise UserError(f"--to {target} exists already; nothing is overwritten. Give another name, or remove it.")
    if reason := obstacle(target.absolute().parent):
        raise UserError(f"cannot write {target}: {reason}. Choose a place with --to.")


@contextmanager
def staged(target: Path, said: Said) -> Generator[Path]:
    """A folder to be filled, which is then described, sealed and becomes the crate; nothing is left if that fails.

    Raises `OSError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / "crate"
        folder.mkdir()
        yield folder
        document = metadata.metadata(folder, _files(folder), said)
        (folder / metadata.NAME).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (folder / SEAL).write_text(_sealed(sha256(folder / metadata.NAME)), "ascii")
        finished = folder
        if is_zip(target):
            pack(folder, finished := Path(scratch) / "crate.zip")
        if target.is_dir():
            target.rmdir()
        finished.rename(target)


def pack(folder: Path, target: Path) -> None:
    """A ZIP of all files, not compressed, in the order of their names: the same for the same files on every machine."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for name in progress.track(_files(folder), "packing"):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, wherever it is made
            with (folder / name).open("rb") as source, packed.open(entry, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink)


@contextmanager
def opened(path: Path) -> Generator[Path]:
    """The crate's folder; a ZIP is unpacked into a temporary one. Raises `NoCrate`."""
    if path.is_dir():
        _require_metadata(path, path)
        yield path
        return
    if not path.is_file():
        raise NoCrate(f"{path}: there is no such file or folder. Give what `capsbench publish` wrote.")
    with tempfile.TemporaryDirectory(prefix="capsbench-crate-") as scratch:
        _unpack(path, Path(scratch))
        _require_metadata(Path(scratch), path)
        yield Path(scratch)


def listed(folder: Path) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """The files that the metadata names, path -> size and SHA-256; and what is false about metadata and names."""
    raw = (folder / metadata.NAME).read_bytes()
    false: list[str] = []
    seal = folder / SEAL
    if not seal.is_file():
        false.append(f"{SEAL} is missing")
    elif seal.read_bytes() != _sealed(sha256(folder / metadata.NAME)).encode():
        false.append(f"{metadata.NAME} and {SEAL} do not belong together: one of them was changed")
    try:
        graph = cast("list[Any]", json.loads(raw)["@graph"])
        named = {
            str(each["@id"]): (int(each["contentSize"]), str(each["sha256"]))
            for each in graph
            if each["@type"] == "File"
        }
    except (ValueError, KeyError, TypeError):
        return {}, [*false, f"{metadata.NAME} is not as `capsbench publish` writes it"]
    outside = [name for name in named if not _is_inside(name)]
    false += [f"{metadata.NAME} names a file outside the crate: {name!r}" for name in outside]
    named = {name: record for name, record in named.items() if name not in outside}
    extra = [name for name in _files(folder) if name not in named and name not in (metadata.NAME, SEAL)]
    return named, [*false, *(f"{name} is in the crate, but not in its metadata" for name in extra)]


def is_as_packed(path: Path, folder: Path) -> bool:
    """Whether a ZIP is what `pack` makes of its files, to the byte."""
    with tempfile.TemporaryDirectory(prefix="capsbench-crate-") as scratch:
        again = Path(scratch) / "again.zip"
        pack(folder, again)
        return sha256(again) == sha256(path)


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as packed:
            entries = packed.infolist()
            if wrong := [each.filename for each in entries if not _is_inside(each.filename.removesuffix("/"))]:
                raise NoCrate(f"{path}: it has a file outside its own folder, {wrong[0]!r}; nothing was unpacked.")
            needed, free = sum(each.file_size for each in entries), shutil.disk_usage(folder).free
            if needed > free:
                raise NoCrate(f"{path}: it unpacks to {needed:,} bytes; {folder} has {free:,}. Set TMPDIR elsewhere.")
            for entry in progress.track(entries, "unpacking"):
                packed.extract(entry, folder)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise NoCrate(f"{path}: it is not a whole ZIP file: {error}") from error


def _require_metadata(folder: Path, given: Path) -> None:
    if not (folder / metadata.NAME).is_file():
        hint = " It is a run: `capsbench publish` makes a crate of it." if (folder / "plan.json").is_file() else ""
        raise NoCrate(f"{given} is no crate: it has no {metadata.NAME}.{hint}")


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    return str(fingerprint(path)["sha256"])


def _sealed(digest: str) -> str:
    return f"{digest}  {metadata.NAME}\n"


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _files(folder: Path) -> Sequence[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
