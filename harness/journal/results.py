"""From a trial's events to its result: pure functions, so that a result can always be recomputed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.cost.operations import step_flops
from harness.disk import finite, read_json
from harness.events import (
    FINAL,
    AttemptEvent,
    ContinuedEvent,
    EpochEvent,
    FailedEvent,
    FinalEvent,
    InterruptedEvent,
    ParityEvent,
    ReadyEvent,
    ResultEvent,
    TrialEvent,
    WarningEvent,
)
from harness.journal import schema
from harness.journal.compared import is_sound
from harness.journal.documents import LostLines
from harness.journal.seals import without_check
from harness.machine.noise import drift, wide
from harness.spec.trial import Trial
from harness.stats import FEWEST, median_interval

Status = Literal["finished", "failed", "interrupted", "pending"]

_TIMINGS = ("epoch_s", "eval_s", "img_per_s", "joules")  # fields of an epoch; withheld together


_WARM = "it ran in a warm worker (runtime.warm), whose times are not those of a fresh process"


@dataclass(frozen=True)
class Parity:
    """The gate's verdict over all attempts that trained a kept epoch: good only if all are, with the worst error."""

    ok: bool
    max_rel_err: float | None  # None if it was not a number
    worst: str  # the tensor with that error
    tensors: dict[str, Any]  # name -> {"rel_err", "tolerance"}, from the attempt with that error


@dataclass(frozen=True)
class Result:
    """What the bench reports for one trial. Seconds, bytes, images per second, error in percent; None is unknown."""

    id: str
    impl: str
    params: dict[str, Any]
    seed: int
    status: Status
    test_err_pct: float | None = None
    test_loss: float | None = None
    val_err_pct: float | None = None  # after the last epoch
    best_epoch: int | None = None  # lowest validation error; None: no validation images, so no best.safetensors
    best_test_err_pct: float | None = None  # with the weights after that epoch; test_err_pct is after the last
    epochs_trained: int = 0  # fewer than train.epochs if a stopping rule ended training, or before the end
    stopped_on: Literal["validation", "test"] | None = None  # the images that the suite's stopping rule looks at
    epoch_s: float | None = None  # median of the steady epochs
    epoch_s_ci: tuple[float, float] | None = None  # its 95% interval; None with fewer than six
    img_per_s: float | None = None  # likewise
    flops_per_s: float | None = (
        None  # achieved: the direct algorithm's operations (`harness.cost.operations`) over the time taken
    )
    joules_per_epoch: float | None = None  # median of the steady epochs, if the hardware measures energy
    compile_s: float | None = None  # from the first attempt: later ones may find caches
    peak_bytes: int | None = None
    parity_ok: bool | None = None  # None: not checked
    parity_max_rel_err: float | None = None
    parity_worst: str | None = None
    audit: dict[str, Any] | None = None  # its verdict (`harness.worker.audit.Audit.verdict`); None before the end
    timing_withheld: str | None = None  # why there is no timing verdict
    steady_epochs: int = 0  # how many epochs the medians are taken over
    warmup_epochs: list[int] = field(default_factory=list[int])
    epochs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    warnings: list[str] = field(default_factory=list[str])
    cause: str | None = None
    error: str | None = None
    hint: str | None = None
    parameters: int | None = None
    device: str | None = None
    weights_sha256: str | None = None  # of the initial weights
    data_sha256: str | None = None
    data_provenance: str | None = None  # which images of which data set
    attempts: int = 0  # those of the trial that this one goes on from included
    continued_from: dict[str, Any] | None = (
        None  # that trial, the epoch, and its run if another; None: trained from the start
    )
    log: str | None = None  # from the last attempt, relative to the run directory
    phase: Literal["proposal", "confirmation"] | None = None  # of a search; a proposal has no test error

    @property
    def flaw(self) -> str | None:
        """What is wrong with the implementation, so that a finished trial does not count."""
        if self.parity_ok is False:
            return f"parity failed at {self.parity_worst}"
        return f"audit failed: {self.audit['note']}" if self.audit and self.audit["ok"] is False else None

    def to_json(self) -> dict[str, Any]:
        """The result as strict JSON: numbers that are not finite are None."""
        document = finite(asdict(self))
        if self.joules_per_epoch is None:  # cannot be measured here, which differs from "not yet"
            del document["joules_per_epoch"]
        if self.phase is None:
            del document["phase"]
        return document


