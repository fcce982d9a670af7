"""The driver's end of storage: what is there is checked before anything starts, then kept up to date in the background."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from harness.errors import UserError
from harness.machine.surroundings import python_path
from harness.storage.place import Place, without_secrets

OPEN_S = 15.0
"""How long storage has to answer before a run begins."""
_SILENT_S = 120.0
"""How long a transfer may not move before it is begun anew."""
_BACK_OFF_S = (2.0, 5.0, 10.0, 30.0, 60.0)
_END_S = 5.0


class _Failed(Exception):
    """Something that may work later: why, in words."""


class Mirror:
    """A run's folder in storage. `say` gets a line when sending begins to fail, and when it has caught up.

    Args:
        environ: of the process that talks to storage; credentials are looked for there.
    """

    def __init__(
        self, place: Place, run_dir: Path, say: Callable[[str], None], environ: Mapping[str, str] = os.environ
    ) -> None:
        self.place, self._run_dir, self.say, self._environ = place, run_dir.absolute(), say, environ
        self._token = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._buffer = b""
        self._dirty: dict[str, int] = {}  # folder -> how often it has changed
        self._state = threading.Condition()
        self._known: set[str] = set()  # all that have changed
        self._closing = False
        self._failing: tuple[str, float] | None = None  # why, and since when
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Writes to storage, reads it back, and claims it for this driver.

        Raises `UserError` if it cannot be used, within `OPEN_S`, or if another driver uses it, within twice that.
        """
        try:
            self._start()
        except (_Failed, UserError) as error:
            self._kill()
            raise UserError(f"--storage {self.place}: {error}") from error
        except BaseException:
            self._kill()
            raise

    def plan(self) -> dict[str, Any]:
        """The plan.json that is stored; empty if there is none."""
        document = self._once("plan")
        return json.loads(document) if document else {}

    def has_something(self) -> bool:
        """Whether anything of the run is stored."""
        return bool(self._once("folders"))

    def is_behind(self) -> bool:
        """Whether something here has not been sent."""
        return bool(self._dirty)

    def bring(self) -> int:
        """Brings back what is stored and missing here; returns how many files. Raises `UserError`.

        The caller holds the run directory's lock.
        """
        return sum(self._once("bring").values())

    def begin(self) -> None:
        """From now on, what is `changed` is sent."""
        self._thread = threading.Thread(target=self._work, daemon=True, name="storage")
        self._thread.start()

    def changed(self, folder: str) -> None:
        """The run's folder (""), or a trial's, has new content. Returns at once."""
        with self._state:
            self._known.add(folder)
            self._dirty[folder] = self._dirty.get(folder, 0) + 1
            self._state.notify_all()

    def close(self, limit_s: float) -> str | None:
        """Sends what is left within `limit_s`; returns a sentence if that did not succeed. Closing twice is fine."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        if self._thread:
            self._thread.join(limit_s)
        late = len(self._dirty)
        if self._thread and self._thread.is_alive():
            self._kill()  # ends the request that the thread waits for
            self._thread.join(_END_S)
        self._end()
        if not late:
            return None
        why, since = self._failing or (f"it takes longer than {limit_s:.0f} s", time.time())
        when = time.strftime("%H:%M", time.localtime(since))
        trials = f"{late} folder{'s' * (late != 1)} of the run"
        return (
            f"storage: {trials} are not up to date in {self.place}, since {when}: {why}. {self._run_dir} has everything; the "
            "same command sends the rest"
        )

    def _work(self) -> None:
        tries = 0
        while True:
            with self._state:
                while not self._dirty and not self._closing:
                    self._state.wait()
                if not self._dirty:
                    return
                folder, count = next(iter(self._dirty.items()))
            try:
                if self._process is None or self._process.poll() is not None:
                    self._start()
                if tries:
                    self._look_again()
                self._ask({"do": "send", "folder": folder}, _SILENT_S)
            except (_Failed, UserError) as error:
                if self._closing and tries:
                    return
                if not self._failing:
                    self._failing = (str(error), time.time())
                    self.say(f"storage: cannot write {self.place}: {error}. The run goes on; this is tried again")
                with self._state:
                    self._state.wait(0.1 if self._closing else _BACK_OFF_S[min(tries, len(_BACK_OFF_S) - 1)])
                    self._dirty[folder] = self._dirty.pop(folder)  # the others first
                tries += 1
                continue
            tries = 0
            with self._state:
                if self._dirty.get(folder) == count:
                    del self._dirty[folder]
                if self._failing and not self._dirty:
                    self._failing = None
                    self.say(f"storage: {self.place} has caught up")

    def _look_again(self) -> None:
        """After a failure: what was stored before may be there, or not, as when a folder was not mounted for a while."""
        self._ask({"do": "look"}, _SILENT_S)
        with self._state:
            for folder in sorted(self._known):
                self._dirty.setdefault(folder, 0)

    def _once(self, what: str) -> Any:
        try:
            return self._ask({"do": what}, _SILENT_S)
        except (_Failed, UserError) as error:
            raise UserError(f"--storage {self.place}: {error}") from error

    def _start(self) -> None:
        self._kill()
        self._buffer = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.storage.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**self._environ, "PYTHONPATH": os.pathsep.join(python_path(self._environ))},
            start_new_session=True,  # Ctrl-C is the driver's
        )
        job = {"url": self.place.url, "run_dir": str(self._run_dir), "token": self._token, "driver": os.getpid()}
        self._ask({**job, "do": "open"}, OPEN_S, at_most=True)
        self._ask({"do": "claim"}, OPEN_S)

    def _ask(self, job: Mapping[str, Any], limit_s: float, *, at_most: bool = False) -> Any:
        """The answer, if there is a sign of life every `limit_s`, or with `at_most` an answer within that.

        Raises `UserError` for what is refused, `_Failed` for what may work later; the process may then have ended.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise _Failed("its process has ended")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        deadline = time.monotonic() + limit_s
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                answer: dict[str, Any] = json.loads(line)
                if "done" in answer:
                    return answer["done"]
                if "refused" in answer:
                    raise UserError(answer["refused"])
                if "failed" in answer:
                    raise _Failed(answer["failed"])
                if not at_most:
                    deadline = time.monotonic() + limit_s
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._kill()
                raise _Failed(f"no answer within {limit_s:.0f} s")
            if select.select([process.stdout], [], [], min(left_s, 1.0))[0]:
                received = os.read(process.stdout.fileno(), 65536)
                if not received:
                    raise _Failed(self._last_words())
                self._buffer += received

    def _last_words(self) -> str:
        process, log = self._process, self._log
        code = process.wait() if process else None
        if log is None:
            return "its process has ended"
        log.seek(0)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return without_secrets(f"its process ended (exit code {code}){f': {lines[-1][:300]}' if lines else ''}")

    def _end(self) -> None:
        """Lets the process release the claim; then it ends, or is ended."""
        process = self._process
        if process and process.poll() is None and process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.write(b'{"do": "end"}\n')
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if self._log:
            self._log.close()
            self._log = None
