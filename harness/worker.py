"""The process a trial runs in: `python -P -m harness.worker --events-fd N`, started by `harness.attempt`.

It reads one line of JSON from stdin (the job), pins itself to its cores, and only then imports NumPy and, through
`harness.trial`, a framework. Events leave as lines of JSON on descriptor N; after each "epoch" event it waits for one
line on stdin, the acknowledgement that the event is durable. stdout and stderr are the attempt's log.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from harness.environment import cpu_model, gpus, memory_bytes
from harness.errors import TrialFailed, UserError, starved

_PR_SET_PDEATHSIG = 1
_REPORTED = ("capsbench", "numpy", "torch", "tensorflow", "tensorflow-cpu", "keras", "jax", "jaxlib", "optax")
_LONGEST_CAUSE = 500


class Channel:
    """The worker's end of the line to its supervisor."""

    def __init__(self, events_fd: int) -> None:
        os.set_inheritable(events_fd, False)  # compiler processes that a framework starts must not keep it open
        self._events_fd = events_fd
        self._writing = threading.Lock()
        self._lines: SimpleQueue[str] = SimpleQueue()

    def emit(self, event: dict[str, Any]) -> None:
        """Sends one event; for an "epoch", returns when the supervisor has made it durable."""
        self._send(event)
        if event["kind"] == "epoch":
            self.listen()

    def listen(self) -> str:
        """The supervisor's next line; waits for it."""
        return self._lines.get()

    def watch(self) -> None:
        """Serves stdin and SIGTERM from a thread: a handler would wait until the framework's current call returns."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, _ignore)  # only so that the wake-up descriptor is written to
        signal.set_wakeup_fd(wake)
        threading.Thread(target=self._serve, args=(woken,), daemon=True, name="supervisor").start()

    def _serve(self, woken: int) -> None:
        buffer = b""
        while True:
            ready, _, _ = select.select([0, woken], [], [])
            if woken in ready and signal.SIGTERM in os.read(woken, 64):
                self._send({"kind": "interrupted"})
                os._exit(128 + signal.SIGTERM)
            if 0 in ready:
                received = os.read(0, 4096)
                if not received:  # the supervisor is gone
                    os._exit(128 + signal.SIGHUP)
                *lines, buffer = (buffer + received).split(b"\n")
                for line in lines:
                    self._lines.put(line.decode())

    def _send(self, event: dict[str, Any]) -> None:
        line = json.dumps({"time": time.time(), **event}).encode() + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._events_fd, line) :]


def main() -> NoReturn:
    """Runs the job read from stdin; the exit code is 0 only after a "result" event."""
    parser = argparse.ArgumentParser(description="Runs one attempt at one trial; started by capsbench, not by hand.")
    parser.add_argument("--events-fd", type=int, required=True)
    events_fd: int = parser.parse_args().events_fd
    line = _read_line()
    if not line:
        os._exit(128 + signal.SIGHUP)
    job = json.loads(line)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    _die_with_supervisor()
    channel = Channel(events_fd)
    channel.watch()  # after the death signal: a supervisor that died before it is noticed as the end of stdin
    code = 1
    try:
        _run(job, channel)
        code = 0
    except BaseException as error:  # whatever an implementation raises, SystemExit included, ends this trial alone
        traceback.print_exc()
        channel.emit({"kind": "failed", **explain(error)})
    # A framework's exit handlers and threads can hang or crash; nothing is left for them to do.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(job: dict[str, Any], channel: Channel) -> None:
    channel.emit(
        {
            "kind": "attempt",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else job["cores"],
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "resumed_epoch": job["resumed_epoch"],
            "versions": _versions(),
        }
    )
    from harness.config import Trial
    from harness.verdict import emulated, refusal

    trial = Trial.model_validate_json(json.dumps(job["trial"]))
    own = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each] if trial.gpus else []
    # The driver has asked the same of its own machine; this may be another node of the cluster.
    if verdict := refusal(trial, memory_bytes(), gpus(own) if own else [], cpu_model()):
        raise TrialFailed(verdict.cause, "Unavailable", verdict.hint)
    if doubt := emulated(trial):
        channel.emit({"kind": "warning", "message": doubt})
    from harness.trial import run_trial

    report_timing_warnings(channel)
    if niceness := os.nice(0):
        channel.emit(
            {
                "kind": "warning",
                "message": f"timed at niceness {niceness}: whatever else runs on {socket.gethostname()} goes first",
            }
        )
    checkpoint = Path(job["checkpoint"]) if job["checkpoint"] else None
    run_trial(trial, channel.emit, Path(job["scratch"]), checkpoint, job["resumed_epoch"], job["recorded"])


def explain(error: BaseException) -> dict[str, str | None]:
    """An exception as fields of a "failed" event: one line of cause, its type, and what to do if that is known."""
    if isinstance(error, TrialFailed):
        return {"cause": str(error), "error": error.error, "hint": error.hint}
    name = type(error).__name__
    text = " ".join(str(error).split())[:_LONGEST_CAUSE]
    if isinstance(error, UserError):
        return {"cause": text, "error": name, "hint": None}
    hint = "not enough memory: lower train.batch (-s train.batch=32), or take a smaller model"
    hint = hint if starved(error) else None
    cause = f"{name}: {text}".removesuffix(": ")
    return {"cause": cause, "error": name, "hint": hint}


def report_timing_warnings(channel: Channel) -> None:
    """Makes an event of every `TimingWarning`, once a text; other warnings stay in the log."""
    from harness.spec import TimingWarning

    plain = warnings.showwarning
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        plain(message, category, *rest, **more)
        if issubclass(category, TimingWarning) and str(message) not in seen:
            seen.add(str(message))
            channel.emit({"kind": "warning", "message": str(message)})

    warnings.showwarning = show
    warnings.simplefilter("always", TimingWarning)  # the default shows a place's warning once, whatever its text


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    pass


def _read_line() -> bytes:
    """One line of stdin, byte by byte: what follows it belongs to the thread that serves stdin."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def _die_with_supervisor() -> None:
    """Asks Linux to kill this process when its supervisor dies, even in the middle of an epoch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _REPORTED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


if __name__ == "__main__":
    main()
