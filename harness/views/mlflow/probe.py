"""Whether the MLflow that is meant can be used: asked before anything starts, answered within seconds."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from harness.disk import file_lock, obstacle
from harness.errors import UserError
from harness.views.mlflow import database, remote, served
from harness.views.mlflow.where import Where


def problem(where: Where, out: Path) -> str | None:
    """Why MLflow cannot be used there now, and what to do, without passwords; None if it can. Writes nothing.

    What only MLflow knows how to reach, such as Databricks, is not asked.
    """
    if importlib.util.find_spec("mlflow") is None:
        return 'MLflow is not installed: pip install "capsbench[mlflow]"'
    if where.uri.startswith(("http://", "https://")):
        return remote.problem(where.uri)
    path = database.path_of(where.uri)
    if path is None:
        return served.problem(where.uri)
    lock = out / ".mlflow.lock"
    folder = next(each for each in path.parents if each.exists())
    try:
        if lock.exists() and not obstacle(out):
            with file_lock(lock, 0) as is_free:
                if not is_free:  # another run is writing to it at this moment, perhaps making it
                    return None
                database.examine(path)
        else:
            database.examine(path)
        with tempfile.TemporaryFile(dir=folder):  # beside an SQLite file there are others while it is written to
            pass
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"MLflow's database {path} cannot be written: {folder}: {error.strerror}"
    return None
