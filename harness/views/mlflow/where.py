"""Which MLflow: what --mlflow-uri, the environment and the output folder say, and what is wrong with it in our words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from harness.errors import UserError, nearest
from harness.views.mlflow import database

OPTION, VARIABLE = "--mlflow-uri", "MLFLOW_TRACKING_URI"

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SCHEMES = ("http", "https", "databricks", *_DATABASES)
_PASSED_ON = ("databricks", "databricks-uc", "uc")  # MLflow's own names of places
_HIDDEN = "***"
_EXAMPLES = "Use a server, such as http://localhost:5000, or a database, such as sqlite:////folder/mlflow.db"


@dataclass(frozen=True)
class Where:
    """An MLflow, and who named it: --mlflow-uri, MLFLOW_TRACKING_URI, or None for the output folder's own database."""

    uri: str
    source: str | None

    @property
    def line(self) -> str | None:
        """What the screen says of it, if the environment decided."""
        return f"MLflow: {shown(self.uri)}, from {VARIABLE}" if self.source == VARIABLE else None

    @property
    def option(self) -> str:
        """What names this MLflow to another command, in a shell: " --mlflow-uri U", without a password; "" if nothing need."""
        if self.source is None:
            return ""
        if self.source == VARIABLE and redact(self.uri) != self.uri:  # it knows the password
            return f' {OPTION} "${VARIABLE}"'
        return f" {OPTION} {shlex.quote(shown(self.uri))}"

    def sync(self, run_dir: str | os.PathLike[str]) -> str:
        """The command that sends a run to this MLflow, and where its password goes if that is not printed."""
        command = f"capsbench sync {shlex.quote(str(run_dir))}{self.option}"
        return f"{command} (with the password in place of {_HIDDEN})" if _HIDDEN in self.option else command

    def __str__(self) -> str:
        return shown(self.uri) + (f" ({self.source})" if self.source == VARIABLE else "")


def default_uri(out: str | os.PathLike[str]) -> str:
    """The database of an output folder: `sqlite:///<out>/mlflow.db`."""
    return database.uri_of(Path(os.path.realpath(out)) / "mlflow.db")


def locate(out: str | os.PathLike[str], given: str | None = None) -> Where:
    """The MLflow to use: `given` by --mlflow-uri, else MLFLOW_TRACKING_URI, else the output folder's own database.

    Raises `UserError` for what is no address of an MLflow.
    """
    if given is not None:
        return Where(_checked(given, OPTION), OPTION)
    if found := os.environ.get(VARIABLE, "").strip():
        return Where(_checked(found, VARIABLE), VARIABLE)
    return Where(default_uri(out), None)


def is_server(uri: str) -> bool:
    """Whether MLflow answers there by itself, and keeps the artifacts too."""
    return uri.startswith(("http://", "https://", "databricks")) or uri in _PASSED_ON


def is_folder(uri: str) -> bool:
    """Whether runs are kept in a folder, as MLflow did before it had databases (MLFLOW_ALLOW_FILE_STORE)."""
    return uri.startswith("file:") or ("://" not in uri and uri not in _PASSED_ON and not is_server(uri))


def artifacts_of(uri: str, out: Path) -> Path | None:
    """Where artifacts belong: beside a database file, else in the output folder; None where a server decides."""
    path = database.path_of(uri)
    return None if is_server(uri) else (path.resolve().parent if path else out.resolve()) / database.ARTIFACTS


def belongs(cursor: Mapping[str, Any], uri: str, out: Path) -> bool:
    """Whether a cursor, which remembers what was sent, is about the MLflow at `uri`.

    A folder that was moved together with its database still counts: the runs' random ids are looked up in it.
    """
    recorded, path = str(cursor.get("uri")), database.path_of(uri)
    if path is None:
        return without_driver(recorded) == without_driver(redact(uri))
    was = database.path_of(recorded)
    moved = was is not None and was.name == path.name and path == database.path_of(default_uri(out))
    return (moved or recorded == redact(uri)) and database.holds(path, cursor)


def shown(uri: str) -> str:
    """An address for the screen, which `locate` takes too: without passwords, and with the path of a database as it is."""
    return redact(uri) if "?" not in uri or (path := database.path_of(uri)) is None else f"sqlite:///{path}"


def redact(text: str) -> str:
    """`text` without the passwords of its addresses, safe for screens and files."""
    text = re.sub(r"(https?://[^/@:\s]*):(?!\d*/)[^\s]*@", rf"\1:{_HIDDEN}@", text)
    text = re.sub(r"((?<!http)(?<!https)://[^/@:\s]*):[^\s]*@", rf"\1:{_HIDDEN}@", text)
    return re.sub(r"([?&](?:password|passwd|token|sslpassword)=)[^&\s]*", rf"\1{_HIDDEN}", text, flags=re.IGNORECASE)


