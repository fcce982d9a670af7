"""A run that cannot go on, such as on a full disk, ends as if it were interrupted: nothing that was recorded is lost."""

from __future__ import annotations

import errno
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress

from harness.errors import Stopped, of_the_disk
from harness.events import FINAL, AttemptEvent, InterruptedEvent
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.journal.room import Room
from harness.spec.trial import Trial


@contextmanager
def stops(room: Room) -> Generator[None]:
    """Raises `Stopped` where a disk refuses something before there is a trial to report."""
    try:
        yield
    except OSError as error:
        if not of_the_disk(error):
            raise
        raise Stopped(
            f"{room.told(error)}. What had finished is kept: after that, give the same command again"
        ) from error


def ended_by(
    cause: str, error: OSError, todo: Sequence[Trial], results: Mapping[str, Result], journal: Journal
) -> dict[str, Result]:
    """The results of the trials that were cut short: recorded as far as the disk takes it."""
    found: dict[str, Result] = {}
    for trial in todo:
        if results[trial.id].status in ("finished", "failed"):
            continue
        with suppress(OSError):
            events = journal.events(trial.id)
            last = next((each for each in reversed(events) if isinstance(each, (*FINAL, AttemptEvent))), None)
            if isinstance(last, AttemptEvent):
                name = errno.errorcode.get(error.errno or 0)
                end = InterruptedEvent(cause=cause, error=name, time=time.time()).of(trial.id, last.attempt)
                events.append(end)
                with suppress(OSError):
                    journal.append(trial.id, end)
            found[trial.id] = summarise(trial, events)
    return found
