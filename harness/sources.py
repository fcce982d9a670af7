"""Which sources determine a trial's result: a rule by folder, and the hash of the selected files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness import models, modules
from harness.data import sets as data
from harness.registry import Entry

DECISIVE = ("spec", "data", "weights", "models", "machine", "parity", "supervisor", "worker")
"""The rooms whose own files compute, time or judge a result. Their subfolders do not (faults, diagnosis, networks without
an adapter), nor do the rooms that schedule, record or show it: these may change freely.
"""
ASIDE = {"export", "ordinary", "breakdown"}
"""Modules and folders of an implementation that are not used in training."""
_HARNESS = Path(__file__).parent
_SHARED = _HARNESS.parent / "impls"  # modules here are shared by the implementations
_SOURCES = {".py", ".pyx", ".c", ".cc", ".cpp", ".h", ".cu", ".cuh"}


def code_version(entry: Entry, kind: str | None = None, datasets: Iterable[str] = ()) -> str:
    """SHA-256 over the names and contents of the sources that determine a result: decisive rooms and implementation.

    The sources of an external `kind` of model, and of external `datasets`, count, too. Line endings do not.
    """
    harness = [path for room in DECISIVE for path in (_HARNESS / room).glob("*") if _is_source(path)]
    files = [(path.relative_to(_HARNESS), path) for path in harness]
    files += [(Path("impls", path.name), path) for path in _SHARED.glob("*.py")]
    files += _implementation(entry)
    files += _kind(kind) if kind and not models.is_built_in(kind) else ()
    for dataset in datasets:
        files += _dataset(dataset) if data.is_registered(dataset) else ()
    sha = hashlib.sha256()
    for name, path in sorted({*files}):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        sha.update(f"{name.as_posix()} {len(text)}\n".encode())
        sha.update(text)
    return sha.hexdigest()


def _kind(name: str) -> Iterator[tuple[Path, Path]]:
    """The sources of a registered kind of model and its parts: the package around each, or just the module."""
    kind = models.load(name)
    for module in (models.target(name).partition(":")[0], *kind.parts.values()):
        yield from ((Path("kind", *path.parts[1:]), file) for path, file in _package(module))


def _dataset(name: str) -> Iterator[tuple[Path, Path]]:
    """The sources of a registered data set: the package around it, or just its module."""
    yield from ((Path("data", *path.parts[1:]), file) for path, file in _package(data.target(name).partition(":")[0]))


def _implementation(entry: Entry) -> Iterator[tuple[Path, Path]]:
    """The sources of the innermost package around the class, or just its module if it is in no package."""
    yield from _package(entry.module)


def _package(name: str) -> Iterator[tuple[Path, Path]]:
    spec = modules.locate(name)
    if spec is None or not spec.has_location or spec.origin is None:
        return
    module = Path(spec.origin)
    if spec.submodule_search_locations is None and "." not in name:
        yield Path("impl", module.name), module
        return
    for path in module.parent.rglob("*"):
        relative = path.relative_to(module.parent)
        if _is_source(path) and not ASIDE & {*relative.parts[:-1], relative.stem}:
            yield Path("impl", relative), path


def _is_source(path: Path) -> bool:
    return path.suffix in _SOURCES and path.is_file()
