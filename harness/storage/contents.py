"""What of a run directory is kept in storage, and the index that says which content is believed.

A folder of the run (the run itself, or `trials/ID`) has an index object, `stored.json`: for each of its objects the SHA-256
that it may have, the newest first. The index is written before the objects are. So at any moment, and whatever was cut short,
an object either has one of these or is not believed. Checkpoints and weights are sent before the events that name them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from harness.errors import Noted
from harness.events import TRIAL, EpochEvent, ResultEvent, TrialEvent

INDEX = "stored.json"
EVENTS = "events.jsonl"
_OF_A_RUN = ("plan.json", "suite.yaml", "environment.json")
_OF_A_TRIAL = ("trial.json", "result.json")
_LOG = re.compile(r"attempt-\d+\.log")
_FALLBACKS = 2  # checkpoints of an unfinished trial
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """Size and accepted SHA-256 of an object; the first is the newest content's, whose size it is."""

    sha256: tuple[str, ...]
    bytes: int


Entries = dict[str, Entry]


def parse_index(content: bytes | None) -> Entries:
    """The entries of an index; empty if there is none, or it is no index: then nothing there is believed."""
    try:
        document: Any = json.loads(content or b"{}")
        return {
            name: Entry(tuple(map(str, each["sha256"])), int(each["bytes"]))
            for name, each in document["objects"].items()
            if _NAME.fullmatch(name)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def index(entries: Mapping[str, Entry]) -> bytes:
    objects = {name: {"sha256": list(each.sha256), "bytes": each.bytes} for name, each in sorted(entries.items())}
    return json.dumps({"version": _VERSION, "objects": objects}, indent=1).encode() + b"\n"


@dataclass
class Snapshot:
    """A folder's content at one moment: documents in memory, files as links that keep what is deleted meanwhile."""

    documents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    entries: Entries = field(default_factory=dict[str, Entry])

    def add(self, name: str, content: bytes) -> None:
        self.documents[name] = content
        self.entries[name] = Entry((hashlib.sha256(content).hexdigest(),), len(content))


def snapshot(folder: Path, staging: Path) -> Snapshot:
    """What is kept of `folder`, the run's or a trial's; large files are linked into `staging`, which is the caller's."""
    found = Snapshot()
    content = whole_lines(folder / EVENTS)
    events = parse_events(content)
    for name, record in named(events).items():
        if (path := folder / name).is_file() and path.stat().st_size == record["bytes"]:
            found.files[name] = _held(path, staging / name)
            found.entries[name] = Entry((record["sha256"],), record["bytes"])
    if content:
        found.add(EVENTS, content)
    logs = sorted(path.name for path in folder.glob("attempt-*.log") if _LOG.fullmatch(path.name))
    for name in (*_OF_A_RUN, *_OF_A_TRIAL, *logs):
        if (path := folder / name).is_file():
            found.add(name, path.read_bytes())
    return found


def named(events: Iterable[TrialEvent]) -> dict[str, dict[str, Any]]:
    """The files that matter of these events, with size and SHA-256: of an unfinished trial the last checkpoints too."""
    files: dict[str, dict[str, Any]] = {}
    checkpoints: dict[str, dict[str, Any]] = {}
    is_over = False
    for event in events:
        if isinstance(event, EpochEvent):
            is_over = False
            told = _records(event)
            checkpoints.pop(event.checkpoint, None)  # written anew by another attempt: now the last
            checkpoints |= {event.checkpoint: told[event.checkpoint]} if event.checkpoint in told else {}
            files |= {name: record for name, record in told.items() if name != event.checkpoint}
        elif isinstance(event, ResultEvent):
            is_over = True
            files |= _records(event)
    last = [*checkpoints.items()][-1 if is_over else -_FALLBACKS :]
    return files | dict(last)


def _records(event: TrialEvent) -> dict[str, dict[str, Any]]:
    files = cast("dict[str, dict[str, Any]]", event.to_json().get("files") or {})
    return {name: files[name] for name in event.names().values() if name in files and _NAME.fullmatch(name)}


def parse_events(content: bytes) -> list[TrialEvent]:
    """The events of a journal's lines; one that cannot be read here is left out: reading it is the journal's matter."""
    events: list[TrialEvent] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Noted)
        for line in content.split(b"\n")[:-1]:
            try:
                event = TRIAL.known(line, "storage")
            except ValueError:
                continue
            if isinstance(event, TrialEvent):
                events.append(event)
    return events


def whole_lines(path: Path) -> bytes:
    """The file up to its last newline; empty if there is no file."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    return content[: content.rfind(b"\n") + 1]


def _held(path: Path, link: Path) -> Path:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)
    return link
