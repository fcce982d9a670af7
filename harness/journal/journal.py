"""The run directory: append-only events and atomic results; the only source of truth.

Only the driver writes, under a lock; anyone may read at any time. An event is durable before `append` returns, so a
crash of the worker, the driver or the machine loses at most the epoch in progress.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import re
import socket
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from harness.disk import acquire, finite, flush, obstacle, read_json, write_atomic
from harness.errors import UserError
from harness.events import TRIAL, EpochEvent, Malformed, ResultEvent, TrialEvent
from harness.spec.trial import Trial


class Journal:
    """One run directory. Reading needs no preparation; writing needs `open`, which also works as a context manager.

    with Journal(run_dir).open() as journal:
        journal.write_plan(plan, source)
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.run_dir = Path(run_dir)
        self._lock: int | None = None

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
        name that identifies it wherever the directory is moved.
        """
        run_id = self.plan().get("run_id") or uuid.uuid4().hex
        for trial in plan["trials"]:
            self._write_json(self.trial_dir(trial["id"]) / "trial.json", trial)
        self._write_text(self.run_dir / "suite.yaml", source)
        self._write_json(self.run_dir / "plan.json", {"run_id": run_id, **plan})

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Writes environment.json."""
        self._write_json(self.run_dir / "environment.json", environment)

    def plan(self) -> dict[str, Any]:
        """plan.json; empty if there is no plan yet."""
        return read_json(self.run_dir / "plan.json") or {}

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
        """The trial's configuration, from trial.json. Raises `UserError` if there is none."""
        path = self.trial_dir(trial_id) / "trial.json"
        try:
            return Trial.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"no usable trial in {path}: {error}. Run the suite again to restore it.") from error

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
        self._append_line(folder / "events.jsonl", json.dumps(finite(event.to_json()), allow_nan=False) + "\n")
        if isinstance(event, EpochEvent) and (checkpoint := files.get("checkpoint")):
            _keep_checkpoints(folder, 2, checkpoint.name)
        elif isinstance(event, ResultEvent):
            _keep_checkpoints(folder, 1)

    def events(self, trial_id: str) -> list[TrialEvent]:
        """All events in order, including superseded ones; a last line torn by a crash is left out.

        Events that only a newer capsbench can read are left out, with an `Unread` warning that names them. Raises
        `UserError` if the file cannot be read, or if a line before the last is not an event: then something other than
        this bench wrote there.
        """
        path = self.trial_dir(trial_id) / "events.jsonl"
        try:
            *lines, _torn = path.read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(
                f"{path} cannot be read: {error.strerror}. Choose another folder with --out DIR."
            ) from error
        events: list[TrialEvent] = []
        where = str(self.run_dir)
        with _uncollected():
            for number, line in enumerate(lines, start=1):
                try:
                    if (event := TRIAL.known(line, where)) is not None:
                        events.append(cast(TrialEvent, event))
                except ValueError as error:
                    found = f"{error}; found {line[:60]!r}" if isinstance(error, Malformed) else repr(line[:60])
                    raise UserError(
                        f"{path}, line {number} is damaged: {found}. "
                        f"Move {path.parent} elsewhere and run the suite again to repeat this trial."
                    ) from error
        return events

    def result(self, trial_id: str) -> dict[str, Any] | None:
        """result.json; None until the trial has ended."""
        return read_json(self.trial_dir(trial_id) / "result.json")

    def write_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Replaces result.json atomically; a crash leaves the old one or the new one."""
        self._write_json(self.trial_dir(trial_id) / "result.json", result)

    def next_attempt(self, trial_id: str) -> int:
        """The number of the next attempt, counted from 1; no log of an earlier one is ever overwritten."""
        matches = (re.fullmatch(r"attempt-(\d+)\.log", path.name) for path in self.trial_dir(trial_id).glob("*.log"))
        logged = [int(match[1]) for match in matches if match]
        return 1 + max([*logged, *(event.attempt for event in self.events(trial_id))], default=0)

    # Plumbing

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

    def _append_line(self, path: Path, line: str) -> None:
        created = not path.exists()
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # torn by a crash and never acknowledged, so nothing is lost
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if created:
            flush(path.parent)

    def _write_json(self, path: Path, document: Mapping[str, Any]) -> None:
        self._write_text(path, json.dumps(finite(dict(document)), indent=2, allow_nan=False) + "\n")

    def _write_text(self, path: Path, text: str) -> None:
        self._require_lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)


@contextmanager
def _uncollected() -> Generator[None]:
    """Pauses the garbage collector while thousands of events are read. All are kept, so it would find nothing.

    It would scan all of them again and again, which takes longer than reading them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _keep_checkpoints(folder: Path, count: int, last: str | None = None) -> None:
    """Deletes all checkpoints except the `count` latest up to `last`: later ones belong to an abandoned attempt."""
    names = sorted((path.name for path in folder.glob("epoch-*.safetensors")), key=lambda name: (len(name), name))
    end = names.index(last) + 1 if last else len(names)
    for name in names[: max(0, end - count)] + names[end:]:
        (folder / name).unlink(missing_ok=True)


FOLDER, INDEX = "figures", "figures.json"  # a trial's folder; its list, written last

CURSOR = ".parity.json"
"""In the output folder: says where the last reports were sent, for `capsbench ui`."""
