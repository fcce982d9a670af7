"""`capsbench ui`: MLflow's own pages, opened at the comparison; served to this machine only, unless told otherwise."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from harness.disk import file_lock, obstacle, read_json
from harness.errors import UserError
from harness.journal.journal import CURSOR
from harness.machine.surroundings import child_environment, own_folder
from harness.views.mlflow import database, remote, saved
from harness.views.mlflow.addresses import LOOPBACK, Listener, has_display, is_known, listener, own_names, tunnel
from harness.views.mlflow.client import prepare, quiet_environment
from harness.views.mlflow.saved import run_url, view_url
from harness.views.mlflow.where import Where, artifacts_of, belongs, is_server, locate, redact, shown

_START_S = 90.0  # the server's imports take seconds, and minutes on a busy machine
_STOP_S = 10.0
_LOCK_S = 15.0  # a run that has just begun takes seconds to make its database
_OWN = (  # of another server that the user runs: none of ours
    "MLFLOW_ARTIFACTS_ONLY", "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_EXPOSE_PROMETHEUS", "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_STATIC_PREFIX",
    "MLFLOW_TRACE_ARCHIVAL_CONFIG", "MLFLOW_TRACKING_URI", "MLFLOW_UVICORN_OPTS",
)  # fmt: skip


def serve(
    out: str | os.PathLike[str],
    uri: str | None = None,
    port: int = 5000,
    open_browser: bool = True,
    host: str = LOOPBACK,
) -> None:
    """Shows the newest run of the output folder `out` until Ctrl-C. For a remote MLflow it only prints the address.

    Raises `UserError` if nothing has been run yet, MLflow is not installed, its database or server cannot be read, or
    its own server does not start.
    """
    out, where = Path(out), locate(out, uri)
    if where.line:
        print(where.line, flush=True)
    if is_server(where.uri):
        _show_remote(out, where, open_browser)
        return
    newest = _newest(out, where)
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("MLflow is not installed here: `pip install mlflow`, or show the run with `capsbench report`.")
    chosen, taken = listener(host, port)
    if taken:
        print(taken, flush=True)
    with _readable(out, where.uri) as (served, log), mlflow_server(out, served, chosen, log) as process:
        newest = newest or remote.newest(chosen.local)
        if newest is None:
            raise UserError(_nothing(out, where))
        base = chosen.named if has_display() and is_known() else chosen.local
        _show(base, newest)
        if base != chosen.named:
            print(
                "MLflow opens its assistant beside the table at the first visit; it stays closed once you close it.",
                flush=True,
            )
        _show_others(chosen, newest)
        if open_browser and has_display():
            webbrowser.open(next(iter(pages(chosen.named, newest).values())))
        print("Ctrl-C ends the server.", flush=True)
        with suppress(KeyboardInterrupt):
            process.wait()
            raise UserError(f"the MLflow server ended by itself; its log is {log}")


def newest_experiment(out: Path, uri: str | None = None) -> str:
    """The MLflow experiment of what was last sent to `uri`, as in `serve`. Raises `UserError` if nothing was."""
    where = locate(out, uri)
    newest = _newest(out, where)
    if newest is None:
        raise UserError(_nothing(out, where))
    return str(newest["experiment_id"])


def _newest(out: Path, where: Where) -> dict[str, Any] | None:
    """What was sent last to this MLflow from `out`, or else by anybody; None if only the server can tell.

    Raises `UserError` if there is nothing, or if it cannot be read: those are not the same.
    """
    path, lock = database.path_of(where.uri), out / ".mlflow.lock"
    if path:
        with file_lock(lock, _LOCK_S) if not obstacle(out) and lock.exists() else nullcontext():  # it may be being made
            database.examine(path, to_write=False)
    found = [*out.glob("*/mlflow.json"), *out.glob(CURSOR)]
    cursors = sorted(found, key=lambda each: each.stat().st_mtime, reverse=True)
    for cursor in map(read_json, cursors):
        if cursor and "experiment_id" in cursor and belongs(cursor, where.uri, out):
            return cursor
    if path is None and not is_server(where.uri):
        return None
    if newest := database.newest(path) if path else remote.newest(where.uri):
        return newest
    raise UserError(_nothing(out, where))


def _nothing(out: Path, where: Where) -> str:
    """Why there is nothing to show, and what would bring something in."""
    uri = "" if where.source is None else f" --mlflow-uri {shlex.quote(shown(where.uri))}"
    if others := _others(out) - {shown(where.uri)}:
        command = f"capsbench ui --out {shlex.quote(str(out))} --mlflow-uri {shlex.quote(min(others))}"
        return f"no run in {out} is in MLflow at {shown(where.uri)}, but at {', '.join(sorted(others))}: `{command}`."
    if untracked := sorted(path.parent for path in out.glob("*/plan.json")):
        command = f"capsbench sync {shlex.quote(str(untracked[0]))}{uri}"
        return f"no run in {out} is in MLflow ({shown(where.uri)}) yet: `{command}` brings one in."
    path = database.path_of(where.uri)
    if where.source and path and not path.exists():
        return f"there is no database {path}, which {where.source} names."
    if where.source:
        return f"MLflow at {where} has no runs of capsbench: `capsbench run quickstart{uri}` makes one."
    if problem := obstacle(out, to_write=False):
        return f"no runs in {out}: {problem}. --out DIR looks elsewhere."
    return f"no runs in {out} yet: `capsbench run quickstart` makes one; --out DIR looks elsewhere."


def _others(out: Path) -> set[str]:
    """The MLflows to which runs of this folder were sent, as far as they are still there."""
    uris = {str(cursor["uri"]) for path in out.glob("*/mlflow.json") if "uri" in (cursor := read_json(path) or {})}
    return {shown(uri) for uri in uris if (path := database.path_of(uri)) is None or path.exists()}


def pages(base: str, cursor: Mapping[str, Any]) -> dict[str, str]:
    """What there is to open on the MLflow server at `base`, the answer first: name -> address.

    Runs that an older capsbench has sent have a table and charts only, and so have parity reports.
    """
    experiment_id = str(cursor["experiment_id"])
    suite: Mapping[str, Any] = cursor.get("suite") or {}
    found = {"Table": view_url(base, experiment_id), "Charts": view_url(base, experiment_id, charts=True)}
    if suite.get("answer"):
        found = {"Answer": run_url(base, experiment_id, str(suite["run_id"])), **found}
        for name, key, charts in (
            ("Speed", saved.SPEED, True), ("Curves", saved.CURVES, True), ("Parity", saved.PARITY, False),
        ):  # fmt: skip
            found[name] = view_url(base, experiment_id, charts, key)
    if cursor.get("cells"):
        found["Cells"] = view_url(base, experiment_id, key=saved.CELLS)
    return found


def answer_page(run_dir: Path, uri: str) -> str | None:
    """The address of the run's answer on the MLflow server at `uri`; None if it is none, or has none yet."""
    cursor = read_json(run_dir / "mlflow.json") or {}
    if not uri.startswith("http") or not belongs(cursor, uri, run_dir.parent):
        return None
    return pages(re.sub(r"//[^/]*@", "//", uri), cursor).get("Answer")


