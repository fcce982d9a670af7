"""How far something has come: what is computed, and what a terminal and a log show of it."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import progress
from harness.progress import Task
from harness.views import progress as shown
from harness.views.messages import Console
from harness.views.progress import Shown


class Clock:
    """Stands in for the time, so that no test waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        for module in (progress, shown):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    yield
    progress.shown_by(None)
    progress.hold(False)


def test_time_left_of_steps(clock: Clock) -> None:
    task = Task("reading", 4, "", False)
    assert task.left_s() is None
    clock.passes(10)
    task.advance()
    assert task.left_s() == 30
    clock.passes(6)
    assert task.left_s() == 24
    clock.passes(60)
    assert task.left_s() == 20  # the next step may end at any time, but those after it have not begun


def test_time_left_of_bytes_follows_the_rate_of_late(clock: Clock) -> None:
    task = Task("fetching", None, "B", False)
    task.reached(500, 2000)  # what an earlier command fetched says nothing of the network
    assert task.left_s() is None
    for _ in range(20):
        clock.passes(1)
        task.reached(task.done + 10, 2000)
    assert task.rate() == pytest.approx(10)
    for _ in range(12):
        clock.passes(1)
        task.reached(task.done + 50, 2000)
    assert task.rate() == pytest.approx(50)
    assert task.left_s() == pytest.approx((2000 - 500 - 200 - 600) / 50)


def test_each_kind_of_step_takes_its_own_time(clock: Clock) -> None:
    task = Task("asking", None, "", False)
    task.expect({"torch": 3, "numpy": 3})
    assert (task.total, task.left_s()) == (6, None)
    clock.passes(1)
    task.advance(kind="torch")
    clock.passes(100)
    task.advance(kind="numpy")
    assert task.left_s() == 2 * 1 + 2 * 100
    clock.passes(1)
    task.advance(kind="torch")
    assert task.left_s() == 1 + 2 * 100


def test_in_words(clock: Clock) -> None:
    task = Task("hashing", 900e6, "B", False)
    clock.passes(10)
    task.advance(340e6)
    assert (shown._done(task), shown._left(task)) == ("340 of 900 MB, 34 MB/s", "about 16 s left")
    assert shown._done(Task("x", 3e9, "B", False)) == "0.0 of 3.0 GB"
    assert shown._done(Task("x", None, "", False)) == ""
    assert shown._done(Task("x", 1200, "", False)) == "0 of 1,200"


def test_nobody_sees_what_nobody_asked_for(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that imports capsbench, and a screen that shows something else."""
    monkeypatch.setattr(shown, "SILENT_S", 0.0)
    monkeypatch.setattr(shown, "_FIRST_S", 0.0)
    assert list(progress.track([1, 2], "counting")) == [1, 2]
    progress.shown_by(Shown)
    progress.hold(True)
    assert list(progress.track([1, 2], "counting")) == [1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
    assert capfd.readouterr() == ("", "")


def test_what_is_short_is_silent() -> None:
    for is_terminal in (True, False):
        file = io.StringIO()
        progress.shown_by(lambda file=file, is_terminal=is_terminal: Shown(_console(file, is_terminal)))
        assert sum(progress.track(range(100), "counting")) == 4950
        assert file.getvalue() == ""


def _console(file: io.StringIO, is_terminal: bool, width: int = 80) -> Console:
    return Console(file=file, force_terminal=is_terminal, width=width, color_system=None, legacy_windows=False)


def _until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("never")


def test_a_terminal_shows_the_innermost_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "JPY_PARENT_PID", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(shown, "SILENT_S", 0.0)
    file = io.StringIO()
    progress.shown_by(lambda: Shown(_console(file, True)))

    def interrupted() -> None:
        with progress.task("verifying"):
            for _ in progress.track(range(3), "reading trials"):
                _until(lambda: "reading trials" in file.getvalue() and "0 of 3" in file.getvalue())
                print("a document", end="")  # what goes to a file stays out of the terminal
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    written = file.getvalue()
    assert "a document" not in written
    assert "reading" not in written[written.rindex("\x1b[2K") :]  # the last thing done to the line is to erase it
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is there


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_its_line_fits(width: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # whatever that says, it is drawn on a console of this width
    display = Shown(console := _console(io.StringIO(), True, width))
    task = Task("recomputing predictions of 3e5d2b37bbe7 in tf", 12, "", False)
    display._tasks.append(task)
    clock.passes(100)
    task.advance()
    console.print(display._line())
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    if width >= 40:
        assert len(lines) == 1
        assert "1 of 12, about 18 min left" in lines[0]


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return len(waits) > 6

    file = io.StringIO()
    display = Shown(_console(file, False))
    task = Task("reading trials", 300, "", False)
    task.advance(100)
    display._tasks.append(task)
    display._log(task, Over())
    lines = file.getvalue().splitlines()
    assert len(lines) == 6
    assert all(re.fullmatch(r"reading trials: 100 of 300, about \d+ s left", line) for line in lines)
    assert waits == [10, 20, 40, 60, 60, 60, 60]
    waits[:] = [None] * 5
    display._tasks[-1] = Task("waiting for an answer", None, "", False)
    display._log(task, Over())
    assert re.fullmatch(r"waiting for an answer: \d+ s so far", file.getvalue().splitlines()[-1])


_SLOW = """
import sys, time
from harness import progress
from harness.commands import cli
from harness.commands import table
from harness.views import progress as shown
shown.SILENT_S = 0.1
def slow(args):
    for _ in progress.track(range(100), "reading"):
        time.sleep(1)
table.main = slow
sys.argv = ["capsbench", "table", "RUN", "--json"]
cli.main()
"""


def test_ctrl_c_leaves_a_real_terminal_clean(tmp_path: Path) -> None:
    """With --json: the document on stdout is whole, and the terminal that showed the line has nothing of it."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW], stdout=subprocess.PIPE, stderr=theirs, env={**environment, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        written = b""
        while b"0 of 100" not in written:
            written += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == b'{\n  "error": "interrupted"\n}\n'
        assert process.wait(timeout=60) == 130
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # its other end is closed
            break
        if not more:
            break
        written += more
    os.close(ours)
    last = written[written.rindex(b"\x1b[2K") :]
    assert b"reading" not in last
    assert b"interrupted" in last
    assert b"\x1b[?25l" not in last
