"""Ray's start has an end: in time, by Ctrl-C, or at once where Ray cannot run; and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.errors import UserError
from harness.executors import instance
from harness.executors.ray import RayExecutor
from tests.helpers.run_helpers import capsbench, started, write_suite

pytest.importorskip("ray")

_INLINE = "--executor inline runs the trials without Ray, one after another"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as folder:
        yield Path(folder)


def left_behind(folder: Path) -> list[str]:
    """The processes that have the folder in their command line, once they had a moment to end."""
    deadline = time.monotonic() + 10
    while True:
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        found = [line for line in lines if str(folder) in line]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_start_that_takes_too_long(short: Path) -> None:
    """Ray is imported in about a second; then its servers start, one after the other."""
    write_suite(short)
    limit_s = "2.5"
    done = capsbench(short, "run", "small.yaml", "--executor", "ray", "--no-mlflow", CAPSBENCH_RAY_START_S=limit_s)
    if done.returncode:  # a very fast machine is done by then
        assert done.returncode == 2
        told = (
            f"Ray has not started within {float(limit_s):.0f} s (CAPSBENCH_RAY_START_S sets another limit); {_INLINE}"
        )
        assert done.stderr == f"capsbench: {told}\n"
    assert left_behind(short) == []
    assert not list((short / "tmp").glob("cb-*"))


def test_ctrl_c_while_it_starts(short: Path) -> None:
    write_suite(short)
    with started(short, "run", "small.yaml", "--executor", "ray", "--no-mlflow") as process:
        assert process.stdout
        assert process.stdout.readline() == "starting Ray\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
        assert time.monotonic() - begun < 20
    assert process.returncode == 130, stderr
    # Where Ray's compiled code does not let go, the process ends with one word.
    assert "To go on: capsbench run small.yaml" in stdout or stderr == "interrupted\n"
    assert "Traceback" not in stderr
    assert left_behind(short) == []


def test_where_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = RayExecutor(num_cpus=1)
    with monkeypatch.context() as patch:
        patch.setattr(instance, "_SHARED", tmp_path / "absent")
        with pytest.raises(UserError, match=rf"^Ray needs {tmp_path}/absent, which is missing .*; {_INLINE}$"):
            executor.start()
    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path))
        folder = instance._folder()
        assert len(os.fsencode(folder.parent)) <= instance._LONGEST_BASE
        folder.rmdir()
        patch.setattr(instance, "_LONGEST_BASE", 3)  # as if nobody could write to /tmp and /var/tmp
        with pytest.raises(UserError, match=rf"none of {tmp_path}, /tmp, /var/tmp. Set TMPDIR to one; or {_INLINE}$"):
            executor.start()
    monkeypatch.setenv("CAPSBENCH_RAY_START_S", "soon")
    with pytest.raises(UserError, match=r'^CAPSBENCH_RAY_START_S is "soon"; it must be a number of seconds'):
        executor.start()