def summarise(trial: Trial, events: Sequence[TrialEvent]) -> Result:
    """The result of `trial`, from its events in the order they were written.

    The status comes from the last attempt's final event: finished, failed, or else interrupted; pending if none began.
    A trial whose parity failed or was not checked keeps its training record but gets no timing. One whose audit failed
    gets no accuracy either: it is not known what was trained.
    """
    epochs = kept_epochs(events)
    parity = parity_of(events)
    attempts = [event for event in events if isinstance(event, AttemptEvent)]
    final = _final(events)
    ready = next((event for event in events if isinstance(event, ReadyEvent)), None)
    result = final if isinstance(final, ResultEvent) else None
    failed = final if isinstance(final, FailedEvent) else None
    warmup, steady = _split(epochs)
    audit = result and result.audit
    unsound = audit["note"] if audit and audit["ok"] is False else None
    warm = any(attempt.warm for attempt in attempts)
    withheld = _withheld(trial, parity) or (f"audit failed: {unsound}" if unsound else None)
    withheld = withheld or (_WARM if warm else None)
    timed = [] if withheld else steady
    img_per_s = _median(timed, "img_per_s")
    summary = Result(
        id=trial.id,
        impl=trial.impl,
        params=trial.params,
        seed=trial.seed,
        status=_status(final, attempts),
        test_err_pct=result and result.test_err_pct,
        test_loss=result and result.test_loss,
        val_err_pct=epochs[-1].val_err_pct if epochs and not unsound else None,
        best_epoch=result and result.best_epoch,
        best_test_err_pct=result and result.best_test_err_pct,
        epochs_trained=epochs[-1].epoch if epochs else 0,
        stopped_on=trial.train.stop.images,
        epoch_s=_median(timed, "epoch_s"),
        epoch_s_ci=median_interval([epoch.epoch_s for epoch in timed]),
        img_per_s=img_per_s,
        flops_per_s=img_per_s and img_per_s * step_flops(trial.model, 1),
        joules_per_epoch=_median(timed, "joules"),
        compile_s=None if withheld else ready and ready.compile_s,
        peak_bytes=None if warm else result and result.peak_bytes,
        parity_ok=parity.ok if parity else None,
        parity_max_rel_err=parity.max_rel_err if parity else None,
        parity_worst=parity.worst if parity else None,
        audit=audit,
        timing_withheld=withheld,
        steady_epochs=len(timed),
        warmup_epochs=warmup,
        epochs=[_epoch_record(event, event.epoch in warmup, bool(withheld)) for event in epochs],
        warnings=[*_said(events), *_stopped(trial), *_found(epochs, timed, warmup, result)],
        cause=failed and failed.cause,
        error=failed and failed.error,
        hint=failed and failed.hint,
        parameters=ready and ready.parameters,
        device=ready and ready.device,
        weights_sha256=ready and ready.weights_sha256,
        data_sha256=ready and ready.data_sha256,
        data_provenance=ready and ready.data_provenance,
        attempts=len(attempts),
        continued_from=_origin(events),
        log=f"trials/{trial.id}/attempt-{attempts[-1].attempt}.log" if attempts else None,
        phase=trial.phase,
    )
    if summary.status != "interrupted":
        return summary
    told = final.cause if isinstance(final, InterruptedEvent) else None
    return replace(summary, cause=told or "interrupted before it ended")


def kept_epochs(events: Iterable[TrialEvent]) -> list[EpochEvent]:
    """The "epoch" events that count, by number: an attempt that resumed after epoch k replaces those after k."""
    kept: dict[int, EpochEvent] = {}
    attempt = 1
    for event in events:
        if isinstance(event, AttemptEvent):
            kept = {number: epoch for number, epoch in kept.items() if number <= event.resumed_epoch}
            attempt = event.attempt
        elif isinstance(event, EpochEvent):
            if event.attempt > attempt:  # the line that began it is lost: it went on before this epoch
                kept = {number: epoch for number, epoch in kept.items() if number < event.epoch}
                attempt = event.attempt
            kept[event.epoch] = event
    return [kept[number] for number in sorted(kept)]


def named_files(events: Sequence[TrialEvent]) -> dict[str, EpochEvent | ResultEvent]:
    """Files in the trial's folder that count: name -> the event that names it, a kept epoch or the result."""
    named = [*kept_epochs(events), *([final] if isinstance(final := _final(events), ResultEvent) else [])]
    return {name: event for event in named for name in event.names().values()}


def parity_of(events: Sequence[TrialEvent]) -> Parity | None:
    """The gate's verdict on the kept epochs and on the last attempt; None if parity was never checked there.

    None as well where lines are lost and one of these attempts has no verdict left: it may have been a bad one.
    """
    last = max((event.attempt for event in events), default=1)
    trained = {epoch.attempt for epoch in kept_epochs(events)}
    checks = [event for event in events if isinstance(event, ParityEvent) and event.attempt in trained | {last}]
    is_lost = any(isinstance(event, LostLines) for event in events)
    if not checks or (is_lost and trained - {check.attempt for check in checks}):
        return None
    worst = max(checks, key=lambda check: (not check.ok, _or_inf(check.max_rel_err)))
    return Parity(worst.ok, finite(worst.max_rel_err), worst.worst, dict(worst.tensors))


