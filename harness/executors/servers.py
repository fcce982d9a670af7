"""Ray's own processes, watched from outside: once one is lost, Ray's calls may wait for ever, or end the process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from harness.machine.processes import Process, kill, look, table

MARK = "_CAPSBENCH_RAY"
"""The environment variable by which a private Ray's processes are found, its supervisors included: the folder of its files."""

_LOOK_S = 1.0
_NOTICED_S = 2.0  # of the time between two looks; in the rest, this process was itself stopped
_STOPPED_S = 20.0  # how long a server may be stopped
_KNOCK_S = 3.0  # between two attempts to connect to a cluster
_CONNECT_S = 2.0
_UNREACHABLE_S = 10.0  # how long a cluster may be unreachable
_SERVERS = ("raylet", "gcs_server")


class Servers(Protocol):
    def fault(self) -> str | None:
        """Call it often. Once Ray is lost, says how, in a clause."""
        ...

    def end(self) -> None:
        """Ends what is left of a private Ray."""
        ...


class OwnServers:
    """The servers of a private Ray that this process has started, with its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        own = (p for p in table().values() if p.parent == os.getpid() and p.name in _SERVERS)
        self._servers = [server for server in own if not server.has_ended]  # those of an earlier Ray may not be reaped
        self._stopped_s = dict.fromkeys((server.pid for server in self._servers), 0.0)
        self._looked = time.monotonic()

    def fault(self) -> str | None:
        passed = time.monotonic() - self._looked
        if passed < _LOOK_S:
            return None
        self._looked += passed
        for server in self._servers:
            now = look(server.pid)
            who = f"{server.name} (process {server.pid})"
            if now is None or now.has_ended or now.start != server.start:
                return f"its {who} has ended"
            stopped_s = self._stopped_s[server.pid] + min(passed, _NOTICED_S) if now.is_stopped else 0.0
            self._stopped_s[server.pid] = stopped_s
            if stopped_s >= _STOPPED_S:
                return f"its {who} has been stopped (SIGSTOP, or a debugger) for {stopped_s:.0f} s"
        return None

    def end(self) -> None:
        for _ in range(2):  # what was being started the first time
            kill(_marked(self._folder))
            time.sleep(0.1)


class ClusterServers:
    """A cluster's servers at `addresses`, (host, port) each: its GCS, and this node's raylet."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = addresses
        self._reached = self._knocked = time.monotonic()

    def fault(self) -> str | None:
        if time.monotonic() - self._knocked < _KNOCK_S:
            return None
        begun = time.monotonic()
        if begun - self._knocked > _KNOCK_S + 2 * _NOTICED_S:  # this process was itself stopped
            self._reached += begun - self._knocked
        silent = next((each for each in self._addresses if not _answers(each)), None)
        self._knocked = time.monotonic()
        if silent is None:
            self._reached = self._knocked
        elif (passed := self._knocked - self._reached) >= _UNREACHABLE_S:
            return f"its server at {silent[0]}:{silent[1]} has not answered for {passed:.0f} s"
        return None

    def end(self) -> None:
        """It is not ours to end."""


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def _marked(folder: Path) -> Iterable[Process]:
    mark = f"{MARK}={folder}".encode()
    for process in table().values():
        try:
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in variables and process.pid != os.getpid():
            yield process