def first_line(error: Exception) -> str:
    """The first line of an error, or its type, without passwords."""
    line = redact(next(iter(str(error).strip().splitlines()), type(error).__name__))
    return line if len(line) <= 200 else f"{line[:200]}..."


def without_driver(uri: str) -> str:
    """A database's address without the library that speaks to it: postgresql+psycopg2://... is postgresql://..."""
    return re.sub(r"^(\w+)\+\w+://", r"\1://", uri)


def _checked(uri: str, source: str) -> str:
    """`uri` as MLflow takes it. Raises `UserError` for a folder, a file, and an unknown kind of address."""
    uri = uri.strip()
    wrong = f"{source} {redact(uri)}"
    if _HIDDEN in uri and redact(uri) == uri:
        raise UserError(f"{wrong}: {_HIDDEN} stands for the password, which is never printed; put the password there.")
    if re.match(r"[^:/]+://[^/@:]*:(?!\d+/)[^/@]*[@/][^/]*@", uri):
        raise UserError(f"{wrong}: write an @ in the password as %40, a / as %2F.")
    try:
        parts = urlsplit(uri)
        _ = parts.port if parts.scheme in ("http", "https") else None
    except ValueError as error:
        raise UserError(f"{wrong} is no address: {error}. {_EXAMPLES}.") from error
    scheme = parts.scheme.lower()
    kind = scheme.partition("+")[0]
    if not uri:
        raise UserError(f"{source} is empty. {_EXAMPLES}.")
    if uri in _PASSED_ON:
        return uri
    if re.fullmatch(r"([\w.-]+|\[[\da-f:]+\]):\d+(/.*)?", uri):
        raise UserError(f"{wrong} has no scheme; did you mean http://{uri}?")
    if kind in ("", "file"):
        return _folder(uri, wrong)
    if kind == "sqlite":
        return _sqlite(uri, wrong)
    if kind in ("http", "https"):
        if not parts.hostname:
            raise UserError(f"{wrong} names no machine. {_EXAMPLES}.")
        return scheme + uri[len(scheme) :]
    plugins = {entry.name for entry in importlib.metadata.entry_points(group="mlflow.tracking_store")}
    if kind not in _SCHEMES and scheme not in plugins:
        raise UserError(f'{wrong} has the unknown scheme "{scheme}"{nearest(kind, {*_SCHEMES, *plugins})}')
    if scheme == "postgresql" and not importlib.util.find_spec("psycopg") and importlib.util.find_spec("psycopg2"):
        return f"postgresql+psycopg2{uri[len(scheme) :]}"  # SQLAlchemy asks for the other driver from 2.1 on
    return uri


def _folder(uri: str, wrong: str) -> str:
    """A path, where an address belongs. MLflow 3 keeps no more runs in folders, unless it is told to."""
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return uri
    named = os.fsdecode(unquote_to_bytes(urlsplit(uri).path)) if uri.startswith("file:") else uri
    path = Path(named).expanduser().absolute()
    if path.is_file() or path.suffix in (".db", ".sqlite", ".sqlite3"):
        raise UserError(f"{wrong} is a path where an address belongs; did you mean {database.uri_of(path)}?")
    if not path.is_dir() and not uri.startswith(("file:", "/", "./", "../", "~")):
        raise UserError(f"{wrong} is no address of an MLflow. {_EXAMPLES}.")
    target, brings = path.parent / "mlflow.db", ""
    if any(path.glob("*/meta.yaml")):
        move = shlex.join(["mlflow", "migrate-filestore", "--source", str(path), "--target", f"sqlite:///{target}"])
        brings = f" Its runs come along with: {move}"
    raise UserError(
        f"{wrong} is a folder, and MLflow 3 no longer keeps runs in folders. Use a database, such as "
        f"{database.uri_of(target)}, or a server, such as http://localhost:5000.{brings}"
    )


def _sqlite(uri: str, wrong: str) -> str:
    """The address of a database file, absolute, with special characters as SQLAlchemy needs them."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(.*)", uri, re.DOTALL)
    if found is None:
        rest = uri.partition(":")[2].lstrip("/")
        raise UserError(
            f"{wrong} needs three slashes, or four for an absolute path: sqlite:///{rest} or sqlite:////{rest}"
        )
    path, query = database.path_of(uri), found[1].partition("?")[2]
    if path is None:
        raise UserError(f"{wrong} is a database in memory, which ends with the process. {_EXAMPLES}.")
    if re.fullmatch(r"\w+=[^&/]*(&\w+=[^&/]*)*", query):  # options of SQLAlchemy's
        return uri
    typed = Path(found[1]).expanduser().absolute()  # a path as it is, which may have ? or % in it
    is_quoted = "%" in found[1] and not query and not typed.parent.is_dir()
    return database.uri_of(path if is_quoted else typed)
