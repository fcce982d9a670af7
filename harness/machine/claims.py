"""Claims that the whole machine sees, whatever the user and the folder for temporary files: abstract Unix sockets.

There is no file: nothing to follow, to be left behind or to be made unusable by another user. The kernel frees a claim
with the process that holds it, and says whose it is. Only Linux has them, and each network namespace has its own: what a
container claims is seen in there alone (`harness.machine.loads` then names the load).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

PLACE = "CAPSBENCH_LEASES"
"""The environment variable with a name for claims apart from all others, as for tests that run beside a real run."""
_CREDENTIALS = struct.Struct("3i")  # of a Unix socket's peer: process, user, group


@dataclass(frozen=True)
class Holder:
    """The process that holds a claim; `pid` is 0 if it cannot be seen from here."""

    pid: int
    uid: int

    @property
    def is_foreign(self) -> bool:
        """Whether another user holds it."""
        return self.uid != os.getuid()

    def __str__(self) -> str:
        return f"process {self.pid or 'unseen'}{_command(self.pid)} of {user(self.uid)}"


def claim(name: str, until: ExitStack) -> bool:
    """Claims `name` until the stack is closed; False if another process, or another claim of this one, has it.

    Where there are no such sockets, every claim is granted: file locks alone then decide.
    """
    if sys.platform != "linux":
        return True
    try:
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return True
    try:
        held.bind(_address(name))
        held.listen(64)  # so that others can ask whose it is; none is ever answered
    except OSError as error:
        held.close()
        return error.errno != errno.EADDRINUSE
    until.callback(held.close)
    return True


def holder(name: str) -> Holder | None:
    """Who holds the claim, as the kernel says; None if nobody does, or it does not tell."""
    with suppress(OSError, AttributeError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        asking.connect(_address(name))
        found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(found)
        return Holder(pid, uid)
    return None


def user(uid: int) -> str:
    """The user's name, as "user alice"."""
    with suppress(ImportError, KeyError):
        import pwd

        return f"user {pwd.getpwuid(uid).pw_name}"
    return f"user {uid}"


def _address(name: str) -> bytes:
    place = re.sub(r"[^\w.-]", "_", os.environ.get(PLACE, ""))[:40]
    return f"\0capsbench/{place}/{name}".encode()[:100]


def _command(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        shown = " ".join(word if word.isprintable() else "?" for word in words if word)
        return f" ({shown[:80]})" if shown else ""
    return ""
