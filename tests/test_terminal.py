"""Terminals that close, lie, or are none: a training goes on to its results, and no command ends with a traceback."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.views.messages import is_live
from tests.helpers.run_helpers import capsbench, environment, repeatable, started, wait_for, write_suite

_RUN = ("run", "small.yaml", "--executor", "inline", "--no-mlflow", "--no-figures")


def shell(folder: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What bash makes of the line, in which `capsbench` is this one."""
    script = f'capsbench() {{ "{sys.executable}" -m harness "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**environment(folder), **env}, capture_output=True, timeout=120,
        text=True, errors="surrogateescape", stdin=subprocess.DEVNULL,
    )  # fmt: skip


def result(folder: Path) -> dict[str, Any]:
    """The only trial's result: what it learned, not how long it took."""
    (path,) = folder.glob("runs/small/trials/*/result.json")
    found = json.loads(path.read_text())
    assert found["status"] == "finished"
    return repeatable(found)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the run with nothing wrong around it."""
    folder = tmp_path_factory.mktemp("plain")
    write_suite(folder)
    done = capsbench(folder, *_RUN)
    assert done.returncode == 0, done.stderr
    return result(folder)


@pytest.mark.parametrize(
    "line",
    [
        "capsbench {run} >&- 2>&- <&-",
        "PYTHONWARNINGS=error COLUMNS=1 PYTHONUTF8=0 PYTHONIOENCODING=ascii capsbench {run} >out",
        "(unset HOME USER LOGNAME; TERM=dumb capsbench {run}) | true",  # closed before the first line
    ],
)
def test_a_training_goes_on_to_the_same_result(line: str, plain: dict[str, Any], tmp_path: Path) -> None:
    write_suite(tmp_path)
    done = shell(tmp_path, line.format(run=" ".join(_RUN)))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert result(tmp_path) == plain
    (events,) = tmp_path.glob(
        "runs/small/trials/*/events.jsonl"
    )  # no file of a run gets the number of a closed descriptor
    assert all(json.loads(line)["kind"] for line in events.read_text().splitlines())
    assert not [path for path in tmp_path.iterdir() if path.name not in ("small.yaml", "runs", "tmp", "out")]


def test_the_exit_code_is_the_commands_own(tmp_path: Path) -> None:
    """Of a refusal too, with nowhere to print it."""
    for line in ("capsbench plan absent.yaml >&- 2>&-", "capsbench plan absent.yaml --json | true"):
        assert shell(tmp_path, line).returncode == 2
    full = shell(tmp_path, "capsbench suites >/dev/full")
    assert (full.returncode, full.stderr) == (
        1,
        "capsbench: stdout: No space left on device; what was to be printed there is lost\n",
    )


def test_characters_that_the_locale_lacks_are_spelled(tmp_path: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name in ("f\xfcr.yaml", os.fsdecode(b"f\xff.yaml")):
        done = shell(tmp_path, f"capsbench plan '{name}'", **env)
        assert done.returncode == 2
        assert done.stderr.startswith("capsbench: f\\")
        assert done.stderr.isascii()


def test_a_terminal_of_one_column(tmp_path: Path, plain: dict[str, Any]) -> None:
    """As a notebook's, or one that was made too small; and then it is gone."""
    write_suite(tmp_path)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 1, 1, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *_RUN], cwd=tmp_path, env={**environment(tmp_path), "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert os.read(ours, 1)
        os.close(ours)  # not the controlling terminal: no SIGHUP
        assert process.wait(timeout=120) == 0
    assert result(tmp_path) == plain


def test_a_closed_window_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    write_suite(tmp_path, grid={"impl": ["run_helpers:HeldNet"]})
    with started(tmp_path, *_RUN, CAPSBENCH_TEST_HOLD="2") as process:
        logs = "runs/small/trials/*/attempt-1.log"
        wait_for(
            lambda: "held in epoch 2" in "".join(log.read_text() for log in tmp_path.glob(logs)), "epoch 2", process
        )
        process.send_signal(signal.SIGHUP)
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "To go on: capsbench run small.yaml" in stdout


def test_who_can_redraw_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM", "FORCE_COLOR", "JPY_PARENT_PID", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    assert is_live(Console(file=io.StringIO(), force_terminal=True))
    assert not is_live(Console(file=io.StringIO()))
    for name, value in (("TERM", "dumb"), ("FORCE_COLOR", "1"), ("JPY_PARENT_PID", "7")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not is_live(Console(file=io.StringIO(), force_terminal=True)), name
