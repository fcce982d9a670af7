"""Follows a job until it ends: its log as it grows, through interruptions of the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from harness.errors import UserError
from harness.jobs.client import ENDED, Jobs, Unreachable

_PERIOD_S = 1.0
_SHARE = 10
"""Of the time, a tenth at most is spent on fetching a log, which is fetched as a whole."""
_GIVEN_UP_S = 600.0
_TOLD_S = 15.0
_RAYS_OWN = "Running entrypoint for job "


class Lost(UserError):
    """The cluster does not answer any more, or knows nothing of the job."""


def follow(jobs: Jobs, id: str, say: Callable[[str], None], note: Callable[[str], None]) -> dict[str, Any]:
    """Says each line of the job's log once; returns what is known of the job once it has ended. Raises `Lost`."""
    shown = 0
    silent_since: float | None = None
    told = False
    while True:
        begun = time.monotonic()
        try:
            info = jobs.info(id)
            log = jobs.log(id) if info else ""
        except Unreachable as error:
            silent_since = silent_since or begun
            silent_s = time.monotonic() - silent_since
            if silent_s > _GIVEN_UP_S:
                raise Lost(f"no answer from {jobs.address} for {_GIVEN_UP_S / 60:.0f} minutes: {error}") from error
            if silent_s > _TOLD_S and not told:
                told = True
                note(
                    f"no answer from {jobs.address} ({error}); asking again, for at most {_GIVEN_UP_S / 60:.0f} minutes"
                )
            time.sleep(_PERIOD_S)
            continue
        if told:
            note(f"{jobs.address} answers again")
        silent_since, told = None, False
        if info is None:
            raise Lost(
                f"{jobs.address} knows no job {id}: its head was started anew. The same command submits it again"
            )
        has_ended = info.get("status") in ENDED
        whole = log if has_ended else log[: log.rfind("\n") + 1]
        for line in whole[shown:].splitlines():
            if not line.startswith(_RAYS_OWN):
                say(line)
        shown = max(shown, len(whole))
        if has_ended:
            return info
        time.sleep(max(_PERIOD_S, _SHARE * (time.monotonic() - begun)))


@contextmanager
def patient() -> Generator[None]:
    """Turns silence into a message for people."""
    try:
        yield
    except Unreachable as error:
        raise UserError(f"the cluster does not answer: {error}. Give the same command again") from error
