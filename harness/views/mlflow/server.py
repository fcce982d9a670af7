"""`capsbench ui`: MLflow's own pages, served to this machine only and opened at the comparison."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.disk import read_json
from harness.errors import UserError
from harness.journal.journal import CURSOR
from harness.machine.surroundings import child_environment, own_folder
from harness.views.mlflow.cells import VIEW_KEY as CELLS
from harness.views.mlflow.client import quiet_environment, redact
from harness.views.mlflow.tracking import default_uri
from harness.views.mlflow.trials import view_url

_HOST = "127.0.0.1"
# Browsers resolve every name under localhost to this machine (RFC 6761); only Safari asks elsewhere. On the plain names
# MLflow opens its AI assistant over a third of the table at the first visit. A name of our own avoids that.
_NAME = _HOST if sys.platform == "darwin" else "capsbench.localhost"
_START_S = 90.0  # the server's imports take seconds, and minutes on a busy machine
_STOP_S = 10.0


def serve(out: str | os.PathLike[str], uri: str | None = None, port: int = 5000, open_browser: bool = True) -> None:
    """Shows the newest run of the output folder `out` until Ctrl-C. For a remote MLflow it only prints the address.

    Raises `UserError` if nothing has been run yet, MLflow is not installed, or its server does not start.
    """
    uri = uri or default_uri(out)
    newest = _newest(Path(out), uri)
    if uri.startswith(("http://", "https://")):
        _show(uri, newest, open_browser)
        return
    with _server(Path(out), uri, port) as (chosen, process):
        _show(f"http://{_NAME}:{chosen}", newest, open_browser)
        print("Ctrl-C ends the server.", flush=True)
        with suppress(KeyboardInterrupt):
            process.wait()
            raise UserError(f"the MLflow server ended by itself; its log is {_log_path(Path(out))}")


def newest_experiment(out: Path, uri: str) -> str:
    """The MLflow experiment of the run or parity reports last sent to `uri`. Raises `UserError` if there are none."""
    return str(_newest(out, uri)["experiment_id"])


def _newest(out: Path, uri: str) -> dict[str, Any]:
    """The run or parity reports last sent to `uri`."""
    found = [*out.glob("*/mlflow.json"), *out.glob(CURSOR)]
    cursors = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    for cursor in map(read_json, cursors):
        if cursor and cursor.get("uri") == redact(uri) and "experiment_id" in cursor:
            return cursor
    untracked = sorted(path.parent for path in out.glob("*/plan.json"))
    if untracked:
        raise UserError(
            f"no run in {out} is in MLflow ({redact(uri)}) yet: `capsbench sync {untracked[0]}` brings one in."
        )
    raise UserError(f"no runs in {out} yet: `capsbench run quickstart` makes one; --out DIR looks elsewhere.")


def free_port(port: int) -> int:
    """`port`, or the next free one. Raises `UserError` if the next hundred are taken too."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} is no port: choose one from 1024 to 65535.")
    for candidate in range(port, min(port + 100, 65536)):
        if not any(_listens(host, candidate) for host in (_HOST, "::1")):  # a browser may try either
            return candidate
    raise UserError(f"no free port from {port} on: choose another with --port.")


def _listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _show(base: str, newest: Mapping[str, Any], open_browser: bool) -> None:
    experiment_id = str(newest["experiment_id"])
    table, charts = view_url(base, experiment_id), view_url(base, experiment_id, charts=True)
    print(f"Table   {table}\nCharts  {charts}", flush=True)
    if newest.get("cells"):
        print(f"Cells   {view_url(base, experiment_id, key=CELLS)}", flush=True)
    has_desktop = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if open_browser and has_desktop:
        webbrowser.open(table)


@contextmanager
def _server(out: Path, uri: str, port: int) -> Generator[tuple[int, subprocess.Popen[bytes]], None, None]:
    """An MLflow server in its own process group, stopped at the end of the block; yields its port once it answers."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("MLflow is not installed here: `pip install mlflow`, or show the run with `capsbench report`.")
    chosen = free_port(port)
    if chosen != port:
        print(f"Port {port} is taken; using {chosen}.", flush=True)
    command = [
        sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", uri,
        "--artifacts-destination", str(out.resolve() / "mlartifacts"),
        "--host", _HOST, "--port", str(chosen), "--workers", "1",
        "--allowed-hosts", ",".join(f"{name}:{chosen}" for name in (_NAME, _HOST, "localhost")),
        "--cors-allowed-origins", f"http://{_NAME}:{chosen}",
    ]  # fmt: skip
    settings = child_environment(os.environ, keep=("MLFLOW_",)) | quiet_environment()
    settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    settings["UVICORN_APP_DIR"] = str(own_folder())  # else the working directory comes first on its import path
    with _log_path(out).open("wb") as log:
        process = subprocess.Popen(
            command, env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ends = (signal.SIGTERM, signal.SIGHUP)  # closing the terminal must not leave the server behind either
    before = [signal.signal(number, _exit) for number in ends]
    try:
        _await(f"http://{_HOST}:{chosen}", process, _log_path(out))
        yield chosen, process
    finally:
        _end(process)
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def _await(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach the loopback address
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), direct.open(f"{base}/health", timeout=2):
            return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    errors = [line for line in lines if "Error: " in line or "Exception: " in line]
    raise UserError(f"the MLflow server did not start ({(errors or lines)[-1]}); its log is {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stops the server and its workers: the process group that `start_new_session` created."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
            return


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _log_path(out: Path) -> Path:
    return out / "mlflow-server.log"
