"""Which processes had the processor while something was timed. Counters are read before and after, never in between."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.machine.claims import user

_SHOWN, _LEAST = 3, 0.05  # processes, and the share of one core below which none is worth naming


@dataclass(frozen=True)
class Used:
    """What a process has used: seconds on any core; `start` tells it from a later one of the same id."""

    name: str
    start: int
    cpu_s: float


def usage(proc: Path = Path("/proc")) -> dict[int, Used]:
    """Every process that can be seen, this one left out; empty where there is no /proc."""
    found: dict[int, Used] = {}
    hertz = os.sysconf("SC_CLK_TCK")
    for entry in proc.glob("[0-9]*"):
        if entry.name == str(os.getpid()):
            continue
        with suppress(OSError, ValueError, IndexError):
            head, _, tail = (entry / "stat").read_text(errors="replace").rpartition(")")
            fields = tail.split()
            name = "".join(each if each.isprintable() else "?" for each in head.partition("(")[2])
            found[int(entry.name)] = Used(name, int(fields[19]), (int(fields[11]) + int(fields[12])) / hertz)
    return found


def busiest(before: dict[int, Used], wall_s: float, cores: Collection[int], proc: Path = Path("/proc")) -> str | None:
    """The processes that used most since `before`, `wall_s` seconds ago, of those that may run on `cores`; None: none.

    "python (process 71, user alice) 93% of a core"
    """
    shares: dict[int, float] = {}
    now = usage(proc)
    for pid, used in now.items():
        earlier = before.get(pid)
        since = earlier.cpu_s if earlier and earlier.start == used.start else 0.0
        share = (used.cpu_s - since) / max(wall_s, 1e-9)
        if share >= _LEAST and _may_run(pid, cores):
            shares[pid] = share
    most = sorted(shares, key=lambda pid: -shares[pid])[:_SHOWN]
    told = [f"{now[pid].name} (process {pid}{_owner(pid, proc)}) {shares[pid]:.0%} of a core" for pid in most]
    more = f" and {len(shares) - len(most)} more" if len(shares) > len(most) else ""
    return ", ".join(told) + more if told else None


def _may_run(pid: int, cores: Collection[int]) -> bool:
    with suppress(OSError, AttributeError):
        return not cores or bool({*cores} & os.sched_getaffinity(pid))
    return False  # it has ended


def _owner(pid: int, proc: Path) -> str:
    with suppress(OSError):
        return f", {user((proc / str(pid)).stat().st_uid)}"
    return ""
