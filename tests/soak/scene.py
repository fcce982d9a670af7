"""Where a soak happens: a small disk, an MLflow server over a database, a cluster of three nodes, and the bench itself."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.run_helpers import HELPERS, ROOT

DISK_MB = 96


class Disk:
    """A file system of its own that can be filled; as root only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "capsbench-soak", str(folder)]
        self.is_own = (
            os.geteuid() == 0
            and bool(shutil.which("mount"))
            and not subprocess.run(mount, capture_output=True, check=False).returncode
        )
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Writes until nothing more fits."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if self.is_own:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Server:
    """A server process that is killed, stopped and started again, always at the same port."""

    def __init__(self, command: list[str], port: int, log: Path, ready: str) -> None:
        self._command, self._log, self._ready = command, log, ready
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, within_s: float = 120) -> None:
        if self.process and self.process.poll() is None:
            self.send(signal.SIGCONT)
            return
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self._ready}", timeout=2),
            ):
                return
            time.sleep(0.3)
        raise RuntimeError(f"{self._command[0]} does not answer: see {self._log}")

    def send(self, number: signal.Signals) -> None:
        """To the server and all that it has started."""
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self.process:
            self.process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def mlflow_server(folder: Path, backend: str) -> Server:
    """An MLflow server on loopback over this database; artifacts in `folder`."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts",
    ]  # fmt: skip
    return Server(command, port, folder / "mlflow.log", "/health")


@functools.cache
def wrong_clock() -> Path | None:
    """The library by which a process has a wrong clock; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    built = Path(tempfile.mkdtemp(prefix="soak-clock-")) / "clock.so"
    atexit.register(shutil.rmtree, built.parent, ignore_errors=True)
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(built), str(source), "-ldl"], check=True)
    return built


class Driver:
    """`capsbench run`, started again and again with the same words."""

    def __init__(self, folder: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._folder, self._arguments = folder, arguments
        own = {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{HELPERS}",
            "CAPSBENCH_LEASES": f"soak-{os.getpid()}",
        }  # no other bench's
        self._environment = {**os.environ, **own, **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def log(self) -> Path:
        return self._folder / "driver.log"

    @property
    def is_inline(self) -> bool:
        return "inline" in self._arguments

    def start(self, clock_off_s: int = 0) -> None:
        """`clock_off_s`: how far the wall clock is off, of the bench and of what it starts."""
        self.starts += 1
        wrong = {"LD_PRELOAD": str(wrong_clock()), "CLOCK_OFF_S": str(clock_off_s)} if clock_off_s else {}
        with self.log.open("ab") as log:
            log.write(f"\n--- start {self.starts}{f', clock off by {clock_off_s} s' if wrong else ''}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness", *self._arguments],
                cwd=self._folder, env=self._environment | wrong, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def ended(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.process.poll() if self.process else None

    def sync(self, run_dir: Path, uri: str) -> None:
        """Brings to MLflow what it lacks, as a run that ends without it says."""
        command = [sys.executable, "-m", "harness", "sync", str(run_dir), "--mlflow-uri", uri]
        with self.log.open("ab") as log:
            subprocess.run(command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, check=True)

    def stacks(self) -> str:
        """Where its threads stand, and the end of what it said."""
        said = self.log.read_text(errors="replace")[-1500:]
        if not self.process or not (spy := shutil.which("py-spy", path=str(Path(sys.executable).parent))):
            return said
        dump = subprocess.run(
            [spy, "dump", "--pid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return f"{said}\n{dump.stdout}{dump.stderr}"

    def family(self, name: str | None = None) -> list[psutil.Process]:
        """Its descendants; `name`: those whose command line has it."""
        if not self.process:
            return []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [each for each in children if name is None or name in _command(each)]
        return []


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


class ThreeNodes:
    """A Ray cluster on this machine: a head without cores, and nodes that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def lose(self, index: int) -> None:
        """A node dies without a word; another joins."""
        self._cluster.remove_node(self.nodes.pop(index), allow_graceful=False)
        self.nodes.append(self._cluster.add_node(num_cpus=1))

    def close(self) -> None:
        self._cluster.shutdown()
