"""Whether a worker still lives, seen from outside.

A worker is not asked: a thread of its own could answer while the training is dead-locked, and could not while a library
holds Python's lock for minutes of honest work. The kernel knows better, and to ask it costs the worker nothing: does it
use processor time, is it stopped? Only what uses processor time and never gets anywhere is left to a second, generous
limit, from the length of its epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.cost.pace import Pace
from harness.events import EpochEvent, Event, ReadyEvent
from harness.machine.processes import descendants, is_busy, look, table

_LOOK_S = 1.0  # between two looks
_NOTICED_S = 2.0  # of the time between two looks; in the rest, the supervisor itself was stopped, or busy
_CHILDREN_S = 5.0  # of standing still, after which its children are looked at too: a compiler may work for it
_ASLEEP = 0.01  # a worker that uses less than this share of a core stands still

STOPPED_S = 60.0
_STILL_S = 300.0
_STILL_BEFORE_S = 900.0  # before training: it may wait for data that another process prepares
_FIRST_S = 1800.0  # at least, for an epoch that computes; before there was one
_EPOCH_S = 600.0  # at least, for any later one
_UNKNOWN_S = 4 * 3600.0  # for the first epoch, if there is no estimate
_TIMES = 10.0  # what was expected: a machine may be that much busier than it was
_TIMES_GIVEN = 3.0  # the same, where the suite sets the limit


class Watch:
    """Follows one worker; the limits are `hang_s` of the suite, or else those above.

    Args:
        pid: None for a worker on another machine, of which its events alone are known.
        on_gpu: standing still then means nothing: the device may compute meanwhile.
        margin_s: is added to what a worker that computes is given.
    """

    def __init__(
        self,
        pid: int | None,
        hang_s: float | None,
        pace: Pace,
        *,
        on_gpu: bool = False,
        margin_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid, self._hang_s, self._pace, self._on_gpu, self._clock = pid, hang_s, pace, on_gpu, clock
        self._margin_s = margin_s
        self._longest_s = pace.epoch_s
        self._is_training, self._is_first = False, True
        self._silent_s = self._still_s = self._stopped_s = 0.0
        self._looked = clock()
        self._cpu_s = 0.0

    def heard(self, event: Event) -> None:
        """An event has come from it."""
        if isinstance(event, ReadyEvent):
            self._is_training = True
        elif isinstance(event, EpochEvent):
            if not self._is_first:
                self._longest_s = max(self._longest_s or 0.0, self._silent_s)
            self._longest_s = max(self._longest_s or 0.0, event.epoch_s + event.eval_s)
            self._is_first = False
        self._silent_s = self._still_s = self._stopped_s = 0.0
        self._looked = self._clock()

    def look(self) -> str | None:
        """Call it often. Once the worker hangs, says how, in a clause: "it has been stopped for 60 s ..."."""
        passed = self._clock() - self._looked
        if passed < _LOOK_S:
            return None
        self._looked += passed
        passed = min(passed, _NOTICED_S)
        self._silent_s += passed
        self._observe(passed)
        return self._verdict()

    def _observe(self, passed_s: float) -> None:
        process = None if self._pid is None else look(self._pid)
        if process is None:
            return
        self._stopped_s = self._stopped_s + passed_s if process.is_stopped else 0.0
        used_s, self._cpu_s = process.cpu_s - self._cpu_s, process.cpu_s
        is_still = not self._on_gpu and used_s <= _ASLEEP * passed_s and not is_busy(process.pid)
        if is_still and self._still_s >= _CHILDREN_S:
            is_still = not any(child.state in "RD" for child in descendants([process.pid], table()).values())
        self._still_s = self._still_s + passed_s if is_still else 0.0

    def _verdict(self) -> str | None:
        if self._stopped_s >= (limit_s := self._hang_s or STOPPED_S):
            return f"it has been stopped (SIGSTOP, or a debugger) for {self._stopped_s:.0f} s; {self._told(limit_s)}"
        limit_s = self._hang_s or (_STILL_S if self._is_training else _STILL_BEFORE_S)
        if self._still_s >= limit_s:
            return f"it has stood still, without any processor time, for {self._still_s:.0f} s; {self._told(limit_s)}"
        if self._silent_s >= (limit_s := self.limit_s() + self._margin_s):
            what = "no epoch has ended" if self._is_training else "it has not begun to train"
            return f"{what} for {self._silent_s:.0f} s, though it uses processor time; {self._told(limit_s)}"
        return None

    def limit_s(self) -> float:
        """How many seconds may pass until the next event of a worker that computes."""
        if self._longest_s is not None:
            expected_s = self._longest_s * self._pace.test_epochs
            if self._is_first:  # after a resume: it starts and compiles again
                expected_s += self._pace.first_s or 0.0
            if self._hang_s:
                return max(self._hang_s, _TIMES_GIVEN * expected_s, _FIRST_S if self._is_first else 0.0)
            return max(_FIRST_S if self._is_first else _EPOCH_S, _TIMES * expected_s)
        if self._pace.first_s is None:
            return max(self._hang_s or 0.0, _UNKNOWN_S)
        return max(self._hang_s or 0.0, _FIRST_S, _TIMES * self._pace.first_s)

    def _told(self, limit_s: float) -> str:
        return (
            f"the limit is {limit_s:.0f} s (runtime.hang_s: {'auto' if self._hang_s is None else f'{self._hang_s:g}'})"
        )
