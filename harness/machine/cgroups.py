"""Limits of the container, service or job that this process runs in: Linux control groups, versions 1 and 2.

A group's limits hold for all groups within it, so every visible level counts. Functions take the root of the file system,
so that a tree of files can stand for a machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path("/")
_NO_LIMIT = 2**60  # version 1 writes a number near 2**63


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many cores' time this process may use; None without a quota."""
    found: list[float] = []
    for folder in _groups("cpu", root):
        with suppress(ValueError):
            quota, period = _text(folder / "cpu.max").split()
            found.append(int(quota) / int(period))
        with suppress(ValueError):
            quota = int(_text(folder / "cpu.cfs_quota_us"))
            found += [quota / int(_text(folder / "cpu.cfs_period_us"))] if quota > 0 else []
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that this process and the others of its groups may use; None without a limit."""
    return min((limit for _, limit in _memory_limits(root)), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes left of the tightest limit, counting file caches that can be dropped as free; None without a limit."""
    left: list[int] = []
    for folder, limit in _memory_limits(root):
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if used is not None:
            counters = dict(re.findall(r"^(\w+) (\d+)$", _text(folder / "memory.stat"), re.MULTILINE))
            cached = int(counters.get("total_inactive_file") or counters.get("inactive_file") or 0)
            left.append(max(0, limit - max(0, used - cached)))
    return min(left, default=None)


def throttling(root: Path = ROOT) -> tuple[int, float] | None:
    """How often a quota has stopped the groups of this process so far, and for how many seconds; None if not counted."""
    stops, seconds, is_counted = 0, 0.0, False
    for folder in _groups("cpu", root):
        counters = {name: int(count) for name, count in re.findall(r"^(\w+) (\d+)$", _text(folder / "cpu.stat"), re.M)}
        if "nr_throttled" in counters:
            is_counted = True
            stops += counters["nr_throttled"]
            seconds += counters.get("throttled_usec", 0) / 1e6 + counters.get("throttled_time", 0) / 1e9
    return (stops, seconds) if is_counted else None


def _memory_limits(root: Path) -> Iterator[tuple[Path, int]]:
    for folder in _groups("memory", root):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT:
            yield folder, limit


@cache
def _groups(controller: str, root: Path) -> tuple[Path, ...]:
    """The folders of this process's group and of those around it, as far as they can be seen; innermost first."""
    found: list[Path] = []
    mounts = list(_mounts(root))
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        is_second = number == "0" and not controllers
        if not is_second and controller not in controllers.split(","):
            continue
        for kind, options, top, mounted in mounts:
            if kind == "cgroup2" if is_second else kind == "cgroup" and controller in options:
                found += _levels(root / mounted.lstrip("/"), top, group)
                break
    return tuple(dict.fromkeys(found))


def _mounts(root: Path) -> Iterator[tuple[str, list[str], str, str]]:
    """Type, options, the group shown at the top, and the place of every mounted hierarchy."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            yield kind[0], kind[2].split(","), _unescaped(fields[3]), _unescaped(fields[4])


def _levels(mounted: Path, top: str, group: str) -> list[Path]:
    top = top.rstrip("/")
    # A container may show its own group as the top of the mount, and name it as the host does.
    inside = group.removeprefix(top) if group == top or group.startswith(f"{top}/") else ""
    parts = [part for part in inside.split("/") if part]
    if ".." in parts:  # outside of what this namespace shows
        parts = []
    return [mounted.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _unescaped(path: str) -> str:
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), path)


def _number(folder: Path, *names: str) -> int | None:
    for name in names:
        with suppress(ValueError):
            return int(_text(folder / name))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
