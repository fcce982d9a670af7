"""What a run shows while it is going on: a live table on a terminal, elsewhere one line per event."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import progress
from harness.analysis.labels import run_name
from harness.events import (
    AttemptEvent,
    ContinuedEvent,
    EpochEvent,
    FailedEvent,
    InterruptedEvent,
    ParityEvent,
    ReadyEvent,
    ResultEvent,
    TrialEvent,
    WarningEvent,
)
from harness.spec.trial import Trial
from harness.terminal import copy_of
from harness.text import UNKNOWN, duration, number
from harness.views import messages
from harness.views.layout import lines
from harness.views.messages import is_live

_ACTIVE = ("starting", "checking", "training", "testing")
_STATE: dict[type[TrialEvent], str] = {
    AttemptEvent: "starting",
    ParityEvent: "checking",
    ReadyEvent: "training",
    EpochEvent: "training",
    ResultEvent: "finished",
    FailedEvent: "failed",
    InterruptedEvent: "interrupted",
}
_COLOUR = {"finished": "green", "cached": "green", "failed": "red", "interrupted": "yellow", "waiting": "dim"}


def own_console(json_mode: bool) -> Console:
    """A console on a copy of stdout (stderr if JSON goes to stdout), so that libraries that print cannot disturb it."""
    stream = sys.stderr if json_mode else sys.stdout
    return messages.Console(file=copy_of(stream))


class _Row:
    """One trial, as shown on the screen."""

    def __init__(self, trial: Trial, state: str, estimate_s: float | None) -> None:
        self.trial, self.state, self.estimate_s = trial, state, estimate_s
        self.epoch: EpochEvent | None = None
        self.timed = trial.parity.gate  # an implementation that fails the gate gets no timing anywhere
        self.epoch_s: list[float] = []
        self.test_err_pct: float | None = None
        self.since = 0.0  # when the attempt began, or its last epoch ended

    def update(self, event: TrialEvent) -> None:
        self.state = _STATE.get(type(event), self.state)
        match event:
            case AttemptEvent():
                self.since = time.monotonic()
            case ParityEvent():
                self.timed = event.ok
            case EpochEvent():
                self.since = time.monotonic()
                self.epoch = event
                self.epoch_s.append(event.epoch_s + event.eval_s)
                if event.epoch == event.epochs:
                    self.state = "testing"
            case ResultEvent():
                self.test_err_pct = event.test_err_pct
            case InterruptedEvent() if event.next_in_s is not None:
                self.state = "waiting"
            case _:
                pass

    def left_s(self) -> float | None:
        """Seconds to the end of this trial: from its own epochs once it has some, before that from the plan's estimate.

        None if neither helps: an estimate that was exceeded is no better than none.
        """
        if self.state not in (*_ACTIVE, "waiting"):
            return 0.0
        passed = time.monotonic() - self.since if self.since else 0.0
        if self.epoch:
            each = statistics.median(self.epoch_s)
            return max(0.0, each * (self.trial.train.epochs - self.epoch.epoch) - min(passed, each))
        return self.estimate_s - passed if self.estimate_s is not None and self.estimate_s > passed else None

    def cells(self) -> list[str | Text]:
        name = run_name(self.trial)
        state = Text(self.state, _COLOUR.get(self.state, "cyan"))
        last = self.epoch
        epoch = f"{last.epoch}/{self.trial.train.epochs}" if last else UNKNOWN
        error = self.test_err_pct if self.test_err_pct is not None else last and last.val_err_pct
        shown = UNKNOWN if error is None else f"{error:.2f}{'' if self.test_err_pct is not None else ' val'}"
        left_s = self.left_s()
        left = duration(left_s) if self.state in _ACTIVE else ""
        epoch_s = number(last and last.epoch_s) if self.timed else UNKNOWN
        return [name, state, epoch, number(last and last.train_loss), shown, epoch_s, left]


class Screen:
    """Shows the trials of one run; a context manager for the duration of the run."""

    def __init__(self, console: Console, estimates: Mapping[str, float | None]) -> None:
        self.console = console
        self._estimates = estimates
        self._rows: dict[str, _Row] = {}
        self._note = ""
        self._standing = ""
        self._to_come = 0
        self._to_come_s: float | None = 0.0
        self._is_live = is_live(console)
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._render, transient=True)

    def begin(self, trials: Sequence[Trial], cached: set[str]) -> None:
        self._rows = {}
        self.add(trials, self._estimates, cached)
        progress.hold(True)
        if self._is_live:
            self._live.start()

    def add(self, trials: Sequence[Trial], estimates: Mapping[str, float | None], cached: set[str]) -> None:
        """Trials that follow from the results of those before."""
        self._rows = self._rows | {
            trial.id: _Row(trial, "cached" if trial.id in cached else "waiting", estimates.get(trial.id))
            for trial in trials
        }

    def expect(self, trials: int, seconds: float | None) -> None:
        """So many trials may follow from those shown, and take so long one after another; None: not known."""
        self._to_come, self._to_come_s = trials, seconds

    def end(self) -> None:
        """Leaves the terminal to what follows: later notes are lines of their own."""
        self._live.stop()
        self._is_live = False
        progress.hold(False)

    def note(self, text: str) -> None:
        """One line about the run as a whole, such as what it is waiting for."""
        self._note = text
        if not self._is_live:
            self._say(text)

    def say(self, text: str) -> None:
        """A warning that stays where it is: above the table, or in the log."""
        self._say(text, "yellow")

    def stand(self, text: str, is_so: bool) -> None:
        """A line about the run as a whole that stays below the table for as long as it is so; may come from any thread."""
        self._standing = text if is_so else ""
        if not (self._is_live and is_so):
            self._say(text, "yellow" if is_so else "")

    def update(self, trial_id: str, event: TrialEvent) -> None:
        row = self._rows[trial_id]
        row.update(event)
        if self._note:
            self._note = ""
        if not self._is_live and (line := _line(event, row.timed)):
            self._say(f"{run_name(row.trial):<20} {line}")

    def _say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style), soft_wrap=True)

    def _render(self) -> Group:
        rows = list(self._rows.values())
        counts = {state: sum(row.state == state for row in rows) for state in ("finished", "cached", "failed")}
        done = sum(row.state not in (*_ACTIVE, "waiting") for row in rows)
        left = [row.left_s() for row in rows]
        at_once = max(1, sum(row.state in _ACTIVE for row in rows))
        left.append(self._to_come_s)
        total = None if None in left else sum(seconds for seconds in left if seconds) / at_once
        head = f"{done} of {len(rows)} trials done"
        head += f", up to {self._to_come} more to come" if self._to_come else ""
        head += "".join(f", {count} {state}" for state, count in counts.items() if count and state != "finished")
        if done < len(rows) or self._to_come:
            head += f"; about {duration(total)} left" if total is not None else "; time left not known yet"
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("trial", no_wrap=True, min_width=14)
        for title in ("state", "epoch", "loss", "error %", "s/epoch", "left"):
            table.add_column(title, no_wrap=True, justify="left" if title == "state" else "right")
        room = max(4, self.console.height - 6)
        for row in _most_telling(rows, room):
            table.add_row(*row.cells())
        hidden = len(rows) - min(room, len(rows))
        more = [Text(f"... and {hidden} more", "dim")] if hidden else []
        note = [Text(self._note, "dim")] if self._note else []
        standing = [Text(self._standing, "yellow")] if self._standing else []
        arranged = [
            Text(line, no_wrap=True) if isinstance(line, str) else line
            for line in lines(self.console, table, self.console.width)
        ]
        return Group(*arranged, *more, Text(head), *note, *standing)


def _most_telling(rows: Sequence[_Row], room: int) -> list[_Row]:
    """What fits: all trials in order, or else in order of preference those running, failed, next, and last finished."""
    if len(rows) <= room:
        return list(rows)
    active = [row for row in rows if row.state in _ACTIVE]
    failed = [row for row in rows if row.state in ("failed", "interrupted")]
    waiting = [row for row in rows if row.state == "waiting"][:3]
    done = [row for row in rows if row.state in ("finished", "cached")]
    chosen = [*active, *failed, *waiting, *reversed(done)][:room]
    return [row for row in rows if row in chosen]


def _line(event: TrialEvent, timed: bool) -> str | None:
    """An event as a line of a log, with its seconds if `timed`; None if it is not worth a line."""
    match event:
        case AttemptEvent():
            return f"started, resuming after epoch {event.resumed_epoch}" if event.resumed_epoch else "started"
        case ContinuedEvent():
            where = f" in {event.from_run}" if event.from_run else ""
            return f"goes on from epoch {event.from_epoch} of trial {event.from_trial}{where}"
        case ParityEvent():
            verdict = "ok" if event.ok else "FAILED"
            return f"parity {verdict}: worst {event.worst}, relative error {_shown(event.max_rel_err, '.1e')}"
        case ReadyEvent():
            compiled = f"compiled in {event.compile_s:.1f} s" if timed else "compiled"
            return f"{compiled}, {event.parameters:,} parameters"
        case EpochEvent():
            error = "" if event.val_err_pct is None else f", validation error {event.val_err_pct:.2f}%"
            seconds = f", {event.epoch_s:.2f} s" if timed else ""
            fault = f"; audit failed: {event.audit_fault}" if event.audit_fault else ""
            loss = _shown(event.train_loss, ".4f")
            return f"epoch {event.epoch}/{event.epochs}: loss {loss}{error}{seconds}{fault}"
        case ResultEvent():
            return f"finished: {_outcome(event)}"
        case FailedEvent():
            return f"failed: {event.cause}"
        case WarningEvent():
            return f"warning: {event.message}"
        case InterruptedEvent():
            return "interrupted" if event.next_in_s is None else f"goes on in {duration(event.next_in_s)}"
        case _:
            return None


def _shown(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def _outcome(result: ResultEvent) -> str:
    """The test error and the audit's finding, or why there is no test error."""
    audit, error = result.audit, _shown(result.test_err_pct, ".2f")
    if audit is None:  # from an older capsbench
        return f"test error {error}%"
    if audit["ok"] is False:
        return f"no accuracy, audit failed: {audit['note']}"
    images = "test images" if result.test_images else "validation images"  # of a search's proposal
    seen = f"{audit['steps']} steps, {audit['images']} {images}" if audit["ok"] else audit["note"]
    told = f"test error {error}%, " if result.test_images else ""
    return f"{told}audit {'ok: ' if audit['ok'] else ''}{seen}"
