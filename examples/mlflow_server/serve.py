"""An MLflow server for a team: runs in PostgreSQL, artifacts in a folder; on this machine's loopback address alone.

`make mlflow-server` starts both and ends both on Ctrl-C; what is stored stays in the folder. PostgreSQL must be installed
(`apt-get install postgresql`, `brew install postgresql`); its own service need not run, and is left alone.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from harness.disk import obstacle
from harness.errors import UserError
from harness.views.mlflow import served
from harness.views.mlflow.addresses import LOOPBACK, listener
from harness.views.mlflow.server import mlflow_server

USER = "postgres"
"""Who PostgreSQL runs as if root starts it: it refuses root itself."""
_START_S = 60.0


class Postgres:
    """A PostgreSQL of its own in `folder`, on a free port of the loopback address; its password is in a file there."""

    def __init__(self, folder: Path) -> None:
        self._data, self._password = folder / "postgres", folder / "postgres-password"
        self._log = folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def uri(self) -> str:
        """Its database for MLflow; holds the password."""
        return f"postgresql+psycopg2://mlflow:{self._password.read_text().strip()}@{LOOPBACK}:{self.port}/mlflow"

    def start(self) -> None:
        """Starts it, and makes it if it is not there yet; returns once it answers. Raises `UserError` if it does not."""
        tools, user = _tools(), _user()
        is_new = not (self._data / "PG_VERSION").exists()
        if is_new:
            self._make(tools, user)
        options = {"listen_addresses": LOOPBACK, "port": self.port, "unix_socket_directories": ""}
        command = [str(tools / "postgres"), "-D", str(self._data)]
        command += [each for name, value in options.items() for each in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = cast(
                "subprocess.Popen[bytes]",
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd="/",
                    **_as(user),
                ),
            )
        self._await(tools)
        if is_new:
            made = [str(tools / "createdb"), "-h", LOOPBACK, "-p", str(self.port), "-U", "mlflow", "mlflow"]
            _run(made, None, PGPASSWORD=self._password.read_text().strip())

    def stop(self, at_once: bool = False) -> None:
        """Stops it in order, or `at_once`: as if it had crashed, so that it recovers from its log when it starts again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self._process.wait(_START_S)
            self._process = None

    def _make(self, tools: Path, user: pwd.struct_passwd | None) -> None:
        self._password.write_text(f"{secrets.token_hex(16)}\n")
        self._password.chmod(0o600)
        self._data.mkdir(exist_ok=True)
        self._data.chmod(0o700)
        if user is not None:
            for path in (self._password, self._data):
                os.chown(path, user.pw_uid, user.pw_gid)
        rules = [
            "--auth=scram-sha-256",
            "--username=mlflow",
            f"--pwfile={self._password}",
            "--encoding=UTF8",
            "--locale=C",
        ]
        _run([str(tools / "initdb"), "-D", str(self._data), "--no-instructions", *rules], user)

    def _await(self, tools: Path) -> None:
        asked = [str(tools / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        deadline = time.monotonic() + _START_S
        while self._process and self._process.poll() is None and time.monotonic() < deadline:
            if subprocess.run(asked, check=False).returncode == 0:
                return
            time.sleep(0.1)
        said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        self.stop(at_once=True)
        raise UserError(f"PostgreSQL did not start ({said[-1]}); its log is {self._log}")


@contextmanager
def postgres(folder: Path) -> Generator[Postgres]:
    """A PostgreSQL that runs during the block."""
    server = Postgres(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _tools() -> Path:
    """The folder of PostgreSQL's own programs, which Debian keeps off the path. Raises `UserError` if there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    kept = [
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        *Path("/opt/homebrew/opt").glob("postgresql@*/bin/initdb"),
    ]
    if kept:
        return max(kept, key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0)).parent
    raise UserError("PostgreSQL is not installed: apt-get install postgresql, or brew install postgresql")


def _user() -> pwd.struct_passwd | None:
    """Who to run it as, if not as oneself. Raises `UserError` if root has nobody for it."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError as error:
        raise UserError(
            f"PostgreSQL does not run as root, and there is no user {USER}: start this as another user"
        ) from error


def _as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments for `subprocess` that make a program run as `user`."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _run(command: list[str], user: pwd.struct_passwd | None, **more: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env={**os.environ, **more}, check=False, **_as(user)
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        hint = ""
        if user is not None and "ermission denied" in done.stderr:
            hint = f". As root it runs as {USER}, who must be able to enter the folder: choose another, such as /srv/mlflow"
        raise UserError(f"{Path(command[0]).name} failed: {said[-1]}{hint}")


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return probe.getsockname()[1]


def serve(folder: Path, port: int) -> None:
    """Serves until Ctrl-C. Raises `UserError` if PostgreSQL or MLflow does not start."""
    folder = folder.absolute()
    if problem := obstacle(folder):
        raise UserError(f"--folder {folder}: {problem}")
    folder.mkdir(parents=True, exist_ok=True)
    chosen, taken = listener(LOOPBACK, port)
    if taken:
        print(taken, flush=True)
    with postgres(folder) as database:
        if problem := served.problem(database.uri):
            raise UserError(problem)
        with mlflow_server(folder, database.uri, chosen, folder / "mlflow-server.log") as process:
            print(f"MLflow answers at {chosen.local}; runs are in PostgreSQL, artifacts in {folder / 'mlartifacts'}")
            print(f"Send runs there:  capsbench run quickstart --mlflow-uri {chosen.local}")
            print("Ctrl-C ends both servers; what is stored stays.", flush=True)
            with suppress(KeyboardInterrupt):
                process.wait()
                raise UserError(f"the MLflow server ended by itself; its log is {folder / 'mlflow-server.log'}")


def main() -> int:
    parser = argparse.ArgumentParser(description="An MLflow server over PostgreSQL, on the loopback address.")
    parser.add_argument(
        "--folder", type=Path, default=Path("mlflow-server"), help="where all is kept; default: %(default)s"
    )
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s, or the next free one")
    args = parser.parse_args()
    try:
        serve(args.folder, args.port)
    except (UserError, OSError) as error:
        print(f"mlflow-server: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
