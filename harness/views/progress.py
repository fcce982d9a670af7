"""How far a command has come and how long it will still take: on stderr, a line that changes, in a log a line now and then.

What ends within two seconds shows nothing, and what has ended leaves nothing on a terminal.
"""

from __future__ import annotations

import sys
import threading
import time

from rich.cells import cell_len
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.progress import Task
from harness.text import duration
from harness.views.messages import Console, is_live

SILENT_S = 2.0
_FIRST_S = 10.0  # line of a log
_MOST_S = 60.0  # between two of them
_BAR = 24  # columns at most
_LEAST_BAR = 8


class Shown:
    """Shows the innermost of the tasks in progress, once the outermost takes longer than `SILENT_S`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._is_live = is_live(self._console)
        self._tasks: list[Task] = []
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._live: Live | None = None

    def begun(self, task: Task) -> None:
        if self._is_live and task.in_logs_alone:
            return
        with self._lock:
            self._tasks.append(task)
            if len(self._tasks) > 1:
                return
            self._over = threading.Event()
        follow = self._draw if self._is_live else self._log
        threading.Thread(target=follow, args=(task, self._over), daemon=True, name="progress").start()

    def ended(self, task: Task) -> None:
        with self._lock:
            if task in self._tasks:
                self._tasks.remove(task)
            if self._tasks:
                return
            self._over.set()
            live, self._live = self._live, None
        if live:
            live.stop()

    def _draw(self, first: Task, over: threading.Event) -> None:
        if over.wait(SILENT_S):
            return
        live = Live(
            console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True,
            redirect_stdout=sys.stdout.isatty(),  # a file gets what is meant for it
        )  # fmt: skip
        with self._lock:
            if over.is_set():
                return
            live.start()
            self._live = live
            self._console.show_cursor(True)  # else a process that is killed leaves a terminal without one

    def _log(self, first: Task, over: threading.Event) -> None:
        wait_s = _FIRST_S
        while not over.wait(wait_s):
            with self._lock:
                if over.is_set() or not self._tasks:
                    return
                task = self._tasks[-1]
                left = _left(task) or f"{duration(time.monotonic() - first.began)} so far"
                told = ", ".join(filter(None, (_done(task), left)))
                self._console.print(Text(f"{task.title}: {told}", "dim"), soft_wrap=True)
            wait_s = min(2 * wait_s, _MOST_S)

    def _line(self) -> Table | Text:
        """What a terminal shows: title, bar, how much of how much, time left."""
        if not (tasks := self._tasks[-1:]):  # without the lock: whoever has it may wait for whoever draws
            return Text()
        task = tasks[0]
        said = ", ".join(filter(None, (_done(task), _left(task) or duration(time.monotonic() - task.began))))
        room = self._console.width - cell_len(said) - 4
        bar = min(_BAR, max(_LEAST_BAR, room - cell_len(task.title))) if task.total and room > 2 * _LEAST_BAR else 0
        title = Text(task.title, overflow="ellipsis", no_wrap=True)
        title.truncate(max(1, room - bar), overflow="ellipsis")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(title, *([ProgressBar(task.total, task.done, width=bar)] if bar else []), Text(said))
        return grid


def _done(task: Task) -> str:
    """ "3 of 9"; "340 of 900 MB, 12 MB/s"."""
    if not task.unit:
        return f"{task.done:,.0f} of {task.total:,.0f}" if task.total else ""
    most = max(task.total or 0, task.done)
    scale, name = next((each for each in ((1e9, "GB"), (1e6, "MB")) if most >= each[0]), (1e3, "kB"))
    digits = 1 if most / scale < 100 else 0
    whole = f" of {task.total / scale:,.{digits}f}" if task.total else ""
    rate = task.rate()
    speed = f", {rate / 1e6:,.{1 if rate < 1e7 else 0}f} MB/s" if rate else ""
    return f"{task.done / scale:,.{digits}f}{whole} {name}{speed}"


def _left(task: Task) -> str:
    left_s = task.left_s()
    return "" if left_s is None else f"about {duration(max(1.0, left_s))} left"
