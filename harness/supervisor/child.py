"""A worker process as its supervisor sees it: start, events, end. `harness.worker.channel` is the other end."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness import boot
from harness.errors import UserError
from harness.events import Event, Kinds
from harness.spec.trial import Interpreter

GRACE_S = 5.0  # between asking a worker to end and killing it
_POLL_S = 0.2
_TRY_S = 60.0  # an interpreter on a network drive may start slowly


class NoInterpreter(UserError):
    """The interpreter of an environment is not on this node, or cannot be started: which, where, and why. Exit code 2."""


def command(module: str, interpreter: Interpreter | None) -> list[str]:
    """What runs a module of this capsbench in that interpreter, or in our own."""
    # -P: a folder of the working directory must not pass for a framework.
    if interpreter is None:
        return [sys.executable, "-P", "-m", module]
    return [interpreter.path, "-P", boot.__file__, module]


def unusable(interpreter: Interpreter, env: Mapping[str, str]) -> str | None:
    """Why nothing can be started with the interpreter on this node, found by trying; None if it can."""
    failed = f"{interpreter.path} cannot be started on {socket.gethostname()}"
    try:
        done = subprocess.run(
            [interpreter.path, "-P", "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=dict(env), timeout=_TRY_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{failed}: it took more than {_TRY_S:.0f} s"
    except OSError as error:  # missing, or for another kind of machine
        return f"{failed}: {error.strerror}"
    said = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    return f"{failed}: exit code {done.returncode}; {said}" if done.returncode else None


class Child:
    """A running worker."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int, kinds: Kinds, name: str) -> None:
        self._process, self._descriptor, self._kinds, self._name = process, descriptor, kinds, name
        self._is_over = False
        self.peak_bytes = 0  # its largest resident size: a process that has been killed can no longer be asked
        self.events = self._read()
        """The worker's events, with None at short intervals in between; ends when the worker does."""

    def say(self, line: str) -> None:
        """Sends a line to the worker's stdin; its death is noticed at the other pipe."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal if the worker is alive."""
        if not self._has_ended():
            self._process.send_signal(number)

    def death(self) -> str:
        """How it ended, once it has: for example "was killed by SIGKILL (out of memory?)"."""
        code = self._process.returncode
        if code >= 0:
            return f"ended by itself (exit code {code})"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def end(self, number: signal.Signals | None = signal.SIGKILL) -> int:
        """Sends the signal, waits for `GRACE_S`, kills the worker and its children if still alive; returns the exit code.

        None sends nothing, for a worker that is about to end anyway. A second call does nothing.
        """
        if not self._is_over:
            self._is_over = True
            if number is not None:
                self.send(number)
            deadline = time.monotonic() + GRACE_S
            while not self._has_ended() and time.monotonic() < deadline:
                time.sleep(0.01)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # the process and group ids stay its own until it is waited for
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        return self._process.wait()

    def _read(self) -> Iterator[Event | None]:
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while True:
                self._gauge()
                ended = self._has_ended()  # checked before reading: its last output is then already in the pipe
                if selector.select(0 if ended else _POLL_S):
                    received = os.read(self._descriptor, 1 << 20)
                    if not received:
                        return
                    *lines, buffer = (buffer + received).split(b"\n")  # a line cut short by death is no event
                    for line in lines:
                        if (event := self._event(line)) is not None:
                            yield event
                elif ended:
                    return
                yield None

    def _event(self, line: bytes) -> Event | None:
        try:
            return self._kinds.known(line, self._name)
        except ValueError as error:
            raise UserError(
                f"{self._name} said what is no event: {error}. Found {line[:60]!r}; does anything else write to its pipe?"
            ) from error

    def _gauge(self) -> None:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)

    def _has_ended(self) -> bool:
        """Whether it has ended; leaves it a zombie, so that its id, also its group's, is not reused."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # waited for already
            return True


@contextmanager
def started(
    module: str,
    kinds: Kinds,
    document: Mapping[str, object],
    env: Mapping[str, str],
    log_path: Path,
    *,
    interpreter: Interpreter | None = None,
    cwd: str | None = None,
) -> Generator[Child, None, None]:
    """`python -P -m MODULE --events-fd N` with the job `document` on its stdin; it and its children end with the block.

    It may send events of `kinds`. All that it prints goes to `log_path`. If `cwd` does not exist, our working directory
    is used. Raises `NoInterpreter` if the `interpreter`, which runs the same sources, is not on this node.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    try:
        try:
            with log_path.open("wb") as log:
                process = subprocess.Popen(
                    [*command(module, interpreter), "--events-fd", str(writing)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writing,),
                    env=dict(env),
                    cwd=cwd if cwd and Path(cwd).is_dir() else None,
                    start_new_session=True,  # Ctrl-C at the terminal is the supervisor's to handle
                )
        except OSError as error:
            if interpreter is None or (error.filename and error.filename != interpreter.path):
                raise
            raise NoInterpreter(
                f"{interpreter.path} cannot be started on {socket.gethostname()}: {error.strerror}"
            ) from error
        finally:
            os.close(writing)
        child = Child(process, reading, kinds, module)
        try:
            child.say(json.dumps(document))
            yield child
        finally:
            child.end()
    finally:
        os.close(reading)
