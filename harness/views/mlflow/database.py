"""A database file of MLflow's (SQLite): its address, what is wrong with it, and where its artifacts are now.

All of this reads the file with Python's own sqlite3, so that what is wrong is found, and told, before MLflow is
imported: MLflow waits two minutes for a file that is no database, and upgrades an older one without asking.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from harness.disk import obstacle
from harness.errors import UserError
from harness.views.mlflow.holders import holding

ARTIFACTS = "mlartifacts"
"""The folder of artifacts, beside the database."""

LATEST = "capsbench.latest"
"""The experiment's tag with the id of the parent run that got its answer last."""

_LOCK_TIMEOUT_S = 5.0
_URI = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<path>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
_OURS = "(experiments.name LIKE 'capsbench/%' OR experiments.name LIKE 'capsbench-parity/%')"
_PLACES = (  # where else MLflow keeps the place of an artifact
    ("logged_models", "artifact_location"), ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
_ALIEN = {  # how other files begin
    b"<!doctype": "an HTML page", b"<html": "an HTML page", b"\x1f\x8b": "a gzip file", b"pk\x03\x04": "a zip file",
    b"version https://git-lfs": "a Git LFS pointer, which `git lfs pull` replaces",
}  # fmt: skip


def uri_of(path: Path) -> str:
    """The address of a database file, whatever characters its path has."""
    plain = str(path)
    if not re.search("[?%\x00-\x1f\x7f\ud800-\udfff]", plain):
        return f"sqlite:///{plain}"
    quoted = quote(os.fsencode(path))  # SQLite's own form, which names a driver so that MLflow leaves its folder alone
    return f"sqlite+pysqlite:///file:{quote(quoted) if _is_unquoted() else quoted}?uri=true"


def path_of(uri: str) -> Path | None:
    """The database file that an address names; None for a server, another kind of database, or one in memory."""
    found = _URI.fullmatch(uri)
    if found is None or found["path"] in ("", ":memory:"):
        return None
    path = unquote(found["path"]) if _is_unquoted() else found["path"]
    if "uri=true" in (found["query"] or "") and path.startswith("file:"):
        path = os.fsdecode(unquote_to_bytes(path.removeprefix("file:").removeprefix("//")))
    return Path(path).absolute()


@cache
def _is_unquoted() -> bool:
    """Whether SQLAlchemy takes %3F in a path for a question mark: it does from 2.1 on."""
    found = _distribution("sqlalchemy")
    return found is None or tuple(map(int, found.version.split(".")[:2])) >= (2, 1)


def examine(path: Path, *, to_write: bool = True) -> None:
    """Raises `UserError` if MLflow cannot use this database as it is: what it is instead, and what to do.

    One that does not exist yet is good if it can be made; one of another version of MLflow is not.
    """
    if problem := obstacle(path.parent, to_write=to_write):
        raise UserError(
            f"MLflow's database {path} cannot be {'written' if to_write else 'read'}: {problem}. {_elsewhere()}"
        )
    if path.is_symlink() and not path.exists():
        raise UserError(
            f"MLflow's database {path} is a link to {path.readlink()}, which does not exist. {_elsewhere()}"
        )
    if path.is_dir():
        raise UserError(f"MLflow's database {path} is a folder. Name the file in it: {uri_of(path / 'mlflow.db')}")
    if not path.exists() or not path.stat().st_size:
        return
    if not os.access(path, os.R_OK) or (to_write and not os.access(path, os.W_OK)):
        raise UserError(
            f"MLflow's database {path} cannot be {'written' if to_write else 'read'}: permission denied. {_elsewhere()}"
        )
    with _opened(path, to_write=to_write) as database:
        tables = _tables(database)
        others = sorted(tables - {"alembic_version"})
        if not others:
            return
        if "experiments" not in tables:
            names = ", ".join(others[:3])
            raise UserError(f"{path} is another program's database (its tables: {names}, ...). {_elsewhere()}")
        revision = (
            database.execute("SELECT version_num FROM alembic_version").fetchone()
            if "alembic_version" in tables
            else None
        )
        if revision or database.execute("SELECT 1 FROM experiments").fetchone():
            require_schema(str(path), revision and str(revision[0]), uri_of(path), path)


def require_schema(name: str, revision: str | None, uri: str, path: Path | None = None) -> None:
    """Raises `UserError` if the schema of a database is not that of the installed MLflow."""
    known, newest = _revisions()
    if not known or revision == newest:
        return
    version = next((each.version for each in map(_distribution, ("mlflow", "mlflow-skinny")) if each), "here")
    if revision is not None and revision not in known:
        raise UserError(
            f"{name} was made by a newer MLflow: MLflow {version}, which is installed here, does not know its schema "
            f"{revision}. Install that newer MLflow, or use another database. {_elsewhere()}"
        )
    keep = f"cp {shlex.quote(str(path))} {shlex.quote(f'{path}.before')} && " if path else ""
    upgrade = f"{keep}{shlex.quote(sys.executable)} -m mlflow db upgrade {shlex.quote(uri)}"
    raise UserError(
        f"{name} was made by an older MLflow: its schema is {revision or 'of before 1.0'}, MLflow {version} needs {newest}. "
        f"Once upgraded, the older MLflow cannot read it{'' if path else ', so take a backup first'}. To upgrade it: {upgrade}"
    )


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def _opened(path: Path, *, to_write: bool = False) -> Generator[sqlite3.Connection]:
    """An open database. What SQLite says against it becomes a `UserError`."""
    address = f"file:{quote(os.fsencode(path))}?mode={'rw' if to_write else 'ro'}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as database:
            if to_write:  # another process may be writing
                database.execute("BEGIN IMMEDIATE")
            yield database
            if to_write:
                database.execute("COMMIT")
    except sqlite3.Error as error:
        raise UserError(_trouble(path, error)) from error


def _trouble(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return locked(path)
    if name.startswith("SQLITE_NOTADB"):
        head = path.read_bytes()[:100].lstrip().lower()
        found = next((words for start, words in _ALIEN.items() if head.startswith(start)), "something else")
        return f"MLflow's database {path} is not a database but {found}. {_elsewhere()}"
    if name.startswith("SQLITE_CORRUPT"):
        return (
            f"MLflow's database {path} is damaged ({error}). Move it away, and `capsbench sync RUN` makes it anew from "
            "the journal of each run."
        )
    if name.startswith("SQLITE_READONLY"):
        return f"MLflow's database {path} cannot be written: {error}. {_elsewhere()}"
    return f"MLflow's database {path} cannot be read: {error}. {_elsewhere()}"


def locked(path: Path) -> str:
    """The sentence for a database in which another process is writing."""
    who = holding(path) or "another program"
    return (
        f"MLflow's database {path} is locked: {who} has been writing to it for {_LOCK_TIMEOUT_S:g} s. End that program, or let "
        "it finish, and try again."
    )


def _elsewhere() -> str:
    return "Choose another with --mlflow-uri, such as sqlite:////folder/mlflow.db"


def _tables(database: sqlite3.Connection) -> set[str]:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in names if not name.startswith(("sqlite_", "alembic_tmp"))}


@cache
def _revisions() -> tuple[frozenset[str], str]:
    """The schemas that the installed MLflow knows, and its own; none if they cannot be told."""
    spec = importlib.util.find_spec("mlflow")
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions" if spec and spec.origin else Path()
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    known = {
        found[1] for text in texts if (found := re.search(r"""^revision\b[^=\n]*= *["'](\w+)""", text, re.MULTILINE))
    }
    earlier = {
        name
        for text in texts
        for line in re.findall(r"^down_revision\b[^=\n]*=(.*)$", text, re.MULTILINE)
        for name in re.findall(r"\w{6,}", line)
    }
    newest = known - earlier
    return (frozenset(known), newest.pop()) if len(newest) == 1 else (frozenset(), "")


# What is in it


def holds(path: Path, cursor: Mapping[str, Any]) -> bool:
    """Whether the runs of which a cursor tells are in this database. Raises `UserError` if it cannot be read."""
    if not path.exists() or not path.stat().st_size:
        return False
    with _opened(path) as database:
        if not {"experiments", "runs"} <= _tables(database):
            return False
        suite, experiment = cursor.get("suite"), cursor.get("experiment_id")
        if isinstance(suite, dict) and (run_id := cast(dict[str, Any], suite).get("run_id")) is not None:
            return database.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone() is not None
        found = database.execute(f"SELECT 1 FROM experiments WHERE experiment_id = ? AND {_OURS}", (experiment,))
        return found.fetchone() is not None


def newest(path: Path) -> dict[str, Any] | None:
    """The capsbench experiment with the latest run in this database, as a cursor; None if it has none."""
    if not path.exists() or not path.stat().st_size:
        return None
    with _opened(path) as database:
        if not {"experiments", "runs", "tags"} <= _tables(database):
            return None
        latest = database.execute(
            "SELECT experiment_id FROM runs JOIN experiments USING (experiment_id) "
            f"WHERE {_OURS} AND runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active' "
            "ORDER BY start_time DESC LIMIT 1"
        ).fetchone()
        if latest is None:
            return None
        cells = database.execute(
            "SELECT 1 FROM runs JOIN tags USING (run_uuid) "
            "WHERE experiment_id = ? AND key = 'capsbench.kind' AND value = 'cell' AND lifecycle_stage = 'active'",
            latest,
        ).fetchone()
        answered = database.execute(
            "SELECT value FROM experiment_tags WHERE experiment_id = ? AND key = ?", (*latest, LATEST)
        ).fetchone()
        suite = {"suite": {"run_id": answered[0], "answer": True}} if answered else {}
        return {"experiment_id": str(latest[0]), "cells": bool(cells), **suite}


def relocate(path: Path, out: Path, *, original: Path | None = None) -> None:
    """Says in the database where its artifacts are now: MLflow keeps absolute paths, which a moved folder makes wrong.

    They are beside the database, or else in the output folder `out`; if they are in neither and still where they were,
    they stay there. `original`: where the database itself is, if `path` is a copy of it.
    """
    if not path.exists() or not path.stat().st_size:
        return
    places = [(original or path).resolve().parent / ARTIFACTS, out.resolve() / ARTIFACTS]
    with _opened(path) as database:
        moved = dict(_moved(database, places))
    if moved:
        with _opened(path, to_write=True) as database:
            tables = _tables(database)
            for experiment_id, (old, new) in moved.items():
                database.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment_id)
                )
                database.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    (new, len(old) + 1, experiment_id, len(old) + 1, f"{old}/"),
                )
                for table, column in _PLACES:
                    if table in tables:
                        database.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                            (new, len(old) + 1, len(old) + 1, f"{old}/"),
                        )


