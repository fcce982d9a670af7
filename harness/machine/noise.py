"""What makes a timing doubtful: other load, throttling, drift, too few samples; and what to do about it."""

from __future__ import annotations

import math
import os
import re
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.machine import cgroups
from harness.machine.topology import beside
from harness.stats import FEWEST, median_interval

_OTHERS, _STOLEN, _STOPPED = 0.1, 0.05, 0.01  # shares of the cores' time above which a timing is doubtful
_DRIFT = 0.1  # from the first third to the last
_NORMAL = 1.96  # 2.5% of a normal distribution lie above it
_WIDE = 0.05  # half the interval over the median
_SPREAD = 0.15  # of too few values for an interval
_SHORTEST_S = 2.0  # total observed time; below it, the counters' 10 ms resolution and startup noise dominate
_IDLE = (3, 4)  # columns of /proc/stat without work: idle, iowait
_STEAL = 7


@dataclass(frozen=True)
class Machine:
    """Counters at one moment; None if the platform does not tell."""

    time_s: float
    own_cpu_s: float  # of this process, all threads
    busy_s: float | None  # of the cores, by any process
    stolen_s: float | None  # of the cores, by the hypervisor
    throttled: int | None  # how often a core or its package was throttled for heat
    mhz: float | None  # the cores' mean clock
    beside_s: float | None = None  # how long the other hyperthreads of the same physical cores were busy
    stops: int | None = None  # how often a container's CPU quota stopped its processes
    stopped_s: float | None = None  # and for how long


@dataclass(frozen=True)
class Observation:
    """What happened during a timed call. Shares are of the cores' total time."""

    wall_s: float
    others: float | None = None  # share used by other processes
    stolen: float | None = None  # share that the hypervisor withheld
    throttled: int | None = None
    mhz: float | None = None
    beside: float | None = None  # share of the cores' time during which their other hyperthreads were busy
    stops: int | None = None
    stopped: float | None = None  # share of the time during which a CPU quota stopped it

    def __add__(self, later: Observation) -> Observation:
        """What happened during both calls."""
        both = (self, later)
        throttled = None if None in (self.throttled, later.throttled) else sum(each.throttled or 0 for each in both)
        stops = None if None in (self.stops, later.stops) else sum(each.stops or 0 for each in both)
        return Observation(
            self.wall_s + later.wall_s, _share(both, "others"), _share(both, "stolen"), throttled, later.mhz,
            _share(both, "beside"), stops, _share(both, "stopped"),
        )  # fmt: skip


def machine(
    cores: Collection[int], proc: Path = Path("/proc"), sys: Path = Path("/sys"), root: Path = cgroups.ROOT
) -> Machine:
    """The counters of `cores` now."""
    busy_s = stolen_s = beside_s = None
    neighbours = beside(cores, sys)
    with suppress(OSError, ValueError, IndexError):
        rows = re.findall(r"^cpu(\d+) (.+)$", (proc / "stat").read_text(), re.MULTILINE)
        ticks = {int(core): [int(value) for value in row.split()[:8]] for core, row in rows}
        if {*cores} <= ticks.keys() and any(any(ticks[core]) for core in cores):
            hertz = os.sysconf("SC_CLK_TCK")
            stolen_s = sum(ticks[core][_STEAL] for core in cores) / hertz
            busy_s = sum(map(_busy, (ticks[core] for core in cores))) / hertz
            beside_s = sum(map(_busy, (ticks[core] for core in neighbours if core in ticks))) / hertz
    stops, stopped_s = cgroups.throttling(root) or (None, None)
    return Machine(
        time.monotonic(), time.process_time(), busy_s, stolen_s, _throttled(cores, sys), _mhz(cores, sys),
        beside_s if neighbours else None, stops, stopped_s,
    )  # fmt: skip


def _busy(ticks: Sequence[int]) -> int:
    """Ticks of work in a row of /proc/stat."""
    return sum(ticks) - sum(ticks[i] for i in _IDLE) - ticks[_STEAL]


def between(before: Machine, after: Machine, cores: int) -> Observation:
    """What happened between the two moments."""
    wall_s = after.time_s - before.time_s
    total_s = max(wall_s * cores, 1e-9)
    others = stolen = None
    if before.busy_s is not None and after.busy_s is not None:
        others = (after.busy_s - before.busy_s - (after.own_cpu_s - before.own_cpu_s)) / total_s
    if before.stolen_s is not None and after.stolen_s is not None:
        stolen = (after.stolen_s - before.stolen_s) / total_s
    counted = before.throttled is not None and after.throttled is not None
    throttled = (after.throttled or 0) - (before.throttled or 0) if counted else None
    beside_s, stops, stopped_s = (
        None if now is None or then is None else now - then
        for then, now in (
            (before.beside_s, after.beside_s),
            (before.stops, after.stops),
            (before.stopped_s, after.stopped_s),
        )
    )
    return Observation(
        wall_s, others and max(0.0, others), stolen, throttled, after.mhz,
        None if beside_s is None else beside_s / total_s,
        None if stops is None else int(stops),
        None if stopped_s is None else stopped_s / max(wall_s, 1e-9),
    )  # fmt: skip


