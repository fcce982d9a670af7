"""The journal's copy in MLflow: sent from one thread of the driver, or replayed at any time by `sync`.

The journal is the truth: whatever happens to the server, nothing is lost and everything can be sent again.
`harness.views.mlflow.sink` decides what is sent and makes sure that it is stored only once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import UserError
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.text import ended
from harness.views.mlflow import trials as view
from harness.views.mlflow.client import reason
from harness.views.mlflow.sink import REPORT_S, Sink
from harness.views.mlflow.where import default_uri, is_server, locate, redact, shown

__all__ = ["SyncReport", "Tracker", "default_uri", "redact", "sync"]

_FLUSH_S = 10.0  # while trials run: rare enough not to slow them down
_HANGS = 3  # times that long without anything stored: MLflow hangs
_AGAIN = 6  # times that long: another reason is told
_REMIND = 60  # times that long: a log says again that it lags


@dataclass(frozen=True)
class SyncReport:
    """What `sync` did: where the run is in MLflow, how many of its trials are there, how many events were new.

    `notes`: what could not be sent, and hinders nothing.
    """

    uri: str
    experiment: str
    experiment_id: str
    run_id: str
    trials: int
    events: int
    notes: list[str]


def sync(run_dir: str | os.PathLike[str], uri: str | None = None) -> SyncReport:
    """Sends everything in the run directory to MLflow; safe at any time, even during a run.

    Raises `UserError` if there is no run, if MLflow is not installed, or if its server does not take the data.
    """
    journal = Journal(run_dir)
    require_run(journal.run_dir)
    where = locate(journal.run_dir.parent, uri)
    sink = Sink(journal, where.uri)
    try:
        events = _pushed(sink, journal)
    except Exception as error:
        if isinstance(error, UserError) and not is_server(where.uri):
            raise
        raise UserError(f"MLflow at {where} did not take the run: {reason(error, where.uri)}") from error
    cursor = sink.sent
    return SyncReport(
        redact(where.uri),
        view.experiment_name(journal.plan()),
        cursor["experiment_id"],
        cursor["suite"]["run_id"],
        len(cursor["trials"]),
        events,
        [sink.remark] if sink.remark else [],
    )


def _pushed(sink: Sink, journal: Journal, is_again: bool = False) -> int:
    """Sends everything; a second time if the connection is lost on the way. Returns how many events were new."""
    try:
        return sink.push(journal.trial_ids(), live=journal.is_live(), lock_timeout_s=30)
    except Exception as error:
        if is_again or isinstance(error, UserError | TimeoutError):
            raise
    time.sleep(1)
    return _pushed(sink, journal, is_again=True)


@dataclass(frozen=True)
class Lag:
    """MLflow lacks what the journal has got since `since`, in seconds since 1970."""

    since: float
    reason: str

    @property
    def clock(self) -> str:
        """The local time of `since`, with the day if that is not today."""
        then, today = time.localtime(self.since), time.localtime()
        return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)


Tell = Callable[[str, bool], None]
"""Takes a sentence about MLflow, and whether it lags; called from a thread of the tracker's."""


