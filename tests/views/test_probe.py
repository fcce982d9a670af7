"""MLflow is tried before anything starts: each trouble is told within seconds, without passwords, and nothing is written."""

from __future__ import annotations

import http.server
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.disk import file_lock
from harness.errors import UserError
from harness.views.mlflow import database, probe, remote, served
from harness.views.mlflow.limit import within
from harness.views.mlflow.where import VARIABLE, locate, redact
from tests.helpers import run_helpers

SUITE = {
    "data": {"name": "digits", "train": 64, "validation": 16, "test": 16},
    "parity": {"gate": False, "audit": False},
}


@pytest.fixture
def refused() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def dripping() -> Iterator[int]:
    """A server that answers a byte at a time: no single wait is long, and all together have no end."""
    stop = threading.Event()

    class Dripping(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not stop.wait(0.05):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        stop.set()
        server.shutdown()


def problem(uri: str, out: Path) -> str:
    found = probe.problem(locate(out, uri), out)
    assert found is not None
    assert "secret" not in found
    assert "\n" not in found
    assert list(out.iterdir()) == []
    return found


def test_nothing_listens(refused: int, tmp_path: Path) -> None:
    assert f"nothing listens on port {refused} of 127.0.0.1" in problem(
        f"http://me:secret@127.0.0.1:{refused}", tmp_path
    )
    found = problem(f"postgresql+psycopg2://me:secret@127.0.0.1:{refused}/x", tmp_path)
    assert "postgresql+psycopg2://me:***@127.0.0.1" in found
    assert "nothing listens there" in found


def test_nothing_answers(silent: int, dripping: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (remote, served):
        monkeypatch.setattr(module, "_TIMEOUT_S", 0.5)
    addresses = [f"http://127.0.0.1:{silent}", f"postgresql+psycopg2://me:secret@127.0.0.1:{silent}/x"]
    for uri in (*addresses, f"http://127.0.0.1:{dripping}"):
        assert "gives no answer within 0.5 s" in problem(uri, tmp_path)


def test_a_wait_has_an_end() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, never.wait)
    never.set()
    assert within(60, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(60, lambda: {}["x"])


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("mssql://me:secret@h/d", "pip install pyodbc"),
        ("mysql://me:secret@h/d", "pip install mysqlclient"),
        ("mysql+pymysql://me:secret@h/d", "pip install pymysql"),
        ("postgresql+asyncpg://me:secret@h/d", "pip install asyncpg"),
        ("postgresql+psycopg2://me:secret@h/d", 'pip install "capsbench[postgres]"'),
    ],
)
def test_a_driver_that_is_missing_is_named(
    uri: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyodbc", "MySQLdb", "pymysql", "asyncpg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)
    found = problem(uri, tmp_path)
    assert "needs a driver, which is missing" in found
    assert found.endswith(package)


def test_the_driver_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"psycopg2"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in there or None)
    assert locate(tmp_path, "postgresql://me@h/d").uri == "postgresql+psycopg2://me@h/d"
    there.add("psycopg")
    assert locate(tmp_path, "postgresql://me@h/d").uri == "postgresql://me@h/d"
    there.clear()
    assert locate(tmp_path, "postgresql://me@h/d").uri == "postgresql://me@h/d"


def test_files(tmp_path: Path) -> None:
    assert probe.problem(locate(tmp_path), tmp_path) is None
    assert probe.problem(locate(tmp_path, f"sqlite:///{tmp_path}/new/x.db"), tmp_path) is None
    assert list(tmp_path.iterdir()) == []  # it is not made by being asked for
    assert "cannot be written" in problem("sqlite:////proc/nowhere/x.db", tmp_path)
    assert "is a file, not a folder" in problem("sqlite:////etc/passwd/x.db", tmp_path)
    assert "is not a database" in problem("sqlite:////etc/passwd", tmp_path)


def test_a_database_that_another_run_is_making_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LOCK_TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as making:
        making.execute("CREATE TABLE experiments (x)")
        making.execute("BEGIN EXCLUSIVE")
        with file_lock(tmp_path / ".mlflow.lock", 0):
            assert probe.problem(locate(tmp_path), tmp_path) is None
        assert "is locked" in str(probe.problem(locate(tmp_path), tmp_path))  # whoever writes there is none of ours


def test_the_command_to_sync_names_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert locate("runs").sync("runs/x y") == "capsbench sync 'runs/x y'"
    assert locate("runs", "http://h:5").sync("runs/x") == "capsbench sync runs/x --mlflow-uri http://h:5"
    hidden = locate("runs", "http://me:secret@h:5").sync("runs/x")
    assert hidden == ("capsbench sync runs/x --mlflow-uri 'http://me:***@h:5' (with the password in place of ***)")
    monkeypatch.setenv(VARIABLE, "http://h:5")  # another shell may not have it
    assert locate("runs").sync("runs/x") == "capsbench sync runs/x --mlflow-uri http://h:5"
    monkeypatch.setenv(VARIABLE, "http://me:secret@h:5")
    assert locate("runs").sync("runs/x") == 'capsbench sync runs/x --mlflow-uri "$MLFLOW_TRACKING_URI"'


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://me:***@h:5", "*** stands for the password, which is never printed; put the password there"),
        ("postgresql://me:***@h/d", "put the password there"),
        ("postgresql://h/d?user=me&password=***", "put the password there"),
        ("postgresql://me:s@cret@h/d", "write an @ in the password as %40"),
        ("http://me:se/cret@h", "write an @ in the password as %40, a / as %2F"),
    ],
)
def test_a_password_that_cannot_be_one(uri: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        locate(tmp_path, uri)
    assert said in str(raised.value)
    assert "cret" not in str(raised.value)


def test_no_password_is_shown_however_it_is_written() -> None:
    for uri in (
        "postgresql://me:p/a:ss?x@h/d",
        "http://me:12ab/x@h",
        "mysql+pymysql://me:p:w@h/d",
        "http://me:s@cret@h",
    ):
        assert redact(f"lost {uri} again").startswith(f"lost {uri.partition(':')[0]}://me:***@h"), uri
    assert redact("http://h:5000/me@home") == "http://h:5000/me@home"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return run_helpers.write_suite(tmp_path, **SUITE)


def test_a_required_mlflow_that_is_not_there_starts_nothing(suite: Path, tmp_path: Path, refused: int) -> None:
    uri = f"http://me:secret@127.0.0.1:{refused}"
    done = run_helpers.capsbench(tmp_path, "run", suite, "--mlflow-required", "--mlflow-uri", uri)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--mlflow-required: nothing listens" in done.stderr
    assert done.stderr.strip().endswith("Nothing was started.")
    assert not (tmp_path / "runs").exists()


def test_an_mlflow_that_is_not_there_is_told_at_once_and_at_the_end(suite: Path, tmp_path: Path, refused: int) -> None:
    done = run_helpers.capsbench(
        tmp_path, "run", suite, "--executor", "inline", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{refused}"
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    command = f"capsbench sync runs/small --mlflow-uri http://127.0.0.1:{refused}"
    assert lines[1].startswith(f"MLflow cannot be used now: nothing listens on port {refused}")
    assert lines[1].endswith(f"its results wait in runs/small. If MLflow is not back by the end: {command}")
    (last,) = [line for line in lines if "lacks" in line]
    assert "lacks 5 events of 1 trials since" in last
    assert last.endswith(f"bring them in with: {command}")