def doubts(observed: Sequence[Observation], who: Callable[[], str | None] | None = None) -> list[str]:
    """The reasons, if any, to doubt these timings: one sentence each, with what to do.

    `who`, if given, is asked which other processes ran meanwhile.
    """
    if sum(each.wall_s for each in observed) < _SHORTEST_S:
        return []
    found: list[str] = []
    others, stolen, beside, stopped = (_share(observed, name) for name in ("others", "stolen", "beside", "stopped"))
    if others is not None and others > _OTHERS:
        load = f" (load average {os.getloadavg()[0]:.1f})" if hasattr(os, "getloadavg") else ""
        named = ""
        if who is not None:
            named = (
                f"; most: {names}" if (names := who()) else "; none that can be seen from here: another container's?"
            )
        found.append(
            f"other processes had {others:.0%} of its cores while it was timed{load}{named}: end them, or keep them off "
            "these cores, and measure again"
        )
    if stolen is not None and stolen > _STOLEN:
        found.append(
            f"the hypervisor withheld {stolen:.0%} of its cores' time while it was timed: measure at a quieter time, or on "
            "a machine of its own"
        )
    if beside is not None and beside > _OTHERS:
        found.append(
            f"the other hyperthreads of its cores were busy for {beside:.0%} of the time, which slows it down: end what runs "
            "there, and measure again"
        )
    if stopped is not None and stopped > _STOPPED:
        stops = sum(each.stops or 0 for each in observed)
        found.append(
            f"the container's CPU quota stopped it {stops} times, for {stopped:.0%} of the time: raise the quota, or lower "
            "resources.cpus"
        )
    if throttled := sum(each.throttled or 0 for each in observed):
        found.append(f"the processor slowed itself down {throttled} times for heat: cool it, or use fewer cores")
    clocks = [each.mhz for each in observed if each.mhz]
    if (fall := drift([-clock for clock in clocks])) is not None:
        found.append(f"the cores' clock fell by {fall:.0%} from the first third to the last: heat, or a limit of power")
    return found


def wide(values: Sequence[float], what: str, advice: str) -> str | None:
    """A sentence if the median of `values` (seconds of `what`) is too uncertain; `advice` says how to get more values."""
    if sum(values) < _SHORTEST_S or len(values) < 2:
        return None
    middle = statistics.median(values)
    if interval := median_interval(values):
        half = (interval[1] - interval[0]) / 2 / middle
        return f"the 95% interval of {what} is ±{half:.0%} wide: {advice}" if half > _WIDE else None
    spread = (max(values) - min(values)) / middle
    few = f"{len(values)} values of {what} spread by {spread:.0%}, too few for an interval (at least {FEWEST})"
    return f"{few}: {advice}" if spread > _SPREAD else None


def drift(values: Sequence[float]) -> float | None:
    """How much `values` rose from their first third to their last; None if it is little, or may be chance.

    Kendall's test for a trend, one-sided at 2.5% by the normal approximation (Kendall 1975, "Rank Correlation Methods").
    """
    count, third = len(values), len(values) // 3
    if third < 2:
        return None
    score = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    rise = (last - first) / abs(first) if first else 0.0
    return rise if rise > _DRIFT and score - 1 > _NORMAL * deviation else None


def _share(observed: Sequence[Observation], name: str) -> float | None:
    """The mean of a share over all calls, weighted by duration."""
    known = [(getattr(each, name), each.wall_s) for each in observed if getattr(each, name) is not None]
    return sum(share * wall_s for share, wall_s in known) / sum(wall_s for _, wall_s in known) if known else None


def _throttled(cores: Collection[int], sys: Path) -> int | None:
    counts = [_number(sys / f"devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count") for core in cores]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if known else None


def _mhz(cores: Collection[int], sys: Path) -> float | None:
    clocks = [_number(sys / f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    known = [clock / 1e3 for clock in clocks if clock]
    return statistics.fmean(known) if known else None


def _number(path: Path) -> float | None:
    with suppress(OSError, ValueError):
        return float(path.read_text())
    return None
