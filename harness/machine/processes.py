"""Processes as the kernel sees them: state, parent, processor time. Without /proc (macOS), nothing is known."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Process:
    """One moment of a process."""

    pid: int
    name: str
    state: str  # a letter: R runs, S sleeps, D waits for a device, T or t is stopped, Z has ended
    parent: int
    start: int  # when it began, in ticks since the machine did: with the id, it names one process for ever
    cpu_s: float  # of all its threads, and of its children that have been waited for

    @property
    def is_stopped(self) -> bool:
        """By SIGSTOP or the like, or by a debugger."""
        return self.state in "Tt"

    @property
    def has_ended(self) -> bool:
        return self.state in "ZX"


def look(pid: int) -> Process | None:
    """The process, or None if there is none."""
    return _read(_PROC / str(pid) / "stat")


def table() -> dict[int, Process]:
    """Process id -> process, for all of this machine that can be seen."""
    found = (_read(entry / "stat") for entry in _PROC.glob("[0-9]*"))
    return {process.pid: process for process in found if process}


def descendants(pids: Collection[int], among: Mapping[int, Process]) -> dict[int, Process]:
    """The processes that those of `pids` have started, and what these have started, and so on."""
    found: dict[int, Process] = {}
    parents = set(pids)
    while more := {p.pid: p for p in among.values() if p.parent in parents and p.pid not in found}:
        found |= more
        parents = set(more)
    return found


def is_busy(pid: int) -> bool:
    """Whether one of its threads computes, or waits for a disk."""
    threads = (_read(entry / "stat") for entry in _PROC.glob(f"{pid}/task/[0-9]*"))
    return any(thread.state in "RD" for thread in threads if thread)


def kill(processes: Iterable[Process]) -> None:
    """Sends SIGKILL to each that is still the same process."""
    for process in processes:
        now = look(process.pid)
        if now and now.start == process.start:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def _read(path: Path) -> Process | None:
    try:
        head, _, tail = path.read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    number, _, name = head.partition(" (")
    cpu_s = sum(map(int, fields[11:15])) / _TICKS_PER_S
    return Process(int(number), name, fields[0], int(fields[1]), int(fields[19]), cpu_s)
