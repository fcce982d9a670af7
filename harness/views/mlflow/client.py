"""An MLflow client that prints nothing, and one run directory's runs in it: created, found again, filled."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from harness.errors import UserError
from harness.journal.journal import Journal
from harness.views.mlflow import database, remote
from harness.views.mlflow import trials as view
from harness.views.mlflow.where import is_server, redact

PARENT = "mlflow.parentRunId"
_QUIET = {  # only our own text may reach the screen; a dead server is noticed in seconds, not minutes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "GIT_PYTHON_REFRESH": "quiet",
}

_DRIVERS = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}  # module -> the distribution that has it


def quiet_environment() -> dict[str, str]:
    """The bench's settings for MLflow; what the user has already set stays."""
    return {key: os.environ.get(key, value) for key, value in _QUIET.items()}


def connect(uri: str, out: Path) -> Any:
    """An MLflow client that prints nothing, for a database that is as MLflow needs it.

    Raises `UserError` if MLflow is not installed, or if the database cannot be used: MLflow itself would wait for
    minutes, or upgrade an older one. Artifacts of a folder that was moved are found where they are now.
    """
    prepare(uri, out)
    os.environ.update(quiet_environment())
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UserError(f"MLflow is not installed here ({error}); `pip install mlflow`") from error
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    client = MlflowClient(uri)
    with suppress(ImportError, AttributeError):  # MLflow remembers where the files of a run were, whatever is moved
        from mlflow.tracking._tracking_service import utils

        cast(Any, utils)._artifact_repos_cache.clear()
    return client


def prepare(uri: str, out: Path) -> None:
    """Examines a database before MLflow opens it. Raises `UserError`; a server is left to answer for itself."""
    if is_server(uri):
        return
    if path := database.path_of(uri):
        database.examine(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        database.relocate(path, out)
    elif uri.startswith(("postgresql", "mysql", "mssql")) and importlib.util.find_spec("sqlalchemy"):
        _require_schema(uri)


def _require_schema(uri: str) -> None:
    """The same for a database server: can it be reached, and is its schema this MLflow's?"""
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with create_engine(uri).connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    except ImportError as error:
        package = _DRIVERS.get(error.name or "", error.name)
        raise UserError(f"the database {redact(uri)} needs a driver: `pip install {package}`") from error
    except (SQLAlchemyError, ValueError) as error:
        raise UserError(f"the database {redact(uri)} cannot be used: {_line(error)}") from error
    if revision is not None:
        database.require_schema(redact(uri), revision, redact(uri))


def reason(error: Exception, uri: str) -> str:
    """What went wrong with the MLflow at `uri`, in our words where they are known, without passwords."""
    if isinstance(error, UserError):
        return str(error)
    if "timed out" in str(error):
        return "it does not answer"
    if uri.startswith(("http://", "https://")) and (found := remote.problem(uri)):
        return found
    path = database.path_of(uri)
    if path and "database is locked" in str(error):
        return database.locked(path)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return _line(error)


def _line(error: Exception) -> str:
    """The first line of an error, or its type."""
    line = redact(next(iter(str(error).strip().splitlines()), type(error).__name__))
    return line if len(line) <= 200 else f"{line[:200]}..."


class Runs:
    """One run directory's runs. Each has a key: "suite", or the id of a cell or trial."""

    def __init__(self, client: Any, experiment_id: str, journal: Journal) -> None:
        self.client = client
        self._experiment_id = experiment_id
        self._journal = journal

    def create(self, key: str, name: str, parent: str | None = None, started_ms: int | None = None) -> str:
        """Creates a run under the run with id `parent`; returns its id."""
        folder = str(self._journal.run_dir.resolve())
        tags = {**self._key(key), "capsbench.run_dir": folder, "mlflow.source.name": "capsbench"}
        if parent:
            tags[PARENT] = parent
        return self.client.create_run(self._experiment_id, started_ms, tags, name).info.run_id

    def _key(self, key: str) -> dict[str, str]:
        """The tags that identify a run anywhere: the run directory's random name, and the key within it."""
        return {"capsbench.run_id": str(self._journal.plan().get("run_id")), "capsbench.trial": key}

    def find(self, key: str) -> Any:
        """The run with that key, or None."""
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in self._key(key).items())
        return next(iter(self.client.search_runs([self._experiment_id], wanted, max_results=1)), None)

    def discard(self, sent: dict[str, Any]) -> None:
        """Deletes a run that a later attempt made void, so that a new one replaces it: MLflow keeps every value."""
        self.client.delete_run(sent["run_id"])
        sent.update(run_id=None, events=0, status=None, figures=None)

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
    ) -> None:
        """As few calls as possible: MLflow takes 100 tags, 100 params and 1000 metrics per call, 1000 in total."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(row.key, row.value, row.time_ms, row.step) for row in rows]
        described = [RunTag(key, value) for key, value in (tags or {}).items()]
        configured = [Param(key, value) for key, value in (params or {}).items()]
        for start in range(0, max(len(metrics), 1), 800):
            self.client.log_batch(run_id, metrics[start : start + 800], configured, described, synchronous=True)
            described, configured = [], []
