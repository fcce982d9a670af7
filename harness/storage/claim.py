"""One driver at a time writes a run's objects. A lock that no object store has: an object that is renewed."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from harness.errors import UserError
from harness.storage.objects import Objects

_NAME = "driver.json"
_BEAT_S = 3.0
_WATCH_S = 12.0
"""How long a claim that somebody else has left is watched: is it still renewed?"""


class Claim:
    """This driver's claim, or what it finds there."""

    def __init__(self, objects: Objects, token: str, driver: int) -> None:
        self._objects, self._lost = objects, ""
        self._own = {"token": token, "host": socket.gethostname(), "pid": driver, "process": _mark(os.getpid())}
        self._ended = threading.Event()

    def take(self, waiting: Callable[[], None]) -> None:
        """Raises `UserError` if another driver is at work. `waiting` is called while that is being found out."""
        deadline = time.monotonic() + _WATCH_S
        first = found = self._read()
        while found and found.get("token") != self._own["token"] and not self._has_ended(found):
            if time.monotonic() > deadline:
                if found.get("beat") == first.get("beat"):
                    break  # left behind by a driver that was killed
                raise UserError(
                    f"is in use by {_who(found)}. Wait until that run ends, stop it with Ctrl-C, or give another --storage"
                )
            waiting()
            time.sleep(0.5)
            found = self._read()
        self._write()
        threading.Thread(target=self._renew, daemon=True, name="claim").start()

    def require(self) -> None:
        """Raises `UserError` if another driver has taken over meanwhile."""
        if self._lost:
            raise UserError(self._lost)

    def release(self) -> None:
        if not self._ended.is_set() and not self._lost:
            self._ended.set()
            self._objects.remove(_NAME)

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT_S):
            try:
                found = self._read()
                if found and found.get("token") != self._own["token"]:
                    self._lost = f"was taken over by {_who(found)}; nothing more is sent from here"
                    return
                if not self._ended.is_set():
                    self._write()
            except Exception:  # the next one may work; what matters is said where something is sent
                continue

    def _read(self) -> dict[str, Any]:
        try:
            document: Any = json.loads(self._objects.read(_NAME) or b"{}")
        except ValueError:
            return {}
        return cast("dict[str, Any]", document) if isinstance(document, dict) else {}

    def _write(self) -> None:
        self._objects.write(_NAME, json.dumps({**self._own, "beat": time.time()}).encode())

    def _has_ended(self, found: dict[str, Any]) -> bool:
        return found.get("host") == self._own["host"] and found.get("process") != _mark(_pid(found.get("process")))


def _mark(pid: int) -> str:
    """A process's id and start; of one that has ended, its id alone."""
    try:
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return str(pid)


def _pid(mark: object) -> int:
    head = str(mark).partition(" ")[0]
    return int(head) if head.isdigit() else 0


def _who(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', '?')} on {str(found.get('host', 'another machine'))[:80]}"
