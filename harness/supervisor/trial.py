"""One attempt: a worker process of its own, from its environment to its last event. This is the worker's supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.cost.limits import out_of_memory
from harness.errors import starved
from harness.events import FINAL, Event
from harness.machine.environment import memory_bytes, out_of_memory_kills
from harness.spec.trial import Trial
from harness.supervisor.seat import Seat, worker_environment

GRACE_S = 5.0  # between asking a worker to end and killing it
_POLL_S = 0.2
_NEARLY_ALL = 0.7  # of the memory: a worker killed when it had that much was killed for it


def run_attempt(
    job: Mapping[str, Any],
    seat: Seat,
    emit: Callable[[Event], None],
    log_path: Path,
    scratch: Path,
    checkpoint: Path | None,
    *,
    python: str = sys.executable,
    stop: threading.Event | None = None,
) -> None:
    """Runs one attempt to its end. `emit` gets every event, with "trial" and "attempt" added, a final one last.

    An "epoch" event is acknowledged, and the next epoch begins, once `emit` has returned. A worker that dies makes a
    "failed" event with the cause in words; `stop`, once set, ends the worker and makes that "interrupted".

    Args:
        job: `executor.Job.document()`: "trial", "attempt", "resumed_epoch", "recorded", "environ", "cwd".
        log_path: where all that the worker prints goes; overwritten.
        scratch: existing folder in which the worker leaves checkpoints and weights.
        checkpoint: where to go on from; of epoch 0, weights to start from; None starts from drawn ones.
        python: the interpreter of the worker.

    Raises what `emit` raises, and `KeyboardInterrupt`, after the worker has ended.
    """
    trial = Trial.model_validate_json(json.dumps(job["trial"]))
    mark = {"trial": trial.id, "attempt": job["attempt"]}
    document = {
        "trial": job["trial"],
        "cores": list(seat.cores),
        "resumed_epoch": job["resumed_epoch"],
        "scratch": str(scratch),
        "checkpoint": str(checkpoint) if checkpoint else None,
        "recorded": job["recorded"],
    }
    env = worker_environment(trial, seat, {**os.environ, **job["environ"]})
    kills = out_of_memory_kills()
    worker = _Worker(python, env, job["cwd"], document, log_path)
    final: str | None = None
    try:
        deadline: float | None = None
        for event in worker.events():
            if stop is not None and stop.is_set() and deadline is None:
                worker.signal(signal.SIGTERM)
                deadline = time.monotonic() + GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                break
            if event is not None:
                emit({**event, **mark})
                final = event["kind"] if event["kind"] in FINAL else final
                if event["kind"] == "epoch":
                    worker.acknowledge()
        interrupted = deadline is not None
        code = worker.end()
        if final is None:
            ending = {"kind": "interrupted"} if interrupted else _death(trial, code, log_path, worker.peak_bytes, kills)
            emit({"time": time.time(), **ending, **mark})
    except KeyboardInterrupt:
        worker.end(signal.SIGTERM)
        if final is None:
            emit({"time": time.time(), "kind": "interrupted", **mark})
        raise
    finally:
        worker.end(signal.SIGKILL)


class _Worker:
    """The worker process and the supervisor's ends of its pipes."""

    def __init__(self, python: str, env: dict[str, str], cwd: str, document: Event, log_path: Path) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._events, events_fd = os.pipe()
        try:
            with log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    # -P: a folder of the working directory must not pass for a framework.
                    [python, "-P", "-m", "harness.worker.trial", "--events-fd", str(events_fd)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(events_fd,),
                    env=env,
                    cwd=cwd if Path(cwd).is_dir() else None,
                    start_new_session=True,  # Ctrl-C at the terminal is the supervisor's to handle
                )
        except BaseException:
            os.close(self._events)
            raise
        finally:
            os.close(events_fd)
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        self._closed = False
        self.peak_bytes = 0
        self._say(json.dumps(document))

    def events(self) -> Iterator[Event | None]:
        """The events as they come, and None whenever there was none for a moment; ends with the worker's life."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            while True:
                self._gauge()
                ended = self._has_ended()  # asked before reading: what it said last is then in the pipe already
                if not selector.select(0 if ended else _POLL_S):
                    if ended:
                        return
                    yield None
                    continue
                received = os.read(self._events, 65536)
                if not received:
                    return
                *lines, buffer = (buffer + received).split(b"\n")  # a line cut short by death is no event
                for line in lines:
                    yield json.loads(line)

    def _gauge(self) -> None:
        """Keeps the largest resident size seen: a process that has been killed can no longer be asked."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)

    def acknowledge(self) -> None:
        self._say("ack")

    def signal(self, number: signal.Signals) -> None:
        if not self._has_ended():
            self._process.send_signal(number)

    def end(self, number: signal.Signals | None = None) -> int:
        """Sends the signal, waits, kills what is left of the worker and of its children; returns the exit code."""
        if not self._closed:
            self._closed = True
            if number is not None:
                self.signal(number)
            deadline = time.monotonic() + GRACE_S
            while not self._has_ended() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)  # processes that the framework started
            self._process.wait()
            os.close(self._events)
            with contextlib.suppress(OSError):
                self._stdin.close()
        return self._process.wait()

    def _has_ended(self) -> bool:
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        # Left a zombie until `end`, so that its number, which is also its group's, is not given to another process.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # its death is noticed elsewhere
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()


def _death(trial: Trial, code: int, log_path: Path, peak_bytes: int, kills_before: int | None) -> Event:
    """The "failed" event of a worker that ended without saying why."""
    log = _tail(log_path)
    error = signal.Signals(-code).name if code < 0 else "SystemExit"
    cause = f"worker was killed by {error}" if code < 0 else f"worker exited with code {code} and no result"
    limit = memory_bytes()
    if _killed_for_memory(error, peak_bytes, limit, kills_before) or starved(log):
        verdict = out_of_memory(trial, cause, peak_bytes, limit)
        return {"kind": "failed", "cause": verdict.cause, "error": error, "hint": verdict.hint}
    hint = None
    if error == "SIGKILL":
        verdict = out_of_memory(trial, cause, peak_bytes, limit)
        cause = f"{cause}, by hand or for memory{verdict.cause.rpartition(cause)[2]}"
        hint = f"if memory ran out (see dmesg): {verdict.hint}; or run fewer trials at once"
    if last := next((line.strip()[:300] for line in reversed(log.split("\n")) if line.strip()), ""):
        cause += f"; last line of its log: {last}"
    return {"kind": "failed", "cause": cause, "error": error, "hint": hint}


def _killed_for_memory(error: str, peak_bytes: int, limit_bytes: int | None, kills_before: int | None) -> bool:
    """Whether a SIGKILL was the kernel's: it has counted one more, or the worker had nearly all there is."""
    if error != "SIGKILL":
        return False
    kills = out_of_memory_kills()
    counted = kills is not None and kills_before is not None and kills > kills_before
    return counted or (limit_bytes is not None and peak_bytes >= _NEARLY_ALL * limit_bytes)


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 4096))
        return log.read().decode(errors="replace")
