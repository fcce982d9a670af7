"""An MLflow client that prints nothing, and one run directory's runs in it: created, found again, filled."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from harness.errors import UserError
from harness.journal.journal import Journal
from harness.views.mlflow import database, remote, served
from harness.views.mlflow import trials as view
from harness.views.mlflow.where import first_line, is_server

PARENT = "mlflow.parentRunId"
_LATE_S = 4.0  # from here on MLflow's client may have asked a second time
_QUIET = {  # only our own text may reach the screen; a dead server is noticed in seconds, not minutes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a run whose creation was repeated would be there twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "GIT_PYTHON_REFRESH": "quiet",
}


def quiet_environment() -> dict[str, str]:
    """The bench's settings for MLflow; what the user has already set stays."""
    return {key: os.environ.get(key, value) for key, value in _QUIET.items()}


def connect(uri: str, out: Path) -> Any:
    """An MLflow client that prints nothing, for a server that answers, or a database that is as MLflow needs it.

    Raises `UserError` if MLflow is not installed, or if these cannot be used: MLflow itself would wait for minutes, or
    upgrade an older database. Artifacts of a folder that was moved are found where they are now.
    """
    prepare(uri, out)
    os.environ.update(quiet_environment())
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UserError(f"MLflow is not installed here ({error}); `pip install mlflow`") from error
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    client = MlflowClient(served.watched(uri))
    with suppress(ImportError, AttributeError):  # MLflow remembers where the files of a run were, whatever is moved
        from mlflow.tracking._tracking_service import utils

        cast(Any, utils)._artifact_repos_cache.clear()
    return client


def prepare(uri: str, out: Path) -> None:
    """Examines what is there before MLflow is imported and opens it. Raises `UserError` if it cannot be used."""
    if is_server(uri):
        if uri.startswith("http") and (problem := remote.problem(uri)):
            raise UserError(problem)
        return
    if path := database.path_of(uri):
        database.examine(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        database.relocate(path, out)
    elif problem := served.problem(uri):
        raise UserError(problem)


def reason(error: Exception, uri: str) -> str:
    """What went wrong with the MLflow at `uri`, in our words where they are known, without passwords."""
    if isinstance(error, UserError):
        return str(error)
    if "timed out" in str(error):
        return "it does not answer"
    if uri.startswith(("http://", "https://")) and (found := remote.problem(uri)):
        return found
    if "mlflow-artifacts" in str(error):
        return "its artifacts are kept by an MLflow server: name that, such as http://server:5000, not its database"
    path = database.path_of(uri)
    if path and "database is locked" in str(error):
        return database.locked(path)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return first_line(error)


def place(journal: Journal) -> str:
    """Where a run directory is, for others to read: one's home folder is ~, without a name."""
    folder = journal.run_dir.resolve()
    with suppress(RuntimeError, ValueError):  # no home, or not below it
        return str(Path("~") / folder.relative_to(Path.home().resolve()))
    return str(folder)


class Runs:
    """One run directory's runs. Each has a key: "suite", or the id of a cell or trial."""

    def __init__(self, client: Any, experiment_id: str, journal: Journal, doubtful: dict[str, float]) -> None:
        self.client = client
        self._experiment_id = experiment_id
        self._journal = journal
        self._doubtful = doubtful
        """Key -> when (seconds since 1970) the answer to making its run was lost, or late: there may be two of them."""

    def create(self, key: str, name: str, parent: str | None = None, started_ms: int | None = None) -> str:
        """Creates a run under the run with id `parent`; returns its id."""
        folder = place(self._journal)
        tags = {**self._key(key), "capsbench.run_dir": folder, "mlflow.source.name": "capsbench"}
        if parent:
            tags[PARENT] = parent
        began = time.monotonic()
        try:
            made = self.client.create_run(self._experiment_id, started_ms, tags, name).info.run_id
        except Exception:
            self._doubtful[key] = time.time()
            raise
        if time.monotonic() - began > _LATE_S:
            self._doubtful[key] = time.time()
        return made

    def _key(self, key: str) -> dict[str, str]:
        """The tags that identify a run anywhere: the run directory's random name, and the key within it."""
        return {"capsbench.run_id": str(self._journal.plan().get("run_id")), "capsbench.trial": key}

    def find(self, key: str, keep: str | None = None) -> Any:
        """The run with that key, or None. If it was made twice, the one with id `keep`, else the fullest, is kept."""
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in self._key(key).items())
        found = list(self.client.search_runs([self._experiment_id], wanted, max_results=100))
        found.sort(key=lambda run: (run.info.run_id != keep, -len(run.data.metrics), run.info.start_time))
        for other in found[1:]:
            self.client.delete_run(other.info.run_id)
        return found[0] if found else None

    def discard(self, sent: dict[str, Any]) -> None:
        """Deletes a run that a later attempt made void, so that a new one replaces it: MLflow keeps every value."""
        self.client.delete_run(sent["run_id"])
        sent.update(run_id=None, events=0, status=None, figures=None, data=None, model=None, said=[])

    def set_status(self, sent: dict[str, Any], status: str, ended_ms: int) -> None:
        """Sets the run's status if it differs."""
        if sent["status"] != status:
            if status == "RUNNING":
                self.client.update_run(sent["run_id"], status)
            else:
                self.client.set_terminated(sent["run_id"], status, ended_ms)
            sent["status"] = status

    def log(
        self,
        run_id: str,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        rows: Sequence[view.Row] = (),
        metrics: Sequence[Any] = (),
    ) -> None:
        """As few calls as possible: MLflow takes 100 tags, 100 params and 1000 metrics per call, 1000 in total.

        `metrics`: MLflow's own, after those of `rows`.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics = [*(Metric(row.key, row.value, row.time_ms, row.step) for row in rows), *metrics]
        described = [RunTag(key, value) for key, value in (tags or {}).items()]
        configured = [Param(key, value) for key, value in (params or {}).items()]
        for start in range(0, max(len(metrics), 1), 800):
            self.client.log_batch(run_id, metrics[start : start + 800], configured, described, synchronous=True)
            described, configured = [], []
