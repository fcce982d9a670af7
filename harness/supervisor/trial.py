"""One attempt: a separate worker process, from its environment to its last event. This is the worker's supervisor."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.cost.limits import out_of_memory
from harness.errors import of_the_disk, starved
from harness.events import FINAL, TRIAL, EpochEvent, FailedEvent, FinalEvent, InterruptedEvent, TrialEvent
from harness.machine.environment import memory_bytes, out_of_memory_kills
from harness.spec.trial import Trial
from harness.supervisor.child import GRACE_S, started, unusable
from harness.supervisor.seat import Seat, worker_environment

_ON_EVERY_NODE = "an environment must be at the same path on every node: in a folder that they share, or made on each"
_NEARLY_ALL = 0.7  # of the memory: a worker killed while using this much was killed for it


def run_attempt(
    job: Mapping[str, Any],
    seat: Seat,
    emit: Callable[[TrialEvent], None],
    log_path: Path,
    scratch: Path,
    checkpoint: Path | None,
    *,
    stop: threading.Event | None = None,
) -> None:
    """Runs one attempt to its end. `emit` gets every event, with "trial" and "attempt" added; the last is a final one.

    An "epoch" event is acknowledged, and the next epoch begins, once `emit` has returned. A worker that dies makes a
    "failed" event with the cause in words; `stop`, once set, ends the worker and makes that "interrupted".

    Args:
        job: `executor.Job.document()`: "trial", "attempt", "resumed_epoch", "recorded", "environ", "paths",
            "cwd".
        log_path: gets all that the worker prints; overwritten.
        scratch: existing folder in which the worker leaves checkpoints and weights.
        checkpoint: where to resume; for epoch 0, the weights to start from; None starts from random ones.

    Raises what `emit` raises, and `KeyboardInterrupt`, after the worker has ended.
    """
    trial = Trial.model_validate_json(json.dumps(job["trial"]))

    def tell(event: TrialEvent) -> None:
        emit(event.stamped(time.time()).of(trial.id, job["attempt"]))

    document = {
        "trial": job["trial"],
        "cores": list(seat.cores),
        "resumed_epoch": job["resumed_epoch"],
        "scratch": str(scratch),
        "checkpoint": str(checkpoint) if checkpoint else None,
        "recorded": job["recorded"],
        "paths": job["paths"],
    }
    try:
        log_path.touch()
    except OSError as error:
        if not of_the_disk(error):
            raise
        return tell(FailedEvent.of_disk(error))
    env = worker_environment(trial, seat, {**os.environ, **job["environ"]})
    kills = out_of_memory_kills()
    ended = False
    where = trial.interpreter
    if where and (cause := unusable(where, env)):
        tell(FailedEvent(cause=cause, error="NoInterpreter", hint=_ON_EVERY_NODE))
        return
    with started("harness.worker.trial", TRIAL, document, env, log_path, interpreter=where, cwd=job["cwd"]) as worker:
        try:
            deadline: float | None = None
            for event in worker.events:
                if stop is not None and stop.is_set() and deadline is None:
                    worker.send(signal.SIGTERM)
                    deadline = time.monotonic() + GRACE_S
                if deadline is not None and time.monotonic() > deadline:
                    break
                if isinstance(event, TrialEvent):
                    tell(event)
                    ended = ended or isinstance(event, FINAL)
                    if isinstance(event, EpochEvent):
                        worker.say("ack")
            interrupted = deadline is not None
            code = worker.end(None)
            if not ended:
                tell(InterruptedEvent() if interrupted else _death(trial, code, log_path, worker.peak_bytes, kills))
        except KeyboardInterrupt:
            worker.end(signal.SIGTERM)
            if not ended:
                tell(InterruptedEvent())
            raise


def _death(trial: Trial, code: int, log_path: Path, peak_bytes: int, kills_before: int | None) -> FinalEvent:
    """The "failed" event of a worker that ended without saying why."""
    log = _tail(log_path)
    error = signal.Signals(-code).name if code < 0 else "SystemExit"
    cause = f"worker was killed by {error}" if code < 0 else f"worker exited with code {code} and no result"
    limit = memory_bytes()
    if _killed_for_memory(error, peak_bytes, limit, kills_before) or starved(log):
        verdict = out_of_memory(trial, cause, peak_bytes, limit)
        return FailedEvent(cause=verdict.cause, error=error, hint=verdict.hint)
    hint = None
    if error == "SIGKILL":
        verdict = out_of_memory(trial, cause, peak_bytes, limit)
        cause = f"{cause}, by hand or for memory{verdict.cause.rpartition(cause)[2]}"
        hint = f"if memory ran out (see dmesg): {verdict.hint}; or run fewer trials at once"
    if last := next((line.strip()[:300] for line in reversed(log.split("\n")) if line.strip()), ""):
        cause += f"; last line of its log: {last}"
    return FailedEvent(cause=cause, error=error, hint=hint)


def _killed_for_memory(error: str, peak_bytes: int, limit_bytes: int | None, kills_before: int | None) -> bool:
    """Whether the kernel sent a SIGKILL: its counter rose, or the worker had nearly all of the memory."""
    if error != "SIGKILL":
        return False
    kills = out_of_memory_kills()
    counted = kills is not None and kills_before is not None and kills > kills_before
    return counted or (limit_bytes is not None and peak_bytes >= _NEARLY_ALL * limit_bytes)


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 4096))
        return log.read().decode(errors="replace")
