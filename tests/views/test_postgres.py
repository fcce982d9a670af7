"""A real MLflow server over a real PostgreSQL, killed and stopped in the middle: everything is there exactly once."""

from __future__ import annotations

import http.client
import http.server
import io
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples.mlflow_server.serve import Postgres
from harness.commands.plan import RunRequest
from harness.commands.running import run
from harness.errors import UserError
from harness.events import EpochEvent, TrialEvent
from harness.journal.journal import Journal
from harness.views.mlflow import served, tracking
from harness.views.mlflow import trials as view
from harness.views.mlflow.addresses import LOOPBACK, Listener, listener
from harness.views.mlflow.server import mlflow_server
from harness.views.mlflow.tracking import sync
from harness.views.screen import Screen
from tests.helpers import run_helpers, seeds_helpers
from tests.views.test_mlflow import wait_for


class Team:
    """Both servers, each of which can be ended as a crash would, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, Postgres(folder)
        self.database.start()
        self._chosen: Listener = listener(LOOPBACK, 5400)[0]
        self._server: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        self.start()

    @property
    def uri(self) -> str:
        return self._chosen.local

    def start(self) -> None:
        log = self.folder / "mlflow-server.log"
        self._server = self._stack.enter_context(mlflow_server(self.folder, self.database.uri, self._chosen, log))

    def kill(self) -> None:
        """As the kernel does: the server's whole process group, at once."""
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        self._stack.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What PostgreSQL itself says; for a statement without rows, nothing."""
        import psycopg2

        connection = psycopg2.connect(self.database.uri.replace("+psycopg2", ""))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def runs(self, experiment: str, final: bool = True) -> dict[str, str]:
        """Key -> id of every active run of an experiment; if `final`, each is there once."""
        query = (
            "SELECT tags.value, runs.run_uuid FROM runs JOIN experiments USING (experiment_id) JOIN tags USING (run_uuid) "
            f"WHERE tags.key = 'capsbench.trial' AND experiments.name = '{experiment}' AND runs.lifecycle_stage = 'active'"
        )
        found = self.rows(query)
        assert not final or len({key for key, _ in found}) == len(found), f"a run is there twice: {found}"
        return dict(found)

    def metrics(self, run_id: str) -> list[view.Row]:
        rows = self.rows(f"SELECT key, value, timestamp, step FROM metrics WHERE run_uuid = '{run_id}'")
        return sorted(view.Row(*row) for row in rows)

    def close(self) -> None:
        self.kill()
        self.database.stop()


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    # pytest's own folder is closed to all others, and so to the user that PostgreSQL runs as
    folder = Path(tempfile.mkdtemp(prefix="capsbench-postgres-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        team = Team(folder)
    except UserError as error:
        shutil.rmtree(folder)
        if "not installed" not in str(error) and "there is no user" not in str(error):
            raise
        pytest.fail(str(error)) if os.environ.get("CI") == "true" else pytest.skip(str(error))
    try:
        yield team
    finally:
        team.close()
        shutil.rmtree(folder)


class Driving(Screen):
    """A screen as in a log, which does something after each epoch, before the worker may go on."""

    def __init__(self, text: io.StringIO, steps: dict[tuple[int, int], Callable[[str], None]]) -> None:
        super().__init__(Console(file=text, width=200), {})
        self._steps = steps

    def update(self, trial_id: str, event: TrialEvent) -> None:
        super().update(trial_id, event)
        if isinstance(event, EpochEvent):
            seed = self._rows[trial_id].trial.seed
            self._steps.get((seed, event.epoch), lambda _: None)(trial_id)


def is_taken(run_dir: Path, uri: str) -> bool:
    """Whether MLflow took everything; on a busy machine its server may be too slow at first."""
    with suppress(UserError):
        sync(run_dir, uri)
        return True
    return False


def test_servers_that_crash_cost_nothing_and_leave_nothing_twice(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_FLUSH_S", 0.3)
    text = io.StringIO()

    def first_is_stored(trial_id: str) -> None:
        def keys() -> set[str]:
            stored = team.runs("capsbench/small", final=False)
            return {row.key for row in team.metrics(stored[trial_id])} if trial_id in stored else set()

        wait_for(lambda: "epoch/train_loss" in keys())
        team.kill()

    def lag_is_told(_: str) -> None:
        wait_for(lambda: "is behind since" in text.getvalue())
        team.database.stop(at_once=True)

    def back_again(_: str) -> None:
        team.database.start()
        team.start()
        wait_for(lambda: "has caught up; it was behind since" in text.getvalue())

    def gone_for_the_end(_: str) -> None:
        team.database.stop(at_once=True)  # under a server that stays

    steps = {(0, 1): first_is_stored, (0, 2): lag_is_told, (0, 3): back_again, (1, 3): gone_for_the_end}
    sections = {"train": {"epochs": 3}, "parity": {"gate": False}, "grid": {"impl": ["numpy"], "seed": [0, 1]}}
    suite = run_helpers.write_suite(tmp_path, **sections)
    request = RunRequest(suite, out=tmp_path / "runs", executor="inline", mlflow_uri=team.uri, figures="none")
    outcome = run(request, lambda _: Driving(text, steps))
    assert outcome.exit_code == 0
    (lacking,) = [line for line in outcome.warnings if "lacks" in line]
    assert f"capsbench sync {tmp_path}/runs/small --mlflow-uri {team.uri}" in lacking

    team.database.start()
    wait_for(lambda: is_taken(outcome.run_dir, team.uri))
    journal, stored = Journal(outcome.run_dir), team.runs("capsbench/small")
    trials = {result.id: journal.trial(result.id) for result in outcome.results}
    assert stored.keys() - trials.keys() == {"suite", *(key for key in stored if key.startswith("cell-"))}
    assert len(stored) == 4  # two seeds, their cell, the suite
    for key, trial in trials.items():
        assert team.metrics(stored[key]) == sorted(view.metric_rows(trial, journal.events(key)))
    assert sync(outcome.run_dir, team.uri).events == 0
    assert {path.name for path in team.folder.glob(f"mlartifacts/*/{stored['suite']}/artifacts/*")} >= {"suite.yaml"}
    with pytest.raises(UserError, match=r"its artifacts are kept by an MLflow server: name that"):
        sync(outcome.run_dir, team.database.uri)
    assert team.runs("capsbench/small") == stored


@contextmanager
def losing_answers(team: Team, path: str) -> Generator[tuple[str, list[str]]]:
    """A proxy that hands every request on, but loses the answer to the first one of each body that is sent to `path`."""
    lost: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            behind = http.client.HTTPConnection(team.uri.removeprefix("http://"), timeout=30)
            behind.request(self.command, self.path, body, {**self.headers, "Host": team.uri.removeprefix("http://")})
            answer = behind.getresponse()
            content = answer.read()
            if self.path.endswith(path) and len(lost) < 3:
                lost.append(body.decode())
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET
        do_PUT = do_GET
        do_PATCH = do_GET
        do_DELETE = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_address[1]}", lost
        server.shutdown()


@pytest.mark.parametrize("retries", ["0", "2"])
def test_a_run_whose_creation_was_not_answered_is_there_once(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: str
) -> None:
    """Also where the user lets MLflow's client ask again by itself, which makes a second one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    trials = [seeds_helpers.make_trial(seed=seed) for seed in range(2)]
    folder = tmp_path / f"lost-{retries}"
    run_dir = seeds_helpers.write_run(folder, [(trial, seeds_helpers.events_of(0.3)) for trial in trials])
    with losing_answers(team, "/runs/create") as (uri, lost):
        wait_for(lambda: is_taken(run_dir, uri))
        assert len(lost) == 3
    name = view.experiment_name(Journal(run_dir).plan())
    assert len(team.runs(name)) == 4


