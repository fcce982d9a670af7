"""A run as TensorBoard shows it: an event file per trial in RUN/tensorboard, made from the journal.

The journal is the truth: the files can be deleted and written again at any time. tensorboardX writes them without any
framework; `tensorboard --logdir RUN/tensorboard` shows them.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from harness.analysis.labels import run_name
from harness.errors import UserError
from harness.events import EpochEvent, ParityEvent, ReadyEvent, ResultEvent, TrialEvent
from harness.journal.journal import Journal
from harness.journal.kept import find_trial
from harness.journal.results import kept_epochs, parity_of, summarise
from harness.spec.trial import Trial

FOLDER = "tensorboard"
_FILES = "events.out.tfevents.*"
_METRICS = ("accuracy_pct/test", "loss/test", "time/epoch_s", "parity/max_rel_err")
"""Columns of the HPARAMS page besides the settings."""
_EPOCH = {
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    "optimiser/lr": "lr",
}
_ERRORS = {"train": "train_err_pct", "validation": "val_err_pct", "test_each_epoch": "test_err_pct"}
_TIMES = ("epoch_s", "eval_s", "img_per_s", "joules")


class Scalar(NamedTuple):
    """One point of a series; `time` in seconds since 1970. The step is the epoch; 0 before the first."""

    tag: str
    value: float
    step: int
    time: float


def scalars(trial: Trial, events: Sequence[TrialEvent]) -> list[Scalar]:
    """All points of a trial, in the order of its events.

    A trial that has not passed parity has no times among them, one whose audit failed no test accuracy. What is
    returned for a journal begins what is returned for a longer one, unless an attempt or a verdict made it void.
    """
    summary = summarise(trial, events)
    kept = {id(event) for event in kept_epochs(events)}
    points: list[Scalar] = []
    for count, event in enumerate(events, start=1):
        match event:
            case ParityEvent():
                if parity := parity_of(events[:count]):
                    points += _points(event, 0, {"parity/ok": parity.ok, "parity/max_rel_err": parity.max_rel_err})
            case ReadyEvent() if summary.timing_withheld is None:
                points += _points(event, 0, {"time/compile_s": event.compile_s})
            case EpochEvent() if id(event) in kept:
                points += _points(event, event.epoch, dict(_of_epoch(event, summary.timing_withheld is None)))
            case ResultEvent() if summary.status == "finished":
                best, error = summary.best_test_err_pct, summary.test_err_pct
                found = {
                    "loss/test": summary.test_loss,
                    "accuracy_pct/test": None if error is None else 100 - error,
                    "accuracy_pct/test_of_best_epoch": None if best is None else 100 - best,
                    "memory/peak_mb": event.peak_bytes / 1e6,
                }
                points += _points(event, summary.epochs_trained, found)
            case _:
                pass
    return points


def _of_epoch(event: EpochEvent, timed: bool) -> Iterator[tuple[str, float | None]]:
    record = event.to_json()
    yield from ((tag, record.get(name)) for tag, name in _EPOCH.items())
    for name, value in record.items():
        if name.startswith("train_") and name not in ("train_loss", "train_err_pct"):
            yield f"loss/{name}", value
    for part, name in _ERRORS.items():
        error = record.get(name)
        yield f"accuracy_pct/{part}", None if error is None else 100 - error
    if timed:
        yield from ((f"time/{name}", record.get(name)) for name in _TIMES)
    for number, change in enumerate(event.routing_logit_change or (), start=1):
        yield f"routing_logit_change/{number}", change


def _points(event: TrialEvent, step: int, found: dict[str, float | None]) -> Iterator[Scalar]:
    for tag, value in found.items():
        if value is not None and math.isfinite(value):
            yield Scalar(tag, float(value), step, event.time)


def settings(trial: Trial) -> dict[str, str | float | bool]:
    """What identifies a trial on the HPARAMS page: implementation, seed, and what the grid varies."""
    document = {"impl": trial.impl, "seed": trial.seed, "model.kind": trial.model.kind, **trial.params}
    return {
        key: value if isinstance(value, str | bool | int | float) else json.dumps(value)
        for key, value in document.items()
        if value is not None
    }


def require_writer() -> None:
    """Raises `UserError` if tensorboardX is not installed."""
    try:
        importlib.import_module("tensorboardX.event_file_writer")
    except ImportError as error:
        raise UserError(
            f'TensorBoard files need tensorboardX ({error}): pip install "capsbench[tensorboard]"'
        ) from error


class EventFiles:
    """The event files of one run, kept up with its journal; a context manager. Only one process may write them."""

    def __init__(self, journal: Journal) -> None:
        self.folder = journal.run_dir / FOLDER
        self._journal = journal
        self._open: dict[str, _EventFile] = {}

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, trial_id: str) -> int:
        """Writes what the trial's file lacks, or all of it anew if some of it is void; returns the number of points.

        Raises `OSError` if the file cannot be written.
        """
        trial, events = self._journal.trial(trial_id), self._journal.events(trial_id)
        points = scalars(trial, events)
        if not points:
            return 0
        file = self._open.get(trial_id)
        if file is None or points[: len(file.points)] != file.points:
            if file:
                file.close()
            file = self._open[trial_id] = _EventFile(self.folder / _folder_name(trial), trial)
        file.add(points[len(file.points) :])
        if any(isinstance(event, ResultEvent) for event in events[-1:]):
            file.close()
            del self._open[trial_id]
        return len(points)

    def close(self) -> None:
        """Closes the files; what they hold stays."""
        for file in self._open.values():
            with suppress(OSError):
                file.close()
        self._open.clear()


class LiveFiles:
    """The event files during a run; whatever goes wrong with them, the run goes on."""

    def __init__(self, journal: Journal, planned: Iterable[str]) -> None:
        self._files, self._run_dir = EventFiles(journal), journal.run_dir
        self._problem: str | None = None
        for trial_id in planned:  # what has been trained before is in the comparison too
            self.update(trial_id)

    def update(self, trial_id: str) -> None:
        """Brings the trial's file up to date."""
        if self._problem is None:
            try:
                self._files.update(trial_id)
            except Exception as error:
                self._problem = " ".join(str(error).split()) or type(error).__name__

    def close(self) -> str | None:
        """Closes the files. Returns a warning if they lack something."""
        self._files.close()
        if self._problem is None:
            return None
        again = f"capsbench sync {shlex.quote(str(self._run_dir))} --tensorboard"
        return f"{self._files.folder} lacks results ({self._problem}). Nothing is lost; to write it again: {again}"


