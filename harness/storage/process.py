"""The process that talks to storage: `python -P -m harness.storage.process`; `harness.storage.mirror` starts it.

A process of its own, since a library that waits for a network cannot be ended otherwise, and since a timed trial or the
driver's terminal must not suffer from it. It takes a line of JSON at a time, and answers each: {"done": ...},
{"refused": message} for what the user can mend, or {"failed": message} for what may work later. In between, {"moved": 1}
says that it is alive.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage.claim import Claim
from harness.storage.copies import Copies, Differ
from harness.storage.objects import Objects
from harness.storage.place import Place, without_secrets

_ORPHAN_S = 20.0
_LONGEST = 400


class _Server:
    def __init__(self, job: dict[str, Any]) -> None:
        self._place, self._run_dir = Place(job["url"]), Path(job["run_dir"])
        self._told = 0.0
        self._writing = threading.Lock()
        self._objects = Objects(self._place)
        self._copies = Copies(self._run_dir, self._objects, self._moved)
        self._claim = Claim(self._objects, job["token"], job["driver"])

    def open(self, _: dict[str, Any]) -> None:
        """Writes an object, reads it, removes it."""
        name, content = f"probe-{uuid.uuid4().hex[:8]}", os.urandom(16)
        self._objects.write(name, content)
        found = self._objects.read(name)
        self._objects.remove(name)
        if found != content:
            raise UserError("does not give back what was written there")

    def claim(self, _: dict[str, Any]) -> None:
        self._claim.take(self._moved)
        self._copies.look()

    def look(self, _: dict[str, Any]) -> None:
        self._copies.look()

    def plan(self, _: dict[str, Any]) -> str | None:
        content = self._copies.document("plan.json")
        return content.decode("utf-8", "replace") if content else None

    def folders(self, _: dict[str, Any]) -> list[str]:
        return self._copies.folders

    def bring(self, _: dict[str, Any]) -> dict[str, int]:
        brought: dict[str, int] = {}
        for folder in self._copies.folders:
            try:
                brought[folder] = self._copies.bring(folder)
            except Differ:
                here = self._run_dir / folder
                raise UserError(
                    f"has another journal of {folder} than {here}: the trial went on in both, or one was changed. To keep what "
                    f"is stored, move {here} elsewhere; to keep what is here, give another --storage"
                ) from None
        return {folder: count for folder, count in brought.items() if count}

    def send(self, job: dict[str, Any]) -> None:
        self._claim.require()
        self._copies.send(job["folder"])

    def release(self) -> None:
        self._claim.release()

    def answer(self, **answer: Any) -> None:
        with self._writing:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    def _moved(self) -> None:
        if time.monotonic() - self._told > 1:
            self._told = time.monotonic()
            self.answer(moved=1)


def told(error: BaseException) -> str:
    """What went wrong, in one line without secrets."""
    text = " ".join(without_secrets(str(error)).split())[:_LONGEST]
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have ~/.aws/credentials"
    if isinstance(error, PermissionError):
        return f"not permitted: {text}"
    return f"{name}: {text}".removesuffix(": ")


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides when this ends
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    lines = iter(sys.stdin.readline, "")
    server: _Server | None = None
    for line in lines:
        job: dict[str, Any] = json.loads(line)
        try:
            if server is None:
                server = _Server(job)
            if job["do"] == "end":
                break
            done = getattr(server, job["do"])(job)
            server.answer(done=done)
        except UserError as error:
            _answer(server, refused=without_secrets(str(error)))
        except Exception as error:
            _answer(server, failed=told(error))
    if server:
        server.release()
    os._exit(0)  # a library's threads may wait for ever


def _answer(server: _Server | None, **answer: str) -> None:
    if server:
        server.answer(**answer)
    else:
        print(json.dumps(answer), flush=True)


def _end_with(parent: int) -> None:
    """Ends this process soon after the driver, even in the middle of something."""
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(_ORPHAN_S)
    os._exit(1)


if __name__ == "__main__":
    _main()
