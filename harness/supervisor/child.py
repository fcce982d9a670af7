"""A command's worker process, seen from the command: its start, its events, its end. `harness.worker.serve` is the other end."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_POLL_S = 0.2


class Child:
    """A running worker."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self._process, self._descriptor = process, descriptor
        self.events = self._read()
        """The worker's events, and None at least every moment; ends with the worker's life."""

    def say(self, line: str) -> None:
        """Sends a line to the worker's stdin; its death is noticed at the other pipe."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def death(self) -> str:
        """How it ended, once the `with` block of `started` is left: "was killed by SIGKILL (out of memory?)"."""
        code = self._process.returncode
        if code >= 0:
            return f"ended by itself (exit code {code})"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def end(self) -> None:
        """Kills it and its children, and waits; a second call does nothing."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # the number is its own, and its group's, until it is waited for
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _read(self) -> Iterator[dict[str, Any] | None]:
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while True:
                ended = self._has_ended()  # asked before reading: what it said last is then in the pipe already
                if selector.select(0 if ended else _POLL_S):
                    received = os.read(self._descriptor, 1 << 20)
                    if not received:
                        return
                    *lines, buffer = (buffer + received).split(b"\n")
                    for line in lines:
                        yield json.loads(line)
                elif ended:
                    return
                yield None

    def _has_ended(self) -> bool:
        """Leaves it a zombie, so that its number, which is also its group's, is not given to another process."""
        if not hasattr(os, "waitid"):
            return False  # then the end of the pipe tells
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextmanager
def started(
    module: str, document: Mapping[str, Any], env: Mapping[str, str], log_path: Path
) -> Generator[Child, None, None]:
    """`python -P -m MODULE --events-fd N` with the job `document` on its stdin; it and its children end with the block.

    All that it prints goes to `log_path`.
    """
    reading, writing = os.pipe()
    try:
        try:
            with log_path.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, "--events-fd", str(writing)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writing,),
                    env=dict(env),
                    start_new_session=True,  # Ctrl-C at the terminal is the supervisor's to handle
                )
        finally:
            os.close(writing)
        child = Child(process, reading)
        try:
            child.say(json.dumps(document))
            yield child
        finally:
            child.end()
    finally:
        os.close(reading)
