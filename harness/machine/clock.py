"""The clock and the memory gauge of a worker process."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.machine.energy import Meter
from harness.machine.noise import Observation, between, machine

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
T = TypeVar("T")


class Phases:
    """Seconds of named phases. An implementation's calls block until its device is done, so wall time is exact."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


@dataclass(frozen=True)
class Sample:
    """One timed call: its seconds, its energy if that can be read, and what the machine did meanwhile."""

    seconds: float
    joules: float | None
    observation: Observation

    def __add__(self, later: Sample) -> Sample:
        """The sum of both calls."""
        joules = None if self.joules is None or later.joules is None else self.joules + later.joules
        return Sample(self.seconds + later.seconds, joules, self.observation + later.observation)


class Stopwatch:
    """Times calls of this process on its own cores and GPUs."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._meter = Meter([name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name])

    def __call__(self, work: Callable[[], T]) -> tuple[Sample, T]:
        """Runs `work`, which blocks until its device is done. The counters are read outside the timed region."""
        energy, before = self._meter.read(), machine(self._cores)
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        observation = between(before, machine(self._cores), len(self._cores))
        return Sample(seconds, self._meter.joules(energy, self._meter.read()), observation), result


def reset_peak_rss() -> None:
    """Forgets the peak so far (on Linux; elsewhere the peak remains that of the whole process).

    Freed memory is first returned to the system: a trial's allocator keeps it (`harness.supervisor.trial`), and earlier
    memory, above all that of the parity gate, must not count towards the later peak.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")


def peak_rss_bytes() -> int:
    """Peak resident memory of this process since `reset_peak_rss`."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
