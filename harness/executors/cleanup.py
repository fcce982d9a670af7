"""Cleans up after a driver, however it ended: a process that waits for its end, run as `python -I -S cleanup.py`.

Ray's own processes die with a killed driver, except two agents of its raylet: they spend a minute reporting the loss to
a server that is gone too. This ends them at once, and removes the driver's temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_SERVERS = ("raylet", "gcs_server")


class Guardian:
    """Guards `folder` until this process ends, and what this process's raylet has started so far."""

    def __init__(self, folder: Path) -> None:
        marks = [f"{pid}:{start}" for pid, start in _agents(os.getpid()).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder), *marks], stdin=subprocess.PIPE, start_new_session=True
        )

    def release(self) -> None:
        """Cleans up now."""
        self._process.communicate()


def end_children() -> None:
    """Ends what Ray has started from this process so far, and what that has started; where there is no /proc, nothing."""
    table = {int(entry.name): found for entry in Path("/proc").glob("[0-9]*") if (found := _stat(entry))}
    chosen = {pid for pid, (name, parent, _) in table.items() if parent == os.getpid() and name in _SERVERS}
    while more := {pid for pid, (_, parent, _) in table.items() if parent in chosen} - chosen:
        chosen |= more
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _main(folder: str, *marks: str) -> None:
    sys.stdin.read()  # returns when the driver ends, which holds the other end of the pipe
    for mark in marks:
        pid, start = map(int, mark.split(":"))
        found = _stat(Path("/proc", str(pid)))
        if found and found[2] == start:  # still the same process
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _agents(driver: int) -> dict[int, int]:
    """Process id -> start time, for the children of `driver`'s raylet; empty if there is no /proc."""
    table = {int(entry.name): found for entry in Path("/proc").glob("[0-9]*") if (found := _stat(entry))}
    raylets = {pid for pid, (name, parent, _) in table.items() if parent == driver and name == "raylet"}
    return {pid: start for pid, (_, parent, start) in table.items() if parent in raylets}


def _stat(entry: Path) -> tuple[str, int, int] | None:
    """Name, parent and start time of a process; None if it has ended."""
    try:
        head, _, tail = (entry / "stat").read_text().rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    return head.partition("(")[2], int(fields[1]), int(fields[19])


if __name__ == "__main__":
    _main(*sys.argv[1:])