def test_what_postgresql_refuses_is_told(team: Team) -> None:
    def problem(user: str, database: str = "mlflow") -> str:
        return str(served.problem(f"postgresql+psycopg2://{user}@{LOOPBACK}:{team.database.port}/{database}"))

    wrong = problem("mlflow:secret")
    assert "mlflow:***@" in wrong
    assert wrong.endswith("it refuses the user name or the password")
    assert 'database "mlflowx" does not exist' in str(served.problem(f"{team.database.uri}x"))
    for statement in ("CREATE ROLE guest LOGIN PASSWORD 'x'", "CREATE DATABASE empty"):
        team.rows(statement)
    assert "guest may not create MLflow's tables in it: its owner can allow that with: GRANT CREATE" in problem(
        "guest:x", "empty"
    )
    team.rows("GRANT SELECT ON alembic_version TO guest")
    assert "guest may not write MLflow's tables in it" in problem("guest:x")
    team.rows("ALTER ROLE guest SET default_transaction_read_only = on")
    assert "it may only be read" in problem("guest:x")
    assert served.problem(team.database.uri) is None


def test_only_this_machine_reaches_them(team: Team) -> None:
    found = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=False).stdout
    listens = {line.split()[3] for line in found.splitlines()}
    for port in (team.database.port, int(team.uri.rpartition(":")[2])):
        assert {each for each in listens if each.endswith(f":{port}")} == {f"{LOOPBACK}:{port}"}