def _show(base: str, newest: Mapping[str, Any]) -> None:
    for name, address in pages(base, newest).items():
        print(f"{name:7} {address}", flush=True)


def _show_remote(out: Path, where: Where, open_browser: bool) -> None:
    if not where.uri.startswith("http"):
        raise UserError(
            f"MLflow at {where} has pages of its own: open your Databricks workspace, and Experiments in it."
        )
    if importlib.util.find_spec("mlflow") and (problem := remote.problem(where.uri)):
        raise UserError(problem)
    newest = _newest(out, where) or {}
    base = re.sub(r"//[^/]*@", "//", where.uri)  # a browser asks for the login itself
    _show(base, newest)
    if open_browser and has_display():
        webbrowser.open(next(iter(pages(base, newest).values())))


def _show_others(chosen: Listener, newest: Mapping[str, Any]) -> None:
    """How other machines reach the pages: by their addresses, or through a tunnel."""
    if chosen.is_open:
        names = sorted(own_names(), key=lambda name: not name[0].isdigit())  # a number needs no look-up there
        for name in names[:2] if chosen.host in ("0.0.0.0", "::") else []:
            print(f"{'Others':7} {next(iter(pages(f'http://{name}:{chosen.port}', newest).values()))}", flush=True)
        reach = f"Anybody who can reach port {chosen.port} of this machine can read and change these runs"
        print(f"{reach}: MLflow asks for no password.", flush=True)
    elif not has_display():
        print(f"From your own machine, type there: {tunnel(chosen)}\nThen open the same addresses there.", flush=True)


@contextmanager
def _readable(out: Path, uri: str) -> Generator[tuple[str, Path]]:
    """The address to serve, and where the server's log goes. In a folder that may only be read, a copy is served."""
    path = database.path_of(uri)
    is_closed = path is not None and (obstacle(path.parent) or not os.access(path, os.W_OK))
    with tempfile.TemporaryDirectory(prefix="capsbench-ui-") as folder:
        if path and is_closed:
            print(
                f"{path} may only be read: the pages show a copy, and what is changed in them is not kept.", flush=True
            )
            copy = Path(folder) / "mlflow.db"
            database.copy(path, copy)
            database.relocate(copy, out, original=path)
            uri = database.uri_of(copy)
        else:
            prepare(uri, out)
        yield uri, (Path(folder) if obstacle(out) else out) / "mlflow-server.log"


@contextmanager
def mlflow_server(out: Path, uri: str, chosen: Listener, log_path: Path) -> Generator[subprocess.Popen[bytes]]:
    """An MLflow server in its own process group, stopped at the end of the block; yields once it answers."""
    files = artifacts_of(uri, out) or out
    command = [
        sys.executable, "-P", "-m", "mlflow", "server", "--artifacts-destination", files.as_uri(),
        "--host", chosen.host, "--port", str(chosen.port), "--workers", "1",
        "--allowed-hosts", chosen.allowed_hosts, "--cors-allowed-origins", chosen.origins,
    ]  # fmt: skip
    settings = child_environment(os.environ, keep=("MLFLOW_",)) | quiet_environment()
    settings = {name: value for name, value in settings.items() if name not in _OWN}
    settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    settings["UVICORN_APP_DIR"] = str(own_folder())  # else the working directory comes first on its import path
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ends = (signal.SIGTERM, signal.SIGHUP)  # closing the terminal must not leave the server behind either
    before = [signal.signal(number, _exit) for number in ends]
    try:
        _await(chosen.local, process, log_path)
        yield process
    finally:
        _end(process)
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def _await(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import urllib.request  # it needs parts of the system that `capsbench run`, which imports this module, does without

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach the loopback address
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), direct.open(f"{base}/health", timeout=2):
            return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    errors = [line for line in lines if "Error: " in line or "Exception: " in line]
    raise UserError(f"the MLflow server did not start ({redact((errors or lines)[-1])}); its log is {log}")


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
