"""Sending a folder of a run to storage, and bringing back what is missing here."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from harness.disk import flush, write_atomic
from harness.events import ResultEvent
from harness.storage.contents import (
    EVENTS,
    INDEX,
    Entries,
    Entry,
    index,
    named,
    parse_events,
    parse_index,
    snapshot,
    whole_lines,
)
from harness.storage.objects import Objects

_AT_ONCE = 8
_STAGING = ".storage"
_MAX_ACCEPTED = 8
_LAST = (EVENTS, "result.json", "plan.json")
"""Sent when what they refer to is there."""
T = TypeVar("T")


class Differ(Exception):
    """A trial went on here and, from the same epoch, elsewhere."""


class Copies:
    """One run directory and its objects. `progress` is called whenever something has moved."""

    def __init__(self, run_dir: Path, objects: Objects, progress: Callable[[], None]) -> None:
        self._run_dir, self._objects, self._progress = run_dir, objects, progress
        self._stored: dict[str, Entries] = {}  # folder -> what its index says
        self._sizes: dict[str, int] = {}

    def look(self) -> None:
        """Reads all indices."""
        self._sizes = self._objects.sizes()
        folders = [name.rpartition("/")[0] for name in self._sizes if name.rpartition("/")[2] == INDEX]
        contents = _each(lambda folder: self._objects.read(_join(folder, INDEX)), folders)
        self._stored = {folder: parse_index(content) for folder, content in zip(folders, contents, strict=True)}
        shutil.rmtree(self._run_dir / _STAGING, ignore_errors=True)

    @property
    def folders(self) -> list[str]:
        """The run's folder, "", and those of the trials, as far as they are stored."""
        return sorted(each for each in self._stored if not each or _is_trial(each))

    def document(self, name: str) -> bytes | None:
        """The content of a document of the run; None if there is none to believe."""
        content, entry = self._objects.read(name), self._stored.get("", {}).get(name)
        if content is None or entry is None or hashlib.sha256(content).hexdigest() not in entry.sha256:
            return None
        return content

    def send(self, folder: str) -> None:
        """Makes what is stored of the folder what is here."""
        staging = self._run_dir / _STAGING / folder
        try:
            here = snapshot(self._run_dir / folder, staging)
            there = self._stored.get(folder, {})
            changed = [name for name, entry in here.entries.items() if not self._is_stored(folder, name, entry)]
            gone = [name for name in there if name not in here.entries]
            if not changed and not gone:
                return
            accepted = {name: _accepted(entry, there.get(name)) for name, entry in here.entries.items()}
            self._write_index(folder, {**{name: there[name] for name in gone}, **accepted})
            _each(lambda name: self._send_file(folder, name, here.files[name]), _of(here.files, changed))
            early = [name for name in _of(here.documents, changed) if name not in _LAST]
            _each(lambda name: self._write(folder, name, here.documents[name]), early)
            for name in _LAST:
                if name in changed:
                    self._write(folder, name, here.documents[name])
            for name in gone:
                self._objects.remove(_join(folder, name))
                self._sizes.pop(_join(folder, name), None)
            self._stored[folder] = dict(here.entries)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):
                (self._run_dir / _STAGING / "trials").rmdir()
                (self._run_dir / _STAGING).rmdir()

    def bring(self, folder: str) -> int:
        """Brings back what is stored of the folder and missing or damaged here; returns how many files. Raises `Differ`."""
        there, home = self._stored.get(folder, {}), self._run_dir / folder
        events, is_newer = whole_lines(home / EVENTS), not (home / EVENTS).exists()
        if (entry := there.get(EVENTS)) and not _begins(events, entry):
            content = self._believed(folder, EVENTS)
            is_newer = content is not None and content.startswith(events)
            if content is not None and not is_newer and not events.startswith(content):
                raise Differ(folder)
            if is_newer and content is not None:
                events = content
        missing = self._missing(folder, events, is_newer)
        brought = sum(_each(lambda name: self._fetch(folder, name), missing))
        if entry and is_newer and events:  # last: what it names is here
            write_atomic(home / EVENTS, events.decode("utf-8"))
            brought += 1
        if brought:
            flush(home)
        return brought

    def _missing(self, folder: str, content: bytes, is_newer: bool) -> list[str]:
        """What of the folder's objects is to be fetched, if `content` is its journal and `is_newer` than the one here."""
        home, events = self._run_dir / folder, parse_events(content)
        files, is_over = named(events), bool(events) and isinstance(events[-1], ResultEvent)
        wanted: list[str] = []
        for name, entry in self._stored.get(folder, {}).items():
            path, record = home / name, files.get(name)
            if record and record["sha256"] in entry.sha256:
                if not _is_whole(path, record["bytes"], None if is_over else record["sha256"]):
                    wanted.append(name)
            elif name != EVENTS and not name.endswith(".safetensors"):
                follows = name == "result.json" and not content  # from a journal that is not to be believed
                if not follows and (is_newer or not path.exists()):
                    wanted.append(name)
        return wanted

    def _believed(self, folder: str, name: str) -> bytes | None:
        content = self._objects.read(_join(folder, name))
        self._progress()
        if content is None or hashlib.sha256(content).hexdigest() not in self._stored[folder][name].sha256:
            return None
        return content

    def _fetch(self, folder: str, name: str) -> bool:
        accepted = self._stored[folder][name].sha256
        done = self._objects.fetch(_join(folder, name), self._run_dir / folder / name, accepted, self._progress)
        self._progress()
        return done

    def _is_stored(self, folder: str, name: str, entry: Entry) -> bool:
        """Whether the object is known to have this content: the only one that was ever sent there, with its size."""
        stored = self._stored.get(folder, {}).get(name)
        return stored == entry and self._sizes.get(_join(folder, name)) == entry.bytes

    def _write_index(self, folder: str, entries: Entries) -> None:
        self._objects.write(_join(folder, INDEX), index(entries))
        self._stored[folder] = entries
        self._progress()

    def _send_file(self, folder: str, name: str, path: Path) -> None:
        self._objects.send(path, _join(folder, name), self._progress)
        self._sizes[_join(folder, name)] = path.stat().st_size
        self._progress()

    def _write(self, folder: str, name: str, content: bytes) -> None:
        self._objects.write(_join(folder, name), content)
        self._sizes[_join(folder, name)] = len(content)
        self._progress()


def _each(do: Callable[[str], T], names: Sequence[str]) -> list[T]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(do, names))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_trial(folder: str) -> bool:
    return re.fullmatch(r"trials/[A-Za-z0-9_-]+", folder) is not None


def _of(group: Container[str], names: list[str]) -> list[str]:
    return [name for name in names if name in group]


def _accepted(entry: Entry, before: Entry | None) -> Entry:
    """The new content, or any that may still be there until it is."""
    older = [each for each in (before.sha256 if before else ()) if each not in entry.sha256]
    return Entry((*entry.sha256, *older[: _MAX_ACCEPTED - 1]), entry.bytes)


def _begins(content: bytes, entry: Entry) -> bool:
    """Whether `content` is what was stored last, or begins with it."""
    return len(content) >= entry.bytes and hashlib.sha256(content[: entry.bytes]).hexdigest() == entry.sha256[0]


def _is_whole(path: Path, size: int, sha256: str | None) -> bool:
    """Whether the file is there with its size and, unless that is None, with this SHA-256."""
    try:
        if path.stat().st_size != size:
            return False
        if sha256 is None:
            return True
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
