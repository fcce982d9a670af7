"""One run directory's journal, brought into one MLflow: each pass sends what is not there yet.

Sending twice stores once, because every row has the time of its event. `mlflow.json` in the run directory remembers
what was sent; where it is lost, the runs are found again by their tags.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import mlflow_view as view
from harness.equivalence import Pair, of_journal
from harness.errors import UserError
from harness.journal import Event, Journal, file_lock, finite, read_json, write_atomic
from harness.results import Result, parity_of, summarise

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_STALE = {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"}  # the cursor's fault, maybe
_QUIET = {  # only our own text may reach the screen; a dead server is found out in seconds, not minutes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Sink:
    """One run directory and one MLflow; every pass holds a lock, as a fresh sqlite file bears one writer only."""

    def __init__(self, journal: Journal, uri: str) -> None:
        self._journal = journal
        self._uri = uri
        self._cursor_path = journal.run_dir / "mlflow.json"
        self._client: Any = None

    def push(self, trial_ids: Iterable[str], live: bool, lock_timeout_s: float) -> int:
        """Sends what is unsent of these trials; returns the number of new events. Unended trials run only if `live`."""
        with file_lock(self._journal.run_dir.parent / ".mlflow.lock", lock_timeout_s) as locked:
            if not locked:
                raise TimeoutError("another process is writing to MLflow from the same output folder")
            work = [(trial_id, events) for trial_id in trial_ids if (events := self._journal.events(trial_id))]
            cursor = self.load()
            if not self._is_behind(cursor, work, live):
                return 0
            if self._client is None:
                self._client = connect(self._uri)
            try:
                return self._send(cursor, work, live)
            except Exception as error:
                if getattr(error, "error_code", None) not in _STALE:
                    raise
                everything = [(known, self._journal.events(known)) for known in self._journal.trial_ids()]
                return self._send({}, [(known, events) for known, events in everything if events], live)

    def load(self) -> dict[str, Any]:
        """The cursor; empty if it is lost, or of another MLflow."""
        cursor = read_json(self._cursor_path) or {}
        database = self._uri.removeprefix("sqlite:///")
        gone = database != self._uri and not Path(database).exists()
        return {} if gone or cursor.get("uri") != redact(self._uri) else cursor

    def _is_behind(self, cursor: Mapping[str, Any], work: Sequence[tuple[str, list[Event]]], live: bool) -> bool:
        if "suite" not in cursor or (not live and cursor["suite"]["status"] != self._suite_status(live)):
            return True
        if not live and cursor["suite"].get("equivalence") != self._equivalence()[1]:
            return True
        sent = cursor["trials"]
        return any(
            sent.get(trial_id, {}).get("events") != len(events)
            or sent[trial_id]["status"] != self._trial_status(self._summary(trial_id, events), live)
            for trial_id, events in work
        )

    def _send(self, cursor: dict[str, Any], work: Sequence[tuple[str, list[Event]]], live: bool) -> int:
        cursor.setdefault("uri", redact(self._uri))
        cursor.setdefault("trials", {})
        self._send_experiment(cursor)
        self._send_suite(cursor, "RUNNING" if live else self._suite_status(live))
        if not live:
            self._send_equivalence(cursor["suite"])
        count = 0
        for trial_id, events in work:
            count += self._send_trial(cursor, trial_id, events, live)
            self._save(cursor)
        return count

    def _save(self, cursor: Mapping[str, Any]) -> None:
        write_atomic(self._cursor_path, json.dumps(cursor, indent=2) + "\n")

    def _send_experiment(self, cursor: dict[str, Any]) -> None:
        """Finds or creates the experiment, and gives it the view its page opens with."""
        client, name = self._client, view.experiment_name(self._journal.plan())
        if "experiment_id" not in cursor:
            found = client.get_experiment_by_name(name)
            if found is None:
                is_server = self._uri.startswith(("http://", "https://", "databricks"))
                files = self._journal.run_dir.resolve().parent / "mlartifacts" / name
                cursor["experiment_id"] = client.create_experiment(name, None if is_server else files.as_uri())
            else:
                cursor["experiment_id"] = found.experiment_id
                if found.lifecycle_stage == "deleted":  # the name stays taken, so nothing else would help
                    client.restore_experiment(found.experiment_id)
        fingerprint = hashlib.sha256(view.saved_view(0).encode()).hexdigest()
        if cursor.get("view") != fingerprint:
            experiment_id = cursor["experiment_id"]
            client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
            client.set_experiment_tag(experiment_id, view.VIEW_TAG, view.saved_view(round(time.time() * 1000)))
            cursor["view"] = fingerprint

    def _send_suite(self, cursor: dict[str, Any], status: str) -> None:
        client, journal = self._client, self._journal
        suite = cursor.setdefault("suite", {"status": None, "files": {}})
        if "run_id" not in suite:
            found = self._find(cursor, "suite")
            suite["run_id"] = found.info.run_id if found else self._create(cursor, journal.run_dir.name, "suite", None)
        tags = view.suite_tags(journal.plan(), journal.environment())
        files = {path: _digest(path) for name in ("suite.yaml", "environment.json", "plan.json")
                 if (path := journal.run_dir / name).exists()}  # fmt: skip
        for path, digest in files.items():
            if suite["files"].get(path.name) != digest:
                self._log(suite["run_id"], tags=tags)
                client.log_artifact(suite["run_id"], str(path))
                suite["files"][path.name] = digest
        self._set_status(suite, status, round(time.time() * 1000))
        self._save(cursor)

    def _send_equivalence(self, suite: dict[str, Any]) -> None:
        """The pairs of implementations over seeds (L7), which belong to no single trial: a file and a tag of the suite."""
        pairs, digest = self._equivalence()
        if suite.get("equivalence") != digest:
            self._client.log_dict(
                suite["run_id"], {"equivalence": [pair.to_json() for pair in pairs]}, "equivalence.json"
            )
            self._client.set_tag(suite["run_id"], "equivalence", view.equivalence_tag(pairs))
            suite["equivalence"] = digest

    def _equivalence(self) -> tuple[list[Pair], str | None]:
        """The pairs of the latest plan, and a digest of what they say; None where there are no pairs."""
        _, pairs = of_journal(self._journal)
        text = json.dumps([pair.to_json() for pair in pairs])
        return pairs, hashlib.sha256(text.encode()).hexdigest() if pairs else None

    def _send_trial(self, cursor: dict[str, Any], trial_id: str, events: list[Event], live: bool) -> int:
        """Brings one trial's run up to date; returns how many events were new."""
        journal = self._journal
        trial, summary = journal.trial(trial_id), self._summary(trial_id, events)
        sent: dict[str, Any] = cursor["trials"].setdefault(trial_id, {"run_id": None, "events": 0, "status": None})
        status = self._trial_status(summary, live)
        if sent["events"] == len(events) and sent["status"] == status:
            return 0
        rows, known = view.metric_rows(trial, events), set(view.metric_rows(trial, events[: sent["events"]]))
        if sent["run_id"] is None and (found := self._find(cursor, trial_id)):
            sent["run_id"] = found.info.run_id
            if set(found.data.metrics) - {row.key for row in rows}:
                self._discard(sent)
        elif sent["events"] > len(events) or not known <= set(rows):
            self._discard(sent)
        if sent["run_id"] is None:
            known = set[view.Row]()
            started = view.time_ms(events[0])
            sent["run_id"] = self._create(cursor, view.run_name(trial), trial_id, started)
            self._log(sent["run_id"], params=view.params(trial))
        fresh = len(events) - sent["events"]
        tags = view.trial_tags(trial, summary, events, journal.environment())
        self._log(sent["run_id"], tags=tags, rows=[row for row in rows if row not in known])
        if status != "RUNNING":
            self._log_files(sent["run_id"], summary, events)
        self._set_status(sent, status, view.time_ms(events[-1]))
        sent["events"] = len(events)
        return fresh

    def _log_files(self, run_id: str, summary: Result, events: Sequence[Event]) -> None:
        self._client.log_dict(run_id, summary.to_json(), "result.json")
        if parity := parity_of(events):
            self._client.log_dict(run_id, finite(asdict(parity)), "parity.json")
        for log in sorted(self._journal.trial_dir(summary.id).glob("attempt-*.log")):
            self._client.log_artifact(run_id, str(log))

    def _create(self, cursor: Mapping[str, Any], name: str, key: str, started_ms: int | None) -> str:
        folder = str(self._journal.run_dir.resolve())
        tags = {**self._key(key), "capsbench.run_dir": folder, "mlflow.source.name": "capsbench"}
        if key != "suite":
            tags["mlflow.parentRunId"] = cursor["suite"]["run_id"]
        return self._client.create_run(cursor["experiment_id"], started_ms, tags, name).info.run_id

    def _key(self, key: str) -> dict[str, str]:
        """The tags a run is known by wherever it is: the run directory's own random name, and the trial's id."""
        return {"capsbench.run_id": str(self._journal.plan().get("run_id")), "capsbench.trial": key}

    def _find(self, cursor: Mapping[str, Any], key: str) -> Any:
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in self._key(key).items())
        return next(iter(self._client.search_runs([cursor["experiment_id"]], wanted, max_results=1)), None)

    def _discard(self, sent: dict[str, Any]) -> None:
        """MLflow keeps every value for ever: where a later attempt made some void, the trial gets a new run."""
        self._client.delete_run(sent["run_id"])
        sent.update(run_id=None, events=0, status=None)

    def _set_status(self, sent: dict[str, Any], status: str, ended_ms: int) -> None:
        if sent["status"] != status:
            if status == "RUNNING":
                self._client.update_run(sent["run_id"], status)
            else:
                self._client.set_terminated(sent["run_id"], status, ended_ms)
            sent["status"] = status

    def _log(
        self, run_id: str, tags: Mapping[str, str] | None = None, params: Mapping[str, str] | None = None,
        rows: Sequence[view.Row] = (),
    ) -> None:  # fmt: skip
        """One call for what fits: MLflow takes 100 tags, 100 params and 1000 metrics at a time, 1000 together."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(row.key, row.value, row.time_ms, row.step) for row in rows]
        described = [RunTag(key, value) for key, value in (tags or {}).items()]
        configured = [Param(key, value) for key, value in (params or {}).items()]
        for start in range(0, max(len(metrics), 1), 800):
            self._client.log_batch(run_id, metrics[start : start + 800], configured, described, synchronous=True)
            described, configured = [], []

    def _summary(self, trial_id: str, events: Sequence[Event]) -> Result:
        return summarise(self._journal.trial(trial_id), events)

    def _trial_status(self, summary: Result, live: bool) -> str:
        status = _STATUS[summary.status]
        return "RUNNING" if live and status == "KILLED" else status

    def _suite_status(self, live: bool) -> str:
        """Of the latest plan: finished if all its trials are, failed if any did, else interrupted."""
        if live:
            return "RUNNING"
        planned = [str(trial["id"]) for trial in self._journal.plan()["trials"]]
        states = {summarise(self._journal.trial(key), self._journal.events(key)).status for key in planned}
        return "FAILED" if "failed" in states else "FINISHED" if states <= {"finished"} else "KILLED"


def redact(uri: str) -> str:
    """`uri` without its password, fit for screens and files."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def quiet_environment() -> dict[str, str]:
    """MLflow's settings under the bench; what the user set already stays."""
    return {key: os.environ.get(key, value) for key, value in _QUIET.items()}


def connect(uri: str) -> Any:
    """An MLflow client that prints nothing. Raises `UserError` if MLflow is not installed."""
    os.environ.update(quiet_environment())
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UserError(f"MLflow is not installed here ({error}); `pip install mlflow`") from error
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
