"""What follows an attempt that was lost: another one, after a pause, or the end of the trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.events import EpochEvent, FailedEvent, InterruptedEvent, TrialEvent, WarningEvent
from harness.weights.whole import recorded

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0

Tell = Callable[[TrialEvent], None]


def pause_s(losses: int) -> float:
    """Seconds before the next attempt, after so many losses: twice as long each time."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** max(0, losses - 1))


def told(attempt: int, how: str, epoch: int) -> str:
    """The warning for a trial that goes on after a loss."""
    where = f"went on after epoch {epoch}" if epoch else "began again"
    return f"attempt {attempt} was lost: {how}; the trial {where}"


def attempts(
    job: Mapping[str, Any],
    once: Callable[[dict[str, Any], Tell], None],
    tell: Tell,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Runs attempts, the first from `job` (`Job.document()`), until one ends other than by a loss, or none is left.

    Args:
        once: runs one attempt, and passes its events to the function given.
        tell: gets the events. For a loss that another attempt follows, "interrupted" instead of "failed", with the cause.
        wait: sleeps for so many seconds; if it returns true, there is no other attempt.
    """
    job = dict(job)
    retries = job["trial"]["runtime"]["retries"]
    while True:
        lost: list[FailedEvent] = []

        def heed(event: TrialEvent, job: dict[str, Any] = job, lost: list[FailedEvent] = lost) -> None:
            if isinstance(event, FailedEvent) and event.is_loss:
                if job["losses"] < retries:
                    lost.append(event)
                    return
                if job["losses"]:
                    event = event.model_copy(update={"cause": f"{event.cause}; {_count(job['losses'])} before"})
            tell(event)
            if isinstance(event, EpochEvent):
                name = event.checkpoint
                there = str(Path(job["folder"]) / name)
                job |= {"resumed_epoch": event.epoch, "checkpoint": there, "recorded": recorded(event, name)}

        once(job, heed)
        if not lost:
            return
        job["losses"] += 1
        cause, pause = lost[0].cause, pause_s(job["losses"])
        for event in (
            WarningEvent(message=told(job["attempt"], cause, job["resumed_epoch"])),
            InterruptedEvent(cause=cause, error=lost[0].error, next_in_s=pause),
        ):
            tell(event.stamped(time.time()).of(job["trial"]["id"], job["attempt"]))
        job["attempt"] += 1
        job["log"] = f"attempt-{job['attempt']}.log"
        if wait(pause):
            return


def _count(losses: int) -> str:
    return "an attempt was lost" if losses == 1 else f"{losses} attempts were lost"
