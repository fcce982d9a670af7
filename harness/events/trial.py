"""The events of a trial. All but "waiting" are kept in its journal, `trials/ID/events.jsonl`, in the order they came."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any, Literal, Self

from harness.errors import of_the_system
from harness.events.base import Bytes, Count, Event, FileName, Kinds, Rate, Seconds, Text

Record = Mapping[str, Any]
"""What an event says of a file that it names: {"sha256": its SHA-256 in hexadecimal, "bytes": its size}."""

_FILES = ("checkpoint", "weights", "best_weights", "predictions")


class TrialEvent(Event):
    """What every event of a trial has; the supervisor adds both."""

    trial: str = ""
    """The trial's id; absent: its folder says it."""
    attempt: Count = 1
    """Which attempt at the trial, counted from 1; absent: the first."""

    def of(self, trial: str, attempt: int) -> Self:
        """The event, marked as this attempt's."""
        return self.model_copy(update={"trial": trial, "attempt": attempt})

    def names(self) -> dict[str, str]:
        """Field -> the file of the trial's folder that it names, written before the event."""
        return {field: str(name) for field in _FILES if (name := getattr(self, field, None))}


class _NamesFiles(TrialEvent):
    files: dict[str, dict[str, str | int]] | None = None
    """Of each file that it names, its SHA-256 ("sha256", hexadecimal) and size ("bytes"); absent from version 0.1."""


class AttemptEvent(TrialEvent):
    """A worker process has begun."""

    kind: Literal["attempt"] = "attempt"
    host: str
    """The machine's name."""
    pid: int
    """The worker's process id there."""
    python: str
    """Python's version."""
    cores: list[int]
    """The CPU cores that it is pinned to."""
    cuda_visible_devices: str | None
    """The environment variable of that name; null: not set."""
    resumed_epoch: Count
    """The epoch that it goes on after, whose successors are void; 0: it starts afresh."""
    versions: dict[str, str]
    """Library -> version, of those that matter to a result."""
    warm: bool = False
    """Whether it is a fork of a process that had imported all before (`runtime.warm`); absent: a process of its own."""


class ContinuedEvent(TrialEvent):
    """The trial goes on from a shorter one, alike in all but the number of epochs. The epochs before this event are copied.

    Their times, and those of the attempts, are of when they were trained.
    """

    kind: Literal["continued"] = "continued"
    from_trial: str
    """The shorter trial's id."""
    from_run: str | None = None
    """The run directory of it, as it was given; absent: the same."""
    from_epoch: Count
    """The epoch of it that this trial goes on after."""
    from_epochs: Count
    """How many epochs it was to have at most."""


class ParityEvent(TrialEvent):
    """The gate has compared the implementation with the specification."""

    kind: Literal["parity"] = "parity"
    ok: bool
    """Whether every value was within its tolerance."""
    max_rel_err: float | None
    """The relative error of the worst value, without unit; null: not finite."""
    worst: str
    """Level and name of that value."""
    tensors: dict[str, dict[str, float | None]]
    """Level and name of each value -> its "rel_err" and its "tolerance"."""
    examples: int = 0
    """How many different images were compared; absent: not told."""
    cached: bool = False
    """Whether this is the verdict of an earlier gate on the same everything; absent: no."""


class ReadyEvent(TrialEvent):
    """All is built, compiled and compared; training begins."""

    kind: Literal["ready"] = "ready"
    import_s: Seconds
    """Seconds to import the framework and the implementation."""
    data_s: Seconds
    """Seconds to load the data."""
    build_s: Seconds
    """Seconds to build the model and to hand it weights and images."""
    compile_s: Seconds
    """Seconds to compile."""
    parity_s: Seconds
    """Seconds that the gate took; next to none where it is off."""
    parameters: Count
    """How many numbers the model learns."""
    weights_sha256: str
    """SHA-256 of the initial weights, hexadecimal."""
    data_sha256: str
    """SHA-256 of the images and labels, hexadecimal."""
    data_provenance: str
    """Which images of which data set."""
    device: str
    """Where it computes: "cpu" or "gpu"."""


