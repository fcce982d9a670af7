"""A worker process from inside: reads its job, pins the process, does the work, reports the end.

`harness.supervisor.child` starts it with its environment set. It reads one line of JSON from stdin (the job) and writes
events, as lines of JSON, to descriptor N: those of the work, then "refused" or "failed" if it raised. After an "epoch"
it waits for a line on stdin, which confirms that the event is durable. stdin stays open as long as the supervisor
lives. stdout and stderr are the log.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from harness.errors import TrialFailed, UserError, of_the_disk, starved
from harness.events import EpochEvent, Event, FailedEvent, InterruptedEvent, WarningEvent
from harness.events.processes import RefusedEvent

_PR_SET_PDEATHSIG = 1
_LONGEST_CAUSE = 500


class Channel:
    """The worker's end of the line to its supervisor."""

    def __init__(self, events_fd: int) -> None:
        os.set_inheritable(events_fd, False)  # a framework's compiler processes must not keep it open
        self._events_fd = events_fd
        self._writing = threading.Lock()
        self._lines: SimpleQueue[str] = SimpleQueue()

    def emit(self, event: Event) -> None:
        """Sends one event; for an "epoch", returns only when the supervisor has made it durable."""
        self._send(event)
        if isinstance(event, EpochEvent):
            self.listen()

    def listen(self) -> str:
        """The supervisor's next line; waits for it."""
        return self._lines.get()

    def watch(self) -> None:
        """Serves stdin and SIGTERM in a thread: a signal handler would have to wait for the framework's current call."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, _ignore)  # needed only to have the wake-up descriptor written to
        signal.set_wakeup_fd(wake)
        threading.Thread(target=self._serve, args=(woken,), daemon=True, name="supervisor").start()

    def _serve(self, woken: int) -> None:
        buffer = b""
        while True:
            ready, _, _ = select.select([0, woken], [], [])
            if woken in ready and signal.SIGTERM in os.read(woken, 64):
                self._send(InterruptedEvent())
                os._exit(128 + signal.SIGTERM)
            if 0 in ready:
                received = os.read(0, 4096)
                if not received:  # the supervisor is gone
                    os._exit(128 + signal.SIGHUP)
                *lines, buffer = (buffer + received).split(b"\n")
                for line in lines:
                    self._lines.put(line.decode())

    def _send(self, event: Event) -> None:
        line = json.dumps(event.stamped(time.time()).to_json()).encode() + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._events_fd, line) :]


def serve(description: str, work: Callable[[dict[str, Any], Channel], None], *, may_refuse: bool = True) -> NoReturn:
    """Runs `work` on the job read from stdin; the exit code is 0 only if it returns.

    The process is pinned to the job's "cores"; its "paths" are where the user's own modules are found. A
    `UserError` makes a "refused" event or, if the work may not refuse, a "failed" one, as any other exception does.
    """
    parser = argparse.ArgumentParser(description=f"{description}; started by capsbench, not by hand.")
    parser.add_argument("--events-fd", type=int, required=True)
    channel = Channel(parser.parse_args().events_fd)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _log(1), _log(2)
    line = io.FileIO(0, closefd=False).readline()  # unbuffered: later lines belong to the thread that serves stdin
    if not line:
        os._exit(128 + signal.SIGHUP)
    job = json.loads(line)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    if sys.platform == "linux":  # even in the middle of a framework's call
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel.watch()  # after the death signal: a supervisor that died earlier shows as the end of stdin
    # Last: a user's folder must not pass for a framework.
    sys.path += [path for path in job.get("paths", ()) if path not in sys.path]
    code = 1
    try:
        work(job, channel)
        code = 0
    except BaseException as error:  # whatever an implementation raises, SystemExit included, ends only this work
        if may_refuse and isinstance(error, UserError):
            channel.emit(RefusedEvent(message=str(error)))
        else:  # told before anything is printed: the log's disk may be full
            channel.emit(explain(error, _out_of_memory(job)))
            traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # a framework's exit handlers and threads can hang or crash


class _Log(io.FileIO):
    """A descriptor of the log. What cannot be written, as on a full disk, is lost, and ends no training."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(memoryview(data).cast("B"))


def _log(descriptor: int) -> io.TextIOWrapper:
    """In UTF-8 whatever the locale: what a framework prints ends no training."""
    raw = io.BufferedWriter(_Log(descriptor, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=descriptor == 2)


def _out_of_memory(job: dict[str, Any]) -> tuple[str, ...]:
    """The exceptions with which the job's implementation reports that memory ran out."""
    from harness import registry

    entry = registry.known(job["trial"]["impl"]) if job.get("trial") else None
    return entry.out_of_memory if entry else ()


def explain(error: BaseException, out_of_memory: Collection[str] = ()) -> FailedEvent:
    """An exception as a "failed" event: a cause in one line, its type, and what to do if that is known.

    `out_of_memory` names exceptions that mean this, in addition to those whose text says so.
    """
    if isinstance(error, TrialFailed):
        return FailedEvent(cause=str(error), error=error.error, hint=error.hint)
    if not isinstance(error, UserError) and (disk := of_the_disk(error)):
        return FailedEvent.of_disk(disk)
    name = type(error).__name__
    text = " ".join(str(error).split())[:_LONGEST_CAUSE]
    if isinstance(error, UserError):
        return FailedEvent(cause=text, error=name, hint=None)
    hint = "not enough memory: lower train.batch (-s train.batch=32), or take a smaller model"
    hint = hint if starved(error, out_of_memory) else None
    cause = f"{name}: {text}".removesuffix(": ")
    return FailedEvent(cause=cause, error=name, hint=hint)


def report_timing_warnings(channel: Channel) -> None:
    """Makes an event of every `TimingWarning`, once per text; other warnings stay in the log."""
    from harness.spec import TimingWarning

    plain = warnings.showwarning
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        plain(message, category, *rest, **more)
        if issubclass(category, TimingWarning) and str(message) not in seen:
            seen.add(str(message))
            channel.emit(WarningEvent(message=str(message)))

    warnings.showwarning = show
    warnings.simplefilter("always", TimingWarning)  # the default shows one warning per place, whatever its text


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    pass
