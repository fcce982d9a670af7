"""Who has the cores that a trial waits for: the run as well, where the lease knows the process alone.

A lease's own note names its run, but stands in the user's folder for temporary files: a bench with another one, or of another
user, sees only the process that the kernel names. Its worker writes to the log of an attempt, which tells the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROCESS = re.compile(r"process (\d+)(?: \((?:(?!; process \d).)*?\))? of user [^;,\s]+")
"""As `harness.machine.claims.Holder` is told, whatever its command; the next process is another match."""
_LOG = re.compile(r"(?P<run>.+)/trials/(?P<trial>[^/]+)/attempt-\d+\.log")


def with_runs(message: str) -> str:
    """The message, with the run and the trial of each process that is named without, as far as they can be seen (Linux)."""
    return _PROCESS.sub(lambda found: found[0] + _told(int(found[1])), message)


def _told(pid: int) -> str:
    found = next((seen for log in _logs(pid) if (seen := _LOG.fullmatch(log))), None)
    return f", which runs trial {found['trial']} of {found['run']}" if found else ""


def _logs(pid: int) -> Iterator[str]:
    """Where the process's children write to."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):  # of each of its threads
        listed: list[str] = []
        with suppress(OSError):
            listed = children.read_text().split()
        for child in listed:
            with suppress(OSError):  # it may have ended, which says nothing of the others
                yield str(Path(f"/proc/{child}/fd/1").readlink())