class EpochEvent(_NamesFiles):
    """An epoch has been trained and validated, and its checkpoint is written.

    Each further term of the loss has a field `train_TERM`, such as `train_margin`: its mean over the epoch, without unit.
    """

    kind: Literal["epoch"] = "epoch"
    epoch: Count
    """Its number, counted from 1."""
    epochs: Count
    """How many there are to be at most."""
    epoch_s: Seconds
    """Seconds of training alone."""
    eval_s: Seconds
    """Seconds of validation."""
    img_per_s: Rate
    """Images trained on per second."""
    joules: float | None = None
    """Energy of training; absent where the hardware does not count it."""
    train_loss: float | None
    """Mean loss over the training images, without unit; null: not finite."""
    train_err_pct: float
    """Training images that were told wrong while it learned, in percent."""
    val_loss: float | None
    """Mean loss over the validation images after the epoch; null: there are none."""
    val_err_pct: float | None
    """Validation images told wrong after the epoch, in percent; null: there are none."""
    lr: float
    """The learning rate of the epoch's first step, without unit."""
    routing_logit_change: list[float | None] | None = None
    """By how much each routing iteration changes the logits, without unit; absent unless asked for."""
    audit_fault: str | None = None
    """What the audit has found wrong; absent: nothing."""
    plan_sha256: str
    """SHA-256 of the epoch's order of images and their shifts, hexadecimal."""
    checkpoint: FileName
    """The file to go on from."""
    weights: FileName | None = None
    """The file of this epoch's weights, where they are kept."""
    test_err_pct: float | None = None
    """Test images told wrong, in percent; only where the suite's stopping rule looks at them."""
    own_test_err_pct: float | None = None
    """The same of the data set trained on, where the trial is tested on another."""


class ResultEvent(_NamesFiles):
    """The trial has ended well.

    Each further term of the loss has a field `test_TERM`, such as `test_margin`.
    """

    kind: Literal["result"] = "result"
    test_err_pct: float | None
    """Test images that the last epoch's weights tell wrong, in percent; null: the audit failed, or none were looked at."""
    test_loss: float | None
    """Mean loss over the test images, without unit; null: the audit failed, none were looked at, or it is not finite."""
    test_s: Seconds
    """Seconds of evaluating the test images."""
    test_images: Count
    """How many were looked at; 0: a proposal of a search, whose audit looks at validation images."""
    peak_bytes: Bytes
    """The most memory held: of the device where it tells, else of the process."""
    audit: dict[str, Any] | None = None
    """The audit's verdict: "ok" (null where it is off), "note" and what it repeated; absent from version 0.1."""
    weights: FileName
    """The file of the last epoch's weights."""
    best_epoch: int | None = None
    """The epoch of the lowest validation error; absent without validation images."""
    best_test_err_pct: float | None = None
    """Test images that its weights tell wrong, in percent; null: the audit failed."""
    best_weights: FileName | None = None
    """The file of its weights."""
    predictions: FileName | None = None
    """The file of what the last epoch's weights say of each test image; null: none were looked at, or a run older than 0.1."""


class FailedEvent(TrialEvent):
    """The attempt has failed."""

    kind: Literal["failed"] = "failed"
    cause: Text
    """Why, in a line."""
    error: str
    """The type of the exception, or the signal."""
    hint: Text | None
    """What to do; null: not known."""
    path: Text | None = None
    """What a full, read-only or failing disk refused to write; absent: not told, or that was not the cause."""
    is_loss: bool = False
    """Whether it was nobody's fault, such as a killed worker or a hang; absent: no."""

    @staticmethod
    def of_disk(error: OSError) -> FailedEvent:
        """What a full, read-only or failing disk made of an attempt."""
        path = None if error.filename is None else os.fsdecode(error.filename)
        what, _, hint = (of_the_system(error) or str(error)).rpartition("; ")
        return FailedEvent(cause=what, error=errno.errorcode.get(error.errno or 0, "OSError"), hint=hint, path=path)


class InterruptedEvent(TrialEvent):
    """The attempt was ended from outside: it will be resumed."""

    kind: Literal["interrupted"] = "interrupted"
    cause: Text | None = None
    """How it was lost, in a line; absent: Ctrl-C or the like."""
    error: str | None = None
    """What it was lost to: a signal, "Hang", "SupervisorLost", "NodeLost", "RayLost", or the system's name for a full disk
    or the like ("ENOSPC"); absent: Ctrl-C or the like."""
    next_in_s: float | None = None
    """Seconds until the next attempt of the same run; absent: there is none."""


class WarningEvent(TrialEvent):
    """Something that makes the result doubtful."""

    kind: Literal["warning"] = "warning"
    message: Text
    """In a sentence."""


class WaitingEvent(TrialEvent):
    """The trial waits for a core or a GPU. Of interest now, not later: never kept."""

    kind: Literal["waiting"] = "waiting"
    message: Text
    """For what, in a sentence."""


FinalEvent = ResultEvent | FailedEvent | InterruptedEvent
FINAL = (ResultEvent, FailedEvent, InterruptedEvent)
"""Every attempt that began ends with one of these."""

TRIAL = Kinds(
    AttemptEvent, ContinuedEvent, WarningEvent, ParityEvent, ReadyEvent, EpochEvent, ResultEvent, FailedEvent,
    InterruptedEvent, WaitingEvent,
)  # fmt: skip
"""What a trial's worker, its supervisor and the journal say."""
