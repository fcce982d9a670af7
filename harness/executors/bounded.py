"""A start that takes no longer than it may, and that Ctrl-C ends: for libraries that wait in their own code."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_GRACE_S = 5.0
"""How long Python code has to end on a signal; after that, compiled code is taken to be waiting."""


class TooLong(BaseException):
    """The time is up. No `Exception`: the code that waits might catch it and go on."""


@contextmanager
def bounded(limit_s: float, message: str, clean: Callable[[], None]) -> Generator[None]:
    """Ends the block after `limit_s` with `TooLong`, on SIGINT or SIGTERM with `KeyboardInterrupt`.

    A signal cannot end compiled code that waits. If the block has not ended soon after, the process does: `clean` is
    called, and `message` printed, or "interrupted". Without effect in threads other than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    woken, wake = os.pipe()
    os.set_blocking(wake, False)

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the rest is for cleaning up
        raise TooLong if number == signal.SIGALRM else KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    had_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    ended = threading.Event()
    guard = threading.Thread(target=_guard, args=(woken, ended, message, clean), daemon=True, name="bounded start")
    guard.start()
    try:
        for number in before:
            signal.signal(number, handle)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended.set()
        signal.set_wakeup_fd(had_wake)
        os.write(wake, b"\0")
        guard.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(woken)


def _guard(woken: int, ended: threading.Event, message: str, clean: Callable[[], None]) -> None:
    """Waits for a signal, and then for the block to end."""
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        select.select([woken], [], [])
        if ended.is_set():
            return
        number = os.read(woken, 1)[0]
    deadline = time.monotonic() + _GRACE_S
    while not ended.is_set():
        if time.monotonic() > deadline:
            clean()
            is_late = number == signal.SIGALRM
            sys.stderr.write(f"capsbench: {message}\n" if is_late else "interrupted\n")
            sys.stderr.flush()
            os._exit(2 if is_late else 130)
        time.sleep(0.05)
