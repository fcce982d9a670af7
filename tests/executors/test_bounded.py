"""A start that takes no longer than it may: in Python code, and in compiled code that no exception can end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.executors.bounded import TooLong, bounded
from tests.helpers.run_helpers import environment

# The main thread waits for a lock that it holds itself: no signal handler of Python's ever runs.
_COMPILED = """
import ctypes, sys
from harness.executors import bounded as module
module._GRACE_S = 0.3
lock = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(256)
lock.pthread_mutex_init(mutex, None)
lock.pthread_mutex_lock(mutex)
print("begun", flush=True)
with module.bounded(float(sys.argv[1]), "it has not started within its time", lambda: print("cleaned", flush=True)):
    lock.pthread_mutex_lock(mutex)  # for ever
"""


def library() -> None:
    """Waits, and tries again whatever is raised."""
    for _ in range(100):
        with contextlib.suppress(Exception):
            time.sleep(0.2)


def interrupted(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    library()


def test_python_code_ends_in_time_and_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    begun = time.monotonic()
    with pytest.raises(TooLong), bounded(0.1, "late", lambda: None):
        library()
    assert time.monotonic() - begun < 10
    with bounded(0.1, "late", lambda: None):
        pass
    time.sleep(0.2)  # the alarm is off
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_python_code_ends_on_ctrl_c(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), bounded(20, "late", lambda: None):
        interrupted(number)


@pytest.mark.skipif(sys.platform != "linux", reason="a mutex of glibc")
@pytest.mark.parametrize(("limit_s", "code", "told"), [("0.2", 2, "it has not started"), ("60", 130, "interrupted")])
def test_compiled_code_that_waits_ends_the_process(limit_s: str, code: int, told: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _COMPILED, limit_s], env=environment(tmp_path), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        if code == 130:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (code, "cleaned\n")
    assert told in stderr
    assert stderr.count("\n") == 1