class _EventFile:
    """One trial's file, begun anew."""

    def __init__(self, folder: Path, trial: Trial) -> None:
        self.points: list[Scalar] = []
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(_FILES):
            old.unlink()
        self._summary: Any = importlib.import_module("tensorboardX.summary")
        self._proto: Any = importlib.import_module("tensorboardX.proto.event_pb2")
        writer: Any = importlib.import_module("tensorboardX.event_file_writer")
        self._writer = writer.EventsWriter(str(folder.absolute() / "events"))
        experiment, start, self._end = self._summary.hparams(settings(trial), dict.fromkeys(_METRICS, 0.0))
        for each in (experiment, start):
            self._writer.write_event(self._proto.Event(summary=each))

    def add(self, points: Sequence[Scalar]) -> None:
        """Appends the points; readers have them when this returns."""
        for point in points:
            summary = self._summary.scalar(point.tag, point.value)
            self._writer.write_event(self._proto.Event(summary=summary, step=point.step, wall_time=point.time))
        self._writer.flush()
        self.points += points

    def close(self) -> None:
        self._writer.write_event(self._proto.Event(summary=self._end))
        self._writer.close()


def _folder_name(trial: Trial) -> str:
    """What TensorBoard calls the trial: "torch-r3-s0-3fa1b2"."""
    return re.sub(r"[^\w.+=-]+", "-", f"{run_name(trial)}-{trial.id[:6]}")


def write_all(run_dir: Path) -> tuple[Path, int, int]:
    """Writes the event files of all trials of a run; returns their folder, the number of trials, and that of points.

    Raises `UserError` if there is no run, if tensorboardX is not installed, if the run is going on and writes them
    itself, or if they cannot be written.
    """
    require_writer()
    journal = Journal(run_dir)
    if not journal.trial_ids():
        find_trial(run_dir, "")  # says what is wrong and suggests a similar run
    with EventFiles(journal) as files:
        if journal.is_live() and files.folder.exists():
            raise UserError(f"{run_dir} is running, and may be writing {files.folder}; wait until it has ended")
        try:
            counts = [files.update(id) for id in journal.trial_ids()]
        except OSError as error:
            raise UserError(f"cannot write {error.filename or files.folder}: {error.strerror}") from error
    return files.folder, len(counts), sum(counts)
