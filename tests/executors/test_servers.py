"""Ray's servers as they are watched: processes of these names that end, or are stopped, and addresses that fall silent."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.executors import servers
from harness.executors.servers import MARK, ClusterServers, OwnServers, Servers


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_S", "_KNOCK_S"):
        monkeypatch.setattr(servers, name, 0.02)
    for name in ("_STOPPED_S", "_UNREACHABLE_S"):
        monkeypatch.setattr(servers, name, 0.2)


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of that name."""
    program = Path(shutil.copy(str(shutil.which("sleep")), tmp_path / "raylet"))
    with subprocess.Popen([program, "600"], env={MARK: str(tmp_path)}) as process:
        yield process
        process.kill()


def first_fault(watched: Servers, within_s: float = 30) -> str:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if fault := watched.fault():
            return fault
        time.sleep(0.01)
    raise AssertionError("nothing was noticed")


def test_one_that_ends(raylet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    watched = OwnServers(tmp_path)
    time.sleep(0.1)
    assert watched.fault() is None
    raylet.kill()
    assert first_fault(watched) == f"its raylet (process {raylet.pid}) has ended"


def test_one_that_is_stopped(raylet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    watched = OwnServers(tmp_path)
    raylet.send_signal(signal.SIGSTOP)
    fault = first_fault(watched)
    assert fault.startswith(f"its raylet (process {raylet.pid}) has been stopped (SIGSTOP, or a debugger) for ")


def test_all_that_it_started_is_found_whatever_its_parent(raylet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    OwnServers(tmp_path / "another").end()
    assert raylet.poll() is None
    OwnServers(tmp_path).end()
    assert raylet.wait(30) == -signal.SIGKILL


def test_an_address_that_falls_silent() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    host, port = server.getsockname()
    watched = ClusterServers([(host, port)])
    time.sleep(0.1)
    assert watched.fault() is None
    server.close()
    assert first_fault(watched).startswith(f"its server at {host}:{port} has not answered for ")
