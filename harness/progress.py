"""How far something that takes long has come: said by whoever does it, shown by whoever was asked to, else by nobody.

It depends on nothing, so that any room can say it. `capsbench` shows it (`harness.views.progress`); a program that imports
capsbench sees none of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Literal, Protocol, TypeVar

_RECENT_S = 10.0  # over which the rate of bytes is taken: networks and disks change
_Item = TypeVar("_Item")


class Task:
    """Something that has begun and not yet ended. Numbers may be changed from any thread."""

    def __init__(self, title: str, total: float | None, unit: Literal["", "B"], in_logs_alone: bool) -> None:
        self.title, self.total, self.unit, self.in_logs_alone = title, total, unit, in_logs_alone
        self.began = self._since = self._changed = time.monotonic()
        self.done = self._base = 0.0
        self._is_based = False
        self._recent: deque[tuple[float, float]] = deque([(self.began, 0.0)])
        self._to_come: dict[str, int] = {}
        self._taken: dict[str, list[float]] = {}

    def expect(self, kinds: Mapping[str, int]) -> None:
        """Kind -> how many steps: steps of one kind take about as long as each other, but not as those of another."""
        self._to_come = dict(kinds)
        self.total = float(sum(kinds.values()))

    def advance(self, by: float = 1.0, kind: str = "") -> None:
        """So much more has been done; of a kind that was expected, one step."""
        now = time.monotonic()
        if kind in self._to_come:
            self._to_come[kind] = max(0, self._to_come[kind] - 1)
            self._taken.setdefault(kind, []).append(now - self._changed)
        self._note(self.done + by, now)

    def reached(self, done: float, total: float | None) -> None:
        """So much has been done of so much; what was there at the beginning says nothing of the rate."""
        self.total, now = total, time.monotonic()
        if self._is_based:
            self._note(done, now)
        else:
            self._is_based, self._base, self.done = True, done, done
            self._since = self._changed = now
            self._recent = deque([(now, done)])

    def _note(self, done: float, now: float) -> None:
        self.done, self._changed = done, now
        self._recent.append((now, done))
        while len(self._recent) > 2 and self._recent[1][0] < now - _RECENT_S:
            self._recent.popleft()

    def rate(self) -> float | None:
        """Units per second, lately; None if nothing has been done yet."""
        (since, before), (now, done) = self._recent[0], self._recent[-1]
        return (done - before) / (now - since) if now > since and done > before else None

    def left_s(self) -> float | None:
        """Seconds to the end; None if that cannot be told yet."""
        passed = time.monotonic() - self._changed
        if self._to_come:
            known = [seconds for each in self._taken.values() for seconds in each]
            if not known:
                return None
            mean = {kind: sum(each) / len(each) for kind, each in self._taken.items()}
            other = sum(known) / len(known)
            left = sum(count * mean.get(kind, other) for kind, count in self._to_come.items())
            return max(0.0, left - passed)
        if self.total is None or self.done <= self._base:
            return None
        if self.unit:
            rate = self.rate()
            return (self.total - self.done) / rate if rate else None
        each = (self._changed - self._since) / (self.done - self._base)
        return max(0.0, each * (self.total - self.done) - min(passed, each))


class Display(Protocol):
    """Shows tasks. Those that begin within another one end before it."""

    def begun(self, task: Task) -> None: ...

    def ended(self, task: Task) -> None: ...


_made: list[Callable[[], Display]] = []
_held: list[bool] = []
_display: list[Display] = []


def shown_by(make: Callable[[], Display] | None) -> None:
    """From here on tasks are shown by what `make` returns, which is called when the first one begins; None: by nobody."""
    _display.clear()
    _made[:] = [make] if make else []


def hold(is_held: bool) -> None:
    """Whether tasks that begin are shown by nobody for now, since something else is on the screen."""
    _held[:] = [True] if is_held else []


@contextmanager
def task(
    title: str, total: float | None = None, unit: Literal["", "B"] = "", *, in_logs_alone: bool = False
) -> Generator[Task]:
    """Something that takes long, for the duration of the `with` block.

    Args:
        title: what is being done: "hashing files".
        total: steps or bytes in all; None: not known.
        unit: "B" for bytes.
        in_logs_alone: whether a terminal shows something else of it.
    """
    made = Task(title, total, unit, in_logs_alone)
    if not _made or _held:
        yield made
        return
    if not _display:
        _display.append(_made[0]())
    shown = _display[0]
    shown.begun(made)
    try:
        yield made
    finally:
        shown.ended(made)


def track(items: Iterable[_Item], title: str, total: int | None = None) -> Iterator[_Item]:
    """The items, each a step of a task of that title."""
    count = total if total is not None else len(items) if isinstance(items, Sized) else None
    with task(title, count) as found:
        for item in items:
            yield item
            found.advance()
