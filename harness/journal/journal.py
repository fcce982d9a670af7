"""The run directory: append-only events and atomic results; the only source of truth.

Only the driver writes, under a lock; anyone may read at any time. An event is durable before `append` returns, so a
crash of the worker, the driver or the machine loses at most the epoch in progress.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.disk import acquire, finite, flush, obstacle, read_json, write_atomic
from harness.errors import UserError, note
from harness.events import EpochEvent, ResultEvent, TrialEvent
from harness.journal import schema
from harness.journal.compared import content_of, disagreements, is_sound, knows_more, last_epoch
from harness.journal.directory import read_plan
from harness.journal.documents import next_line, read_events, read_trial, with_unknown
from harness.journal.seals import CHECK, sealed_document, sealed_line
from harness.spec.trial import Trial


class Journal:
    """One run directory. Reading needs no preparation; writing needs `open`, which also works as a context manager.

    with Journal(run_dir).open() as journal:
        journal.write_plan(plan, source)
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.run_dir = Path(run_dir)
        self._lock: int | None = None
        self._is_readable = False
        self._tails: dict[
            Path, tuple[int, int]
        ] = {}  # journal -> its size as left here, and the number of its next line
        self._compared: set[str] = set()  # trials whose journal was compared with its result.json

    def open(self) -> Journal:
        """Creates the directory if needed and takes its lock.

        Raises `UserError` if another driver is using it, or if it cannot be written.
        """
        try:
            (self.run_dir / "trials").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(
                f"cannot write the run directory {self.run_dir}: {obstacle(self.run_dir) or error.strerror}. "
                "Choose a folder you may write to with --out DIR."
            ) from error
        try:
            acquire(lock)
        except OSError as error:
            os.close(lock)
            raise self._lock_error(error) from error
        with contextlib.suppress(OSError):  # a note for others; a full disk is told where it matters
            os.ftruncate(lock, 0)
            os.write(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        self._lock = lock
        return self

    def close(self) -> None:
        """Releases the lock; closing twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_live(self) -> bool:
        """Whether a driver holds the lock now, this one included."""
        try:
            probe = os.open(self.run_dir / ".lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(probe)
        return False

    # The run

    def write_plan(self, plan: Mapping[str, Any], source: str) -> None:
        """Writes plan.json, the suite as given, and a trial.json for every planned trial.

        `plan["trials"]` holds trial documents (`Trial.model_dump(mode="json")`). The run keeps its `run_id`, a random
        name that identifies it wherever the directory is moved. Keys that a newer capsbench has added to the documents stay.
        """
        before = self.plan()
        run_id = before.get("run_id") or uuid.uuid4().hex
        for trial in plan["trials"]:
            path = self.trial_dir(trial["id"]) / "trial.json"
            newer = (read_json(path) or {}) if schema.is_newer(before) else {}
            newer.pop(CHECK, None)
            self._write_sealed(path, with_unknown(trial, newer))
        self._write(self.run_dir / "suite.yaml", source.encode())
        document = {"run_id": run_id, **schema.stamp(before), **plan}
        self._write_sealed(
            self.run_dir / "plan.json", {**document, **{k: v for k, v in before.items() if k not in document}}
        )

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Writes environment.json."""
        self._write_json(self.run_dir / "environment.json", environment)

    def plan(self) -> dict[str, Any]:
        """plan.json, in the form of today; empty if there is no plan yet.

        Raises `UserError` if it is no plan, or of a newer capsbench whose runs this one cannot read.
        """
        plan = read_plan(self.run_dir)
        self._is_readable = True
        return plan

    def environment(self) -> dict[str, Any]:
        """environment.json; empty if it was not written."""
        return read_json(self.run_dir / "environment.json") or {}

    def trial_ids(self) -> list[str]:
        """Every trial in the directory: those of the latest plan in its order, then those of earlier plans."""
        planned = [str(trial["id"]) for trial in self.plan().get("trials", ())]
        known = sorted(path.parent.name for path in self.run_dir.glob("trials/*/trial.json"))
        return list(dict.fromkeys(planned + known))

    # One trial

    def trial_dir(self, trial_id: str) -> Path:
        """The trial's folder; it exists once the trial is planned or has an event."""
        return self.run_dir / "trials" / trial_id

    def trial(self, trial_id: str) -> Trial:
        """The trial's configuration, from trial.json. Raises `UserError` if there is none.

        Keys that only a newer capsbench knows are left out, with an `Unread` warning that names them.
        """
        self._require_readable()
        return read_trial(self.trial_dir(trial_id) / "trial.json", lambda: schema.is_newer(self.plan()))

    def append(self, trial_id: str, event: TrialEvent) -> None:
        """Adds one event; it is on the disk when this returns.

        The files that it names are made durable first. After an "epoch" event with a checkpoint, only that checkpoint
        and the one before are kept, as a fallback; after a "result", only the last.
        Numbers that are not finite become null.
        """
        self._require_lock()
        folder = self.trial_dir(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        files = {field: path for field, name in event.names().items() if (path := folder / name).exists()}
        for path in (*files.values(), *([folder] if files else [])):
            flush(path)
        self._append_line(folder / "events.jsonl", event)
        if isinstance(event, EpochEvent) and (checkpoint := files.get("checkpoint")):
            _keep_checkpoints(folder, 2, checkpoint.name)
        elif isinstance(event, ResultEvent):
            _keep_checkpoints(folder, 1)

    def events(self, trial_id: str) -> list[TrialEvent]:
        """All events in order, including superseded ones; a last line torn by a crash is left out.

        Events that only a newer capsbench can read are left out, with an `Unread` warning that names them. Lines that are
        not as they were written do not count (`documents.LostLines`); they, an edited result.json, and one that knows more
        than the journal are told by `Noted` warnings. Raises `UserError` if the file cannot be read, or is no journal.
        """
        self._require_readable()
        path = self.trial_dir(trial_id) / "result.json"
        # Read first: what a driver at work adds meanwhile is in the journal before it is in here.
        content = None if trial_id in self._compared else content_of(path)
        events = read_events(path.with_name("events.jsonl"), str(self.run_dir))
        if content is not None:
            self._compared.add(trial_id)
            for told in disagreements(path, content, events):
                note(told)
        return events

    def adopt(self, trial_id: str, events: Sequence[TrialEvent]) -> None:
        """Adds `events`, all or none, to those of a trial that has trained nothing yet; their files are in its folder.

        The folder is durable before them.
        """
        self._require_lock()
        path = self.trial_dir(trial_id) / "events.jsonl"
        own = path.read_bytes() if path.exists() else b""
        own = own[: own.rfind(b"\n") + 1]
        first = next_line(own)
        added = [sealed_line(finite(event.to_json()), first + index) for index, event in enumerate(events)]
        for name in {name for event in events for name in event.names().values()}:
            if (file := path.parent / name).exists():
                flush(file)
        self._write(path, own + "".join(added).encode())

    def result(self, trial_id: str) -> dict[str, Any] | None:
        """result.json, in the form of today; None until the trial has ended. `events` tells whether it was edited."""
        self._require_readable()
        result = read_json(self.trial_dir(trial_id) / "result.json")
        return result and schema.upgraded("result", {key: value for key, value in result.items() if key != CHECK})

    def is_result_sound(self, trial_id: str) -> bool:
        """Whether there is a result.json, as it was written."""
        return is_sound(self.trial_dir(trial_id) / "result.json")

    def contradiction(self, trial_id: str) -> str | None:
        """That result.json says finished where the journal does not, in words, if epochs would be trained again; else None."""
        content = content_of(self.trial_dir(trial_id) / "result.json")
        events = self.events(trial_id)
        more = knows_more(content, events) if content is not None else None
        last = last_epoch(events)
        if not more or last is None or not (self.trial_dir(trial_id) / last.checkpoint).is_file():
            return more
        only_end = (self.result(trial_id) or {}).get("epochs_trained") == last.epoch
        return None if only_end else more

    def write_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Replaces result.json atomically; a crash leaves the old one or the new one."""
        self._write_sealed(self.trial_dir(trial_id) / "result.json", result)

    def next_attempt(self, trial_id: str) -> int:
        """The number of the next attempt, counted from 1; no log of an earlier one is ever overwritten."""
        matches = (re.fullmatch(r"attempt-(\d+)\.log", path.name) for path in self.trial_dir(trial_id).glob("*.log"))
        logged = [int(match[1]) for match in matches if match]
        return 1 + max([*logged, *(event.attempt for event in self.events(trial_id))], default=0)

    # Plumbing

    def _require_readable(self) -> None:
        if not self._is_readable:
            self.plan()

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RuntimeError(f"{self.run_dir} is open for reading only: call Journal.open() before writing")

    def _lock_error(self, error: OSError) -> UserError:
        if not isinstance(error, BlockingIOError):
            return UserError(
                f"cannot lock {self.run_dir / '.lock'}: {error.strerror}. "
                "Choose a folder on a file system with locks, such as a local disk, with --out DIR."
            )
        owner = read_json(self.run_dir / ".lock") or {}
        who = f"process {owner['pid']} on {owner['host']}" if "pid" in owner else "another process"
        return UserError(
            f"{self.run_dir} is in use by {who}. Wait until that run ends, stop it with Ctrl-C, "
            "or write elsewhere with --out DIR."
        )

    def _append_line(self, path: Path, event: TrialEvent) -> None:
        """Appends the event, all of it or, if that fails, nothing."""
        created = not path.exists()
        # Unbuffered: closing a buffered file would write the rest of a line that did not fit.
        with path.open("ab+", buffering=0) as file:
            size, number = file.seek(0, os.SEEK_END), 1
            left, following = self._tails.get(path, (0, 1))
            if size and size == left:
                number = following
            elif size:
                file.seek(0)
                content = file.readall()
                size = content.rfind(b"\n") + 1
                file.truncate(size)  # what follows was torn by a crash and never acknowledged, so nothing is lost
                number = next_line(content[:size])
            line = sealed_line(finite(event.to_json()), number).encode()
            try:
                written = 0
                while written < len(line):
                    written += file.write(line[written:])
                os.fsync(file.fileno())
            except OSError:
                self._tails.pop(path, None)
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), size)
                raise
        self._tails[path] = size + len(line), number + 1
        if created:
            flush(path.parent)

    def _write_json(self, path: Path, document: Mapping[str, Any]) -> None:
        self._write(path, (json.dumps(finite(dict(document)), indent=2, allow_nan=False) + "\n").encode())

    def _write_sealed(self, path: Path, document: Mapping[str, Any]) -> None:
        self._write(path, sealed_document(finite(dict(document))).encode())

    def _write(self, path: Path, content: bytes) -> None:
        self._require_lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)


def _keep_checkpoints(folder: Path, count: int, last: str | None = None) -> None:
    """Deletes all checkpoints except the `count` latest up to `last`: later ones belong to an abandoned attempt."""
    names = sorted((path.name for path in folder.glob("epoch-*.safetensors")), key=lambda name: (len(name), name))
    end = names.index(last) + 1 if last else len(names)
    for name in names[: max(0, end - count)] + names[end:]:
        (folder / name).unlink(missing_ok=True)


FOLDER, INDEX = "figures", "figures.json"  # a trial's folder; its list, written last

CURSOR = ".parity.json"
"""In the output folder: says where the last reports were sent, for `capsbench ui`."""