class Tracker:
    """Sends the journal to MLflow during a run, from its own thread; no problem here stops the run.

    `tell` hears when MLflow falls behind, why, and when it has caught up.
    """

    def __init__(
        self, journal: Journal, uri: str | None = None, flush_s: float | None = None, tell: Tell | None = None
    ) -> None:
        self.where = locate(journal.run_dir.parent, uri)
        self.uri = self.where.uri
        self._journal = journal
        self._flush_s = _FLUSH_S if flush_s is None else flush_s
        self._tell = tell
        self._sink = Sink(journal, self.uri)
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._stop = threading.Event()
        self._problem: str | None = None  # of the last pass
        self._failures = 0  # of passes, one after another
        self._since: float | None = None  # when the first change happened that is not sent
        self._later: float | None = None  # the same of those since the last pass began
        self._began: float | None = None  # when the pass that is going on did, by the monotonic clock
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        """Returns at once; the thread imports MLflow, creates its database (seconds) and sends what is unsent.

        The plan must already be written.
        """
        self._changed.update(self._journal.trial_ids())
        self._since = time.time()
        self._thread.start()
        if self._tell:
            threading.Thread(target=self._watch, args=(self._tell,), name="mlflow-lag", daemon=True).start()

    def notify(self, trial_id: str) -> None:
        """Tells the thread that the trial has new events."""
        with self._lock:
            self._changed.add(trial_id)
            self._later = self._later or time.time()
            self._since = self._since or self._later

    @property
    def lag(self) -> Lag | None:
        """How far MLflow is behind the journal, if it is by more than the usual: a pass failed twice, or hangs."""
        with self._lock:
            since, problem, failures, began = self._since, self._problem, self._failures, self._began
        if since is None:
            return None
        if problem and failures > 1:
            return Lag(since, problem)
        waited_s = time.monotonic() - max(began, self._sink.progress) if began is not None else 0
        if waited_s > _HANGS * self._flush_s:
            return Lag(since, "it does not answer what it was sent last")
        return None

    @property
    def warning(self) -> str | None:
        """What MLflow lacks, why, and what to do about it; None if the last pass has sent everything."""
        if self._problem is None:
            return None
        events, trials = self._sink.lacking()
        what = f"{events} events of {trials} trials" if events else "what came last"
        since = f" since {Lag(self._since, '').clock}" if self._since else ""
        return (
            f"MLflow at {shown(self.uri)} lacks {what}{since} ({self._problem.rstrip('.')}). Nothing is lost; bring them in "
            f"with: {self.where.sync(self._journal.run_dir)}"
        )

    def close(self, timeout_s: float = 30.0) -> str | None:
        """Sends the rest and ends the thread; returns the warning if anything is still missing in MLflow."""
        self._sink.report_s = min(REPORT_S, timeout_s / 2)
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            late = f"no answer within {timeout_s:g} s"
            if self._sink.is_at_report and self._problem is None:
                self._sink.remark = f"the report is not in MLflow: {late}"
            else:
                self._problem = self._problem or late
        return self.warning

    @property
    def remark(self) -> str | None:
        """Why MLflow has no report of the run, and what to do; None if it has one. It lacks nothing else for that."""
        remark = self._sink.remark
        return f"{remark}. To try again: {self.where.sync(self._journal.run_dir)}" if remark else None

    def _work(self) -> None:
        stopping = False
        while True:
            with self._lock:
                changed, self._changed = self._changed, set()
                self._later, self._began = None, time.monotonic()
            try:
                self._sink.push(self._journal.trial_ids() if stopping else changed, not stopping, lock_timeout_s=5)
                with self._lock:
                    self._problem, self._failures, self._began, self._since = None, 0, None, self._later
            except Exception as error:  # a problem with the copy must never stop the run
                problem = reason(error, self.uri)
                with self._lock:
                    self._changed |= changed
                    self._problem, self._began = problem, None
                    self._failures += 1
            if stopping and self._failures != 1:
                return
            # A lost connection is there again at once; a server that is away is asked less and less often.
            pause_s = self._flush_s * ((1.0, 0.1, 1.0, 2.0)[self._failures] if self._failures < 4 else 3.0)
            if stopping:
                time.sleep(min(1.0, pause_s))
            elif self._stop.wait(pause_s):
                stopping = True

    def _watch(self, tell: Tell) -> None:
        """Tells when a lag begins, changes its reason, still lasts, and ends."""
        told: Lag | None = None
        told_at = 0.0
        name = shown(self.uri)
        while not self._stop.wait(self._flush_s / 10):
            lag = self.lag
            wait_s = self._flush_s * (_REMIND if lag and told and lag.reason == told.reason else _AGAIN)
            if lag and (told is None or time.monotonic() - told_at > wait_s):
                tell(
                    f"MLflow at {name} is behind since {lag.clock}: {ended(lag.reason)} The journal has everything, and it "
                    "is sent as soon as MLflow takes it",
                    True,
                )
                told, told_at = lag, time.monotonic()
            elif told and lag is None and self._has_sent(told):
                tell(f"MLflow at {name} has caught up; it was behind since {told.clock}", False)
                told = None

    def _has_sent(self, lag: Lag) -> bool:
        """Whether what was not sent then has been sent by now."""
        with self._lock:
            return not self._failures and self._began is None and (self._since is None or self._since > lag.since)