def copy(path: Path, to: Path) -> None:
    """Writes a copy of a database that may only be read."""
    with _opened(path) as database, closing(sqlite3.connect(to)) as target:
        database.backup(target)


def artifacts(path: Path, experiment_id: str) -> Path | None:
    """The folder of an experiment's artifacts, if it is one on this machine."""
    with _opened(path) as database:
        found = database.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = ?", (experiment_id,)
        ).fetchone()
    return _local(found[0]) if found else None


def _moved(database: sqlite3.Connection, places: list[Path]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Experiment id -> the place of its artifacts, recorded and true, of each that differs."""
    if not {"experiments", "runs"} <= _tables(database):
        return
    rows = database.execute(f"SELECT experiment_id, name, artifact_location FROM experiments WHERE {_OURS}").fetchall()
    for experiment_id, name, location in rows:
        old = _local(location or "")
        if old is None:
            continue
        there = [place / name for place in places if (place / name).is_dir()] or ([old] if old.is_dir() else [])
        new = there[0] if there else places[0] / name
        if new != old:
            yield experiment_id, (location, new.as_uri())


def _local(location: str) -> Path | None:
    """The folder that an artifact location names: file:///folder, or a plain path."""
    if location.startswith("file:"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(location).path)))
    return Path(location) if location.startswith("/") else None
