"""Which logical cores share a physical one, and whether this process is still on the cores that it was given."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

_SYS, _TASKS = Path("/sys"), Path("/proc/self/task")


def hyperthreads(core: int, sys: Path = _SYS) -> frozenset[int]:
    """The logical cores of the physical core that `core` belongs to; it alone if the platform does not tell."""
    with suppress(OSError, ValueError):
        text = (sys / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
        return frozenset(_listed(text)) | {core}
    return frozenset((core,))


def spread(cores: Collection[int], sys: Path = _SYS) -> list[int]:
    """The cores in the order in which to take them: one of each physical core first, then the second hyperthreads."""
    ranks: dict[int, int] = {}
    taken: dict[frozenset[int], int] = {}
    for core in sorted(cores):
        group = hyperthreads(core, sys)
        ranks[core] = taken[group] = taken.get(group, -1) + 1
    return sorted(cores, key=lambda core: (ranks[core], core))


def physical(cores: Collection[int], sys: Path = _SYS) -> int:
    """How many physical cores these logical cores are."""
    return len({hyperthreads(core, sys) for core in cores})


def beside(cores: Collection[int], sys: Path = _SYS) -> set[int]:
    """The other hyperthreads of the cores' physical cores: what runs there slows these down."""
    return {other for core in cores for other in hyperthreads(core, sys)} - {*cores}


def shared(cores: Collection[int], sys: Path = _SYS) -> str | None:
    """A remark on a timing on these cores, if some are hyperthreads of one physical core."""
    count = physical(cores, sys)
    if count == len(cores):
        return None
    return (
        f"its {len(cores)} cores are hyperthreads of {count} physical core{'s' * (count > 1)}, and slower than as many "
        "physical ones: compare it only with timings of the same kind"
    )


def put_back(cores: Sequence[int], tasks: Path = _TASKS) -> str | None:
    """Returns this process to its `cores` if a library has moved it; a sentence that says from where, else None.

    Threads that a library has bound to some of the cores stay there.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    given = {*cores}
    now = os.sched_getaffinity(0)
    moved = now if now != given else set[int]()
    threads = [int(task.name) for task in tasks.glob("[0-9]*")] if tasks.is_dir() else []
    for thread in (0, *threads):
        with suppress(OSError):  # it has ended, or may not be moved
            found = os.sched_getaffinity(thread)
            if found - given or (thread in (0, os.getpid()) and found != given):
                moved |= found
                os.sched_setaffinity(thread, given)
    if not moved:
        return None
    return f"was moved from its cores ({_ranges(given)}) to {_ranges(moved)} by a library"


def _listed(text: str) -> list[int]:
    """The numbers of a list such as "0-3,8"."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _ranges(cores: Collection[int]) -> str:
    """The other way round."""
    text = ",".join(map(str, sorted(cores)))
    for match in re.finditer(r"\d+(?:,\d+)+", text):
        numbers = [int(number) for number in match[0].split(",")]
        if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
            text = text.replace(match[0], f"{numbers[0]}-{numbers[-1]}")
    return text