def _final(events: Sequence[TrialEvent]) -> FinalEvent | None:
    """The last attempt's final event; None if it has none."""
    final: FinalEvent | None = None
    for event in events:
        if isinstance(event, AttemptEvent):
            final = None
        elif isinstance(event, FINAL):
            final = event
    return final


def _status(final: FinalEvent | None, attempts: Sequence[AttemptEvent]) -> Status:
    match final:
        case ResultEvent():
            return "finished"
        case FailedEvent():
            return "failed"
        case InterruptedEvent():
            return "interrupted"
        case None:
            return "interrupted" if attempts else "pending"


def _origin(events: Sequence[TrialEvent]) -> dict[str, Any] | None:
    """Which trial this one goes on from, after which epoch, and in which other run; None if its kept epochs are its own.

    An attempt that starts afresh, such as after a damaged checkpoint, undoes it.
    """
    origin: dict[str, Any] | None = None
    for event in events:
        if isinstance(event, ContinuedEvent):
            origin = {"trial": event.from_trial, "epoch": event.from_epoch}
            origin |= {"run": event.from_run} if event.from_run else {}
        elif isinstance(event, AttemptEvent) and not event.resumed_epoch:
            origin = None
    return origin


def _withheld(trial: Trial, parity: Parity | None) -> str | None:
    if parity is None:
        return "parity was not checked" if trial.parity.gate else "the parity gate is off (parity.gate: false)"
    return None if parity.ok else f"parity failed at {parity.worst}"


def _split(epochs: Sequence[EpochEvent]) -> tuple[list[int], list[EpochEvent]]:
    """The numbers of the warm-up epochs (the first of every attempt), and the epochs to take medians over."""
    first = sorted({epoch.attempt: index for index, epoch in reversed(list(enumerate(epochs)))}.values())
    steady = [epoch for index, epoch in enumerate(epochs) if index not in first]
    return [epochs[index].epoch for index in first], steady or list(epochs)


def _median(epochs: Sequence[EpochEvent], name: Literal["epoch_s", "img_per_s", "joules"]) -> float | None:
    values = [value for epoch in epochs if (value := getattr(epoch, name)) is not None]
    return statistics.median(values) if values else None


def _epoch_record(event: EpochEvent, is_warmup: bool, withheld: bool) -> dict[str, Any]:
    hidden = ("kind", "trial", "checkpoint", "files", *(_TIMINGS if withheld else ()))
    return {name: value for name, value in event.to_json().items() if name not in hidden} | {"warmup": is_warmup}


def _said(events: Iterable[TrialEvent]) -> list[str]:
    """Each warning of the trial once, in order of first appearance."""
    return list(dict.fromkeys(event.message for event in events if isinstance(event, WarningEvent)))


def _stopped(trial: Trial) -> list[str]:
    if trial.train.stop.images != "test":
        return []
    said = "stopped by its error on the test images"
    if other := trial.data.test_from:
        return [
            f"{said} of {trial.data.name} (train.stop.on: test), so that on those of {other} is not independent of it"
        ]
    return [f"{said} (train.stop.on: test), so that error is not one of unseen images"]


def _found(
    epochs: Sequence[EpochEvent], timed: Sequence[EpochEvent], warmup: Sequence[int], result: ResultEvent | None
) -> list[str]:
    """Doubts that follow from the events themselves."""
    found: list[str] = []
    if result and timed and all(epoch.epoch in warmup for epoch in timed):
        found.append("timed on warm-up epochs only: no attempt ran a second epoch; use train.epochs of 2 or more")
    if all(epoch.epoch not in warmup for epoch in timed):
        seconds = [epoch.epoch_s for epoch in timed]
        rise = drift(seconds)
        if rise is not None:
            found.append(f"its epochs became {rise:.0%} slower from the first third to the last: heat, or other load")
        advice = (
            f"train more epochs (-s train.epochs={max(FEWEST + 1, 2 * len(epochs))}) on a machine with no other load"
        )
        found += [doubt] if (doubt := wide(seconds, "an epoch's time", advice)) else []
    lost = [str(epoch.epoch) for epoch in epochs if finite(epoch.train_loss) is None]
    if lost:
        found.append(f"the training loss was not a finite number in epoch {', '.join(lost)}: the training diverged")
    is_unsound = bool(result and result.audit and result.audit["ok"] is False)
    if result and result.test_images and not is_unsound and finite(result.test_loss) is None:
        found.append("the test loss is not a finite number")
    return found


def _or_inf(value: float | None) -> float:
    return float("inf") if finite(value) is None else float(value or 0)


def finished_trials(out: Path) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Every finished trial below the output folder, with its result; unreadable ones are skipped."""
    for path in sorted(out.glob("*/trials/*/result.json")):
        result = read_json(path)
        if result and result.get("status") == "finished" and is_sound(path):
            try:
                trial = Trial.model_validate_json(without_check((path.parent / "trial.json").read_bytes()))
            except (OSError, ValueError):
                continue
            yield trial, schema.upgraded("result", result)
