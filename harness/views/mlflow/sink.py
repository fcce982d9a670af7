"""Sends one run directory's journal to one MLflow: each pass sends what is not there yet.

Sending twice stores once, because every row has the time of its event. `mlflow.json` in the run directory remembers
what was sent; if it is lost, the runs are found again by their tags.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.analysis import labels
from harness.disk import file_lock, finite, obstacle, read_json, write_atomic
from harness.errors import UserError
from harness.events import TrialEvent
from harness.journal.journal import FOLDER, INDEX, Journal
from harness.journal.results import Result, parity_of, summarise
from harness.views.mlflow import answer, cells, database, lineage
from harness.views.mlflow import trials as view
from harness.views.mlflow.client import PARENT, Runs, connect, place, reason
from harness.views.mlflow.parents import Parents, digest, digest_of, equivalence
from harness.views.mlflow.where import belongs, is_folder, redact

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_STALE = {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"}  # perhaps a stale cursor

_PASSING = ("mlflow.note.content", "cause", "hint", "timing_withheld", "stopped_on", "warnings")
"""Tags of a trial's run that may cease to be true."""

REPORT_S = 30.0
"""For how long the report may be written, in seconds."""

_DOUBT_S = 60.0  # how much later than its answer a server may still do what it was asked for


class Sink:
    """One run directory and one MLflow. Every pass holds a lock, since a new sqlite file allows only one writer."""

    def __init__(self, journal: Journal, uri: str) -> None:
        self._journal = journal
        self._uri = uri
        self._out = journal.run_dir.parent
        self._cursor_path = journal.run_dir / "mlflow.json"
        self._client: Any = None
        self._doubtful: dict[str, float] = {}
        self.sent: dict[str, Any] = {}
        """The cursor as it was read or written last."""
        self.progress = 0.0
        """When something was last stored, by the monotonic clock."""
        self.report_s = REPORT_S
        self.remark: str | None = None
        """Why the report could not be sent with the last pass; all else has been."""
        self.is_at_report = False
        """Whether all else has been sent, and the answer or the report is being written or sent."""

    def push(self, trial_ids: Iterable[str], live: bool, lock_timeout_s: float) -> int:
        """Sends what these trials lack; returns the number of new events. `live`: unfinished trials are running."""
        with file_lock(self._lock_path(), lock_timeout_s) as locked:
            if not locked:
                raise TimeoutError("another process is writing to MLflow from the same output folder")
            work = [(trial_id, events) for trial_id in trial_ids if (events := self._journal.events(trial_id))]
            cursor = self.sent = self.load()
            self._doubtful |= cursor.get("doubtful", {})
            if not self._is_behind(cursor, work, live):
                return 0
            if self._client is None:
                self._client = connect(self._uri, self._out)
            try:
                return self._send(cursor, work, live)
            except Exception as error:
                if getattr(error, "error_code", None) not in _STALE:
                    self._client = None  # so that the next pass looks first whether anybody is there
                    if self._doubtful and (known := self.load()):
                        self._save(known)
                    raise
                everything = [(known, self._journal.events(known)) for known in self._journal.trial_ids()]
                return self._send({}, [(known, events) for known, events in everything if events], live)

    def lacking(self) -> tuple[int, int]:
        """How many events, of how many trials, the journal has and MLflow is not known to have."""
        sent: dict[str, dict[str, Any]] = {}
        with suppress(UserError):  # a database that cannot be read
            sent = self.load().get("trials", {})
        counts: list[int] = [
            len(self._journal.events(trial_id)) - sent.get(trial_id, {}).get("events", 0)
            for trial_id in self._journal.trial_ids()
        ]
        return sum(max(0, count) for count in counts), sum(count > 0 for count in counts)

    def load(self) -> dict[str, Any]:
        """The cursor; empty if it is lost, belongs to another MLflow, or tells of artifacts that are gone."""
        cursor, path = read_json(self._cursor_path) or {}, database.path_of(self._uri)
        if not cursor or not belongs(cursor, self._uri, self._out):
            return {}
        if path:
            database.relocate(path, self._out)
            files = database.artifacts(path, str(cursor.get("experiment_id")))
            if files is not None and not files.is_dir():
                return {}
        return cursor

    def _lock_path(self) -> Path:
        """A run that may only be read can be sent elsewhere: then the lock is a temporary file."""
        if obstacle(self._out):
            name = hashlib.sha256(self._uri.encode()).hexdigest()[:16]
            return Path(tempfile.gettempdir()) / f"capsbench-mlflow-{name}.lock"
        return self._out / ".mlflow.lock"

    def _is_behind(self, cursor: Mapping[str, Any], work: Sequence[tuple[str, list[TrialEvent]]], live: bool) -> bool:
        if cursor.get("run_dir", self._place()) != self._place():
            return True
        if (
            self._doubtful
            or "suite" not in cursor
            or (not live and cursor["suite"]["status"] != self._suite_status(live))
        ):
            return True
        if not live and cursor["suite"].get("answer") != answer.fingerprint(self._journal):
            return True
        if not live and cursor["suite"].get("equivalence") != equivalence(self._journal)[1]:
            return True
        if not live and self._cells_sent(cursor) != {
            key: each.digest(live) for key, each in cells.parents_of(self._journal).items()
        }:
            return True
        sent = cursor["trials"]
        return any(
            sent.get(trial_id, {}).get("events") != len(events)
            or sent[trial_id]["status"] != self._trial_status(self._summary(trial_id, events), live)
            or sent[trial_id].get("figures") != self._figures(trial_id)
            or sent[trial_id].get("parent") != self._parent(cursor, trial_id)
            or (
                sent[trial_id]["status"] == "FINISHED"
                and cursor.get("models", True)
                and not sent[trial_id].get("model")
            )
            for trial_id, events in work
        )

    def _send(self, cursor: dict[str, Any], work: Sequence[tuple[str, list[TrialEvent]]], live: bool) -> int:
        cursor["uri"] = redact(self._uri)
        cursor.setdefault("trials", {})
        cursor.setdefault("cells", {})
        parents = Parents(self._client, self._journal, cursor, self._doubtful, lambda: self._save(cursor))
        parents.experiment(self._uri, self._out)
        self._send_place(cursor)
        parents.suite("RUNNING" if live else self._suite_status(live))
        if not live:
            parents.equivalence()
        parents.cells(live)
        models = lineage.Models(self._client, cursor["experiment_id"], cursor.get("models", not is_folder(self._uri)))
        count = 0
        for trial_id, events in work:
            count += self._send_trial(cursor, trial_id, events, live, models)
            cursor["models"] = models.is_kept
            self._save(cursor)
        if self._doubtful:
            self._settle(cursor)
            self._save(cursor)
        self.remark, self.is_at_report = None, not live
        try:
            if parents.note(live):
                self._send_report(parents)
        finally:
            self.is_at_report = False
        return count

    def _send_report(self, parents: Parents) -> None:
        """A report that fails is told, and fails nothing: all else is there."""
        try:
            parents.report(self.report_s)
        except Exception as error:  # whatever a report is made of, and wherever it goes
            self.remark = f"the report is not in MLflow: {reason(error, self._uri)}"

    def _settle(self, cursor: dict[str, Any]) -> None:
        """Looks for second copies of runs whose creation was answered late or not at all; a late one may yet come."""
        runs = self._runs(cursor)
        for key, since in list(self._doubtful.items()):
            sent = cursor["suite"] if key == "suite" else {**cursor["cells"], **cursor["trials"]}.get(key, {})
            if sent.get("run_id"):
                runs.find(key, keep=sent["run_id"])
            if time.time() - since > _DOUBT_S:
                del self._doubtful[key]

    def _save(self, cursor: dict[str, Any]) -> None:
        cursor["doubtful"] = self._doubtful
        self.sent = cursor
        self.progress = time.monotonic()
        try:
            write_atomic(self._cursor_path, json.dumps(cursor, indent=2) + "\n")
        except OSError as error:  # of a run that may only be read: next time, its runs are found by their tags
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise

    def _place(self) -> str:
        return place(self._journal)

    def _send_place(self, cursor: dict[str, Any]) -> None:
        """Where the run directory is, on each of its runs: it may have been moved since."""
        if cursor.get("run_dir", self._place()) != self._place():
            for sent in (cursor["suite"], *cursor["cells"].values(), *cursor["trials"].values()):
                if sent.get("run_id"):
                    self._client.set_tag(sent["run_id"], "capsbench.run_dir", self._place())
        cursor["run_dir"] = self._place()

    def _send_trial(
        self, cursor: dict[str, Any], trial_id: str, events: list[TrialEvent], live: bool, models: lineage.Models
    ) -> int:
        """Brings one trial's run up to date; returns how many events were new."""
        journal, runs = self._journal, self._runs(cursor)
        trial, summary = journal.trial(trial_id), self._summary(trial_id, events)
        sent: dict[str, Any] = cursor["trials"].setdefault(trial_id, {"run_id": None, "events": 0, "status": None})
        status = self._trial_status(summary, live)
        parent, figures = self._parent(cursor, trial_id), self._figures(trial_id)
        described = lineage.model(trial, summary, events) if models.is_kept else None
        current = described and digest(described)
        is_there = sent["events"] == len(events) and sent["status"] == status and sent.get("figures") == figures
        if is_there and sent.get("model") == current:
            if sent.get("parent") != parent:  # another plan added or removed its cell
                self._client.set_tag(sent["run_id"], PARENT, parent)
                sent["parent"] = parent
            return 0
        rows, known = view.metric_rows(trial, events), set(view.metric_rows(trial, events[: sent["events"]]))
        if sent["run_id"] is None and (found := runs.find(trial_id)):
            sent.update(run_id=found.info.run_id, said=[key for key in _PASSING if key in found.data.tags])
            if set(found.data.metrics) - {row.key for row in rows}:
                self._discard(runs, models, sent)
        elif sent["events"] > len(events) or not known <= set(rows):
            self._discard(runs, models, sent)
        is_new = sent["run_id"] is None
        if is_new:
            known = set[view.Row]()
            sent["run_id"] = runs.create(trial_id, labels.run_name(trial), parent, view.time_ms(events[0]))
            runs.log(sent["run_id"], params=view.params(trial))
        run_id, fresh = str(sent["run_id"]), len(events) - sent["events"]
        if sent.get("data") != lineage.digest(summary):
            models.read(run_id, lineage.inputs(trial, summary))
            sent["data"] = lineage.digest(summary)
        model_id: str | None = None
        if described and sent.get("model") != current:
            model_id = models.record(run_id, trial, described, is_new and trial_id not in self._doubtful)
            known -= lineage.ends(rows)  # they are the model's, too; what the run has already, is not stored again
            sent["model"] = current if model_id else None
        tags = view.trial_tags(trial, summary, events, journal.environment())
        if status == "RUNNING":  # nothing of it has failed, and its timing is withheld only so far
            tags = {key: value for key, value in tags.items() if key not in _PASSING or key == "warnings"}
        for key in set(sent.get("said", ())) - tags.keys():
            self._client.delete_tag(run_id, key)
        sent["said"] = [key for key in _PASSING if key in tags]
        new = [row for row in rows if row not in known]
        runs.log(run_id, tags={**tags, PARENT: parent}, metrics=lineage.metrics(new, trial, summary, model_id))
        if status != "RUNNING":
            self._log_files(run_id, summary, events)
            if figures and figures != sent.get("figures"):
                self._client.log_artifacts(run_id, str(journal.trial_dir(trial_id) / FOLDER), FOLDER)
                sent["figures"] = figures
        runs.set_status(sent, status, view.time_ms(events[-1]))
        sent.update(events=len(events), parent=parent)
        return fresh

    def _discard(self, runs: Runs, models: lineage.Models, sent: dict[str, Any]) -> None:
        models.drop(sent["run_id"])
        runs.discard(sent)

    def _cells_sent(self, cursor: Mapping[str, Any]) -> dict[str, str | None]:
        return {key: sent["digest"] for key, sent in cursor.get("cells", {}).items()}

    def _parent(self, cursor: Mapping[str, Any], trial_id: str) -> str:
        """The id of the trial's parent run: its cell's, or the suite's if only one seed is planned."""
        cell = next((sent for sent in cursor.get("cells", {}).values() if trial_id in sent.get("trials", ())), None)
        return (cell or cursor["suite"])["run_id"]

    def _runs(self, cursor: Mapping[str, Any]) -> Runs:
        return Runs(self._client, cursor["experiment_id"], self._journal, self._doubtful)

    def _log_files(self, run_id: str, summary: Result, events: Sequence[TrialEvent]) -> None:
        self._client.log_dict(run_id, summary.to_json(), "result.json")
        if parity := parity_of(events):
            self._client.log_dict(run_id, finite(asdict(parity)), "parity.json")
        for log in sorted(self._journal.trial_dir(summary.id).glob("attempt-*.log")):
            self._client.log_artifact(run_id, str(log))

    def _figures(self, trial_id: str) -> str | None:
        """A digest of the trial's figures; None while there are none or they are being drawn."""
        index = self._journal.trial_dir(trial_id) / FOLDER / INDEX
        try:
            return digest_of(index)
        except OSError:
            return None

    def _summary(self, trial_id: str, events: Sequence[TrialEvent]) -> Result:
        return summarise(self._journal.trial(trial_id), events)

    def _trial_status(self, summary: Result, live: bool) -> str:
        status = _STATUS[summary.status]
        return "RUNNING" if live and status == "KILLED" else status

    def _suite_status(self, live: bool) -> str:
        """The latest plan's status: finished if all its trials are, failed if any did, else interrupted.

        A proposal that failed is no failure of the search.
        """
        if live:
            return "RUNNING"
        planned = [str(trial["id"]) for trial in self._journal.plan()["trials"]]
        results = [summarise(self._journal.trial(key), self._journal.events(key)) for key in planned]
        states = {each.status for each in results if (each.phase, each.status) != ("proposal", "failed")}
        return "FAILED" if "failed" in states else "FINISHED" if states <= {"finished"} else "KILLED"
