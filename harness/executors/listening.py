"""Who listens for connections on this machine, of the Ray instances that run here; from /proc, so on Linux alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_SERVER = "gcs_server"
_MINE = "cb-"
"""How the folder of a bench's private Ray begins: see `harness.executors.instance`."""


@dataclass(frozen=True)
class Instance:
    """A Ray of which this machine has the head, and where its processes here listen; all that this user may look at."""

    pid: int  # of its GCS
    driver: int | None  # of the process that started it, if that still runs; of a private one the bench
    is_private: bool  # a bench's own
    asks_for_token: bool
    sockets: tuple[tuple[str, int, str], ...]  # (address, port, name of the process)

    @property
    def exposed(self) -> tuple[tuple[str, int, str], ...]:
        """Those that can be reached from other machines."""
        return tuple(each for each in self.sockets if not ipaddress.ip_address(each[0]).is_loopback)


@dataclass(frozen=True)
class _Process:
    name: str
    parent: int
    arguments: tuple[str, ...]


def ray_instances() -> list[Instance]:
    """The Ray instances whose head runs here, by process id."""
    table = _processes()
    inodes = _inodes()
    return [_instance(pid, table, inodes) for pid in sorted(table) if table[pid].name == _SERVER]


def _instance(pid: int, table: Mapping[int, _Process], inodes: Mapping[str, tuple[str, int]]) -> Instance:
    server = table[pid]
    session = next((each.partition("=")[2] for each in server.arguments if each.startswith("--log_dir=")), "")
    folder = Path(session).parent
    family = {pid} | {other for other, each in table.items() if session and str(folder) in " ".join(each.arguments)}
    while more := {other for other, each in table.items() if each.parent in family} - family:
        family |= more
    is_private = folder.parent.name.startswith(_MINE)
    driver = server.parent if server.parent > 1 else None
    if is_private and driver:
        family.add(driver)
    sockets = {(*inodes[inode], table[each].name) for each in family for inode in _sockets(each) if inode in inodes}
    return Instance(pid, driver, is_private, _asks(pid), tuple(sorted(sockets)))


def _processes() -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    for entry in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            head, _, tail = (entry / "stat").read_text(errors="replace").rpartition(")")
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found[int(entry.name)] = _Process(head.partition("(")[2], int(tail.split()[1]), tuple(words))
    return found


def _inodes() -> dict[str, tuple[str, int]]:
    """A listening socket's inode -> its address and port."""
    found: dict[str, tuple[str, int]] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    found[fields[9]] = _address(fields[1])
    return found


def _address(text: str) -> tuple[str, int]:
    """ "0100007F:1F90" is 127.0.0.1, port 8080: words of four bytes, each in the order of this machine, here little-endian."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[start : start + 8])[::-1] for start in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open; empty if this user may not look."""
    found: set[str] = set()
    with suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _asks(pid: int) -> bool:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"RAY_AUTH_MODE=token" in variables
