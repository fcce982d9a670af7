"""The clock and the memory gauge of a worker process."""

from __future__ import annotations

import resource
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Phases:
    """Seconds of named phases. An implementation's calls block until its device is done, so wall time is the phase's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


def reset_peak_rss() -> None:
    """Forgets the peak so far (Linux; elsewhere the peak stays the process's whole life's)."""
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
