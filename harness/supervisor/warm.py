"""Warm workers from outside: trials whose times are not reported get forks of one process that has all imported.

A process keeps at most one such worker, for the trials that follow each other with the same implementation and
environment. A trial of its own process ends it first, so that nothing of ours is beside what is timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.events import Kinds
from harness.spec.trial import Interpreter
from harness.supervisor.child import Child, command, started

IS_POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
_READY_S = 120.0  # to import a framework on a machine with much else to do
_ANSWER_S = 20.0
_POLL_S = 0.2


class Unfit(Exception):
    """No warm worker can be had: a process of its own runs the trial."""


class Forked:
    """A process that a warm worker forked, with those methods of `subprocess.Popen` that a `Child` uses."""

    def __init__(self, worker: Warm, pid: int, stdin: IO[bytes]) -> None:
        self._worker, self._descriptor = worker, os.pidfd_open(pid)
        self._is_reaped = False
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended; its process id stays its own until `wait`."""
        if self.returncode is None and self._has_ended(0):
            self.returncode = self._worker.code(self.pid, "status")
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        if not self._is_reaped:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
            self.returncode = self._worker.code(self.pid, "reap")
            self._is_reaped = True
            os.close(self._descriptor)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def _has_ended(self, timeout: float | None) -> bool:
        if self._is_reaped:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(None if timeout is None else 1000 * timeout))


class Warm:
    """The process that forks; `key` says for which trials it is."""

    def __init__(
        self, key: object, document: Mapping[str, Any], env: Mapping[str, str], interpreter: Interpreter | None,
        cwd: str | None,
    ) -> None:  # fmt: skip
        self.key = key
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*command("harness.worker.warm", interpreter), "--control-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),), env=dict(env), cwd=cwd, start_new_session=True,
            )  # fmt: skip
        trial = document["trial"]
        self._scratch = tempfile.TemporaryDirectory(prefix="capsbench-compiled-", ignore_cleanup_errors=True)
        self.compiled = self._scratch.name  # of the framework's code, for the next fork
        self._send(
            {"cores": document["cores"], "paths": document["paths"], "impl": trial["impl"], "compiled": self.compiled}
        )

    def begin(self, stop: threading.Event | None) -> None:
        """Waits until it has imported all. Raises `Unfit` if it cannot, or too late; `KeyboardInterrupt` on `stop`."""
        deadline = time.monotonic() + _READY_S
        while not select.select([self._control], [], [], _POLL_S)[0]:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                raise Unfit(f"it is not ready after {_READY_S:.0f} s")
        if reason := self._received()["unfit"]:
            raise Unfit(reason)

    def fork(self, reading: int, log: int, events: int) -> int:
        """The id of a new process with these as its input, its output, and for its events. Raises `Unfit`."""
        try:
            socket.send_fds(self._control, [json.dumps({"do": "fork"}).encode()], [reading, log, events])
        except OSError as error:
            raise Unfit("it has ended") from error
        return self._received()["pid"]

    def code(self, pid: int, request: str) -> int:
        """The exit code of a fork that has ended; if the worker itself has been killed, so has its fork."""
        try:
            self._send({"do": request, "pid": pid})
            return self._received()["code"]
        except Unfit:
            return -signal.SIGKILL

    def close(self) -> None:
        """Ends it, and with it what it forked."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._scratch.cleanup()

    def _send(self, document: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended, as its answer will show
            self._control.send(json.dumps(document).encode())

    def _received(self) -> dict[str, Any]:
        self._control.settimeout(_ANSWER_S)
        try:
            answer = self._control.recv(1 << 20)
        except OSError as error:
            raise Unfit(f"no answer: {error}") from error
        if not answer:
            raise Unfit("it has ended")
        return json.loads(answer)


_kept: Warm | None = None
_unfit: set[object] = set()
_changing = threading.Lock()
_starter = ThreadPoolExecutor(1, "warm")  # the kernel ends a worker with the *thread* that started it: this one stays


def close() -> None:
    """Ends this process's warm worker, if there is one."""
    global _kept
    with _changing:
        if _kept is not None:
            _kept.close()
            _kept = None


@contextmanager
def forked(
    module: str,
    kinds: Kinds,
    document: Mapping[str, Any],
    env: Mapping[str, str],
    log_path: Path,
    *,
    interpreter: Interpreter | None = None,
    cwd: str | None = None,
    stop: threading.Event | None = None,
) -> Generator[Child, None, None]:
    """As `harness.supervisor.child.started`, but a fork of a warm worker; where there can be none, a process of its own.

    Raises `KeyboardInterrupt` if `stop` is set before it has begun.
    """
    key = (
        interpreter and interpreter.path,
        cwd,
        document["trial"]["impl"],
        tuple(document["paths"]),
        tuple(sorted(env.items())),
    )
    log_path.parent.mkdir(parents=True, exist_ok=True)
    child = _fork(key, module, kinds, document, env, log_path, interpreter, cwd, stop) if IS_POSSIBLE else None
    if child is None:
        with started(module, kinds, document, env, log_path, interpreter=interpreter, cwd=cwd) as own:
            yield own
        return
    try:
        child.say(json.dumps({**document, "warm": True}))
        yield child
    finally:
        child.end()
        child.close()


def _fork(
    key: object, module: str, kinds: Kinds, document: Mapping[str, Any], env: Mapping[str, str], log_path: Path,
    interpreter: Interpreter | None, cwd: str | None, stop: threading.Event | None,
) -> Child | None:  # fmt: skip
    """The worker's fork as a `Child`; None if there can be none."""
    for _ in range(2):  # a kept one may have been killed meanwhile
        reading, writing = os.pipe()
        stdin_reading, stdin = os.pipe()
        is_new = _kept is None or _kept.key != key
        child: Child | None = None
        try:
            worker = _worker(key, document, env, interpreter, cwd, stop)
            with log_path.open("wb") as log:
                pid = worker.fork(stdin_reading, log.fileno(), writing)
            child = Child(Forked(worker, pid, os.fdopen(stdin, "wb")), reading, kinds, module)
            return child
        except Unfit:
            close()
            if is_new:
                _unfit.add(key)
                return None
        finally:
            os.close(writing)
            os.close(stdin_reading)
            if child is None:
                os.close(reading)
                os.close(stdin)
    return None


def _worker(
    key: object, document: Mapping[str, Any], env: Mapping[str, str], interpreter: Interpreter | None, cwd: str | None,
    stop: threading.Event | None,
) -> Warm:  # fmt: skip
    """The worker for these trials: the one that is there, or a new one instead of it."""
    global _kept
    if key in _unfit:
        raise Unfit("it was not fit before")
    if _kept is None or _kept.key != key:
        close()
        where = cwd if cwd and Path(cwd).is_dir() else None
        worker = _starter.submit(Warm, key, document, env, interpreter, where).result()
        with _changing:
            _kept = worker
        try:
            worker.begin(stop)
        except BaseException:
            close()
            raise
    return _kept
