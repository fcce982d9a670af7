"""The journal's copy in MLflow: sent from one thread of the driver, or replayed at any time by `sync`.

The journal is the truth: whatever happens to the server, nothing is lost and everything can be sent again.
`harness.views.mlflow.sink` decides what is sent and makes sure that it is stored only once.
"""

from __future__ import annotations

import os
import shlex
import threading
from dataclasses import dataclass

from harness.errors import UserError
from harness.journal.journal import Journal
from harness.views.mlflow import trials as view
from harness.views.mlflow.client import reason
from harness.views.mlflow.sink import Sink
from harness.views.mlflow.where import OPTION, default_uri, locate, redact, shown

__all__ = ["SyncReport", "Tracker", "default_uri", "redact", "sync"]

_FLUSH_S = 10.0  # while trials run: rare enough not to slow them down


@dataclass(frozen=True)
class SyncReport:
    """What `sync` did: where the run is in MLflow, how many of its trials are there, how many events were new."""

    uri: str
    experiment: str
    experiment_id: str
    run_id: str
    trials: int
    events: int


def sync(run_dir: str | os.PathLike[str], uri: str | None = None) -> SyncReport:
    """Sends everything in the run directory to MLflow; safe at any time, even during a run.

    Raises `UserError` if there is no run, if MLflow is not installed, or if its server does not take the data.
    """
    journal = Journal(run_dir)
    if not journal.plan():
        raise UserError(f"{run_dir} is not a run directory: it has no plan.json. Give the folder that `run` named.")
    where = locate(journal.run_dir.parent, uri)
    sink = Sink(journal, where.uri)
    try:
        events = sink.push(journal.trial_ids(), live=journal.is_live(), lock_timeout_s=30)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {where} did not take the run: {reason(error, where.uri)}") from error
    cursor = sink.sent
    return SyncReport(
        redact(where.uri), view.experiment_name(journal.plan()), cursor["experiment_id"], cursor["suite"]["run_id"],
        len(cursor["trials"]), events,
    )  # fmt: skip


class Tracker:
    """Sends the journal to MLflow during a run, from its own thread; no problem here stops the run."""

    def __init__(self, journal: Journal, uri: str | None = None, flush_s: float = _FLUSH_S) -> None:
        self._where = locate(journal.run_dir.parent, uri)
        self.uri = self._where.uri
        self._journal = journal
        self._flush_s = flush_s
        self._sink = Sink(journal, self.uri)
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._stop = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        """Returns at once; the thread imports MLflow, creates its database (seconds) and sends what is unsent.

        The plan must already be written.
        """
        self._changed.update(self._journal.trial_ids())
        self._thread.start()

    def notify(self, trial_id: str) -> None:
        """Tells the thread that the trial has new events."""
        with self._lock:
            self._changed.add(trial_id)

    @property
    def warning(self) -> str | None:
        """Why MLflow lags behind the journal and what to do about it; None while it does not."""
        if self._problem is None:
            return None
        problem = self._problem.rstrip(".")
        command = f"capsbench sync {shlex.quote(str(self._journal.run_dir))}"
        if self._where.source == OPTION:
            command += f" --mlflow-uri {shlex.quote(shown(self.uri))}"
        return f"MLflow at {shown(self.uri)} lacks results ({problem}). Nothing is lost; bring them in with: {command}"

    def close(self, timeout_s: float = 30.0) -> str | None:
        """Sends the rest and ends the thread; returns the warning if anything is still missing in MLflow."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._problem = self._problem or f"no answer within {timeout_s:g} s"
        return self.warning

    def _work(self) -> None:
        stopping, pause_s = False, self._flush_s
        while True:
            with self._lock:
                changed, self._changed = self._changed, set()
            try:
                self._sink.push(self._journal.trial_ids() if stopping else changed, not stopping, lock_timeout_s=5)
                self._problem, pause_s = None, self._flush_s
            except Exception as error:  # a problem with the copy must never stop the run
                self._problem = reason(error, self.uri)
                pause_s = min(2 * pause_s, 6 * self._flush_s)
                with self._lock:
                    self._changed |= changed
            if stopping:
                return
            stopping = self._stop.wait(pause_s)
