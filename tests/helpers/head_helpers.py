"""A real head of a Ray cluster on this machine's loopback, with its dashboard, in a folder and on ports of its own."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.helpers.run_helpers import HELPERS, ROOT

HAS_JOBS = all(importlib.util.find_spec(name) for name in ("ray", "aiohttp_cors", "opencensus", "smart_open"))
"""Whether Ray's dashboard and jobs are installed: the extra `cluster`."""


@dataclass(frozen=True)
class Head:
    address: str  # of its GCS, host:port
    dashboard: str  # URL
    token: str | None


@contextmanager
def head(folder: Path, token: str | None) -> Generator[Head]:
    """Starts the head, in `folder`, whose path must be short; ends it and all that it has started."""
    ports = _free_ports(4)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback
        "RAY_AUTH_MODE": "token" if token else "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS), *_own_paths()]),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    if token:
        env["RAY_AUTH_TOKEN"] = token
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1", "--num-gpus=0",
        f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}",
        f"--ray-client-server-port={ports[3]}", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}/ray",
        "--object-store-memory=80000000", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        found = Head(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", token)
        _wait(found, process, folder)
        yield found
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        family += [each for each in psutil.process_iter() if _is_of(each, folder)]
        for each in family:
            with suppress(psutil.Error):
                each.kill()
        process.wait()


def _wait(found: Head, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Returns once the dashboard's agent takes jobs."""
    deadline = time.monotonic() + 120
    request = urllib.request.Request(f"{found.dashboard}/api/jobs/")
    if found.token:
        request.add_header("Authorization", f"Bearer {found.token}")
    while True:
        with suppress(OSError), urllib.request.urlopen(request, timeout=5):
            if "Ray runtime started" in (folder / "head.log").read_text():
                return
        assert process.poll() is None, (folder / "head.log").read_text()
        assert time.monotonic() < deadline, (folder / "head.log").read_text()
        time.sleep(0.2)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        return process.pid != os.getpid() and str(folder) in " ".join(process.cmdline())
    return False


def _own_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
