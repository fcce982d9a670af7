"""Cores and GPUs of one node, leased: no two timed trials share one, whichever capsbench driver started them.

A lease is a claim that the whole machine sees (`harness.machine.claims`), and an flock on a file in one of the user's
directories, which other network namespaces and systems without such claims see. The supervisor holds both while its
attempt runs; the kernel releases them however that process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from harness.disk import read_json
from harness.errors import UserError
from harness.machine.claims import claim
from harness.machine.claims import holder as claimant
from harness.machine.environment import available_cores, gpu_ids
from harness.machine.noise import Machine, machine
from harness.machine.surroundings import own_folder
from harness.machine.topology import spread

_POLL_S = 0.2
_FOREIGN_S = 60.0  # how long another user's claim on a core that does nothing is respected
_IDLE = 0.1
Slot = TypeVar("Slot", int, str)


def local_cores() -> tuple[int, ...]:
    """The logical cores for trials, as many as `available_cores`, one of each physical core before the second ones."""
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return tuple(spread(own)[: available_cores()])


def local_gpus() -> tuple[str, ...]:
    """Ids of the NVIDIA GPUs for trials: those that the driver shows, and of these those in `CUDA_VISIBLE_DEVICES`."""
    return gpu_ids()[0]


def stale_gpus() -> str | None:
    """A sentence if `CUDA_VISIBLE_DEVICES` names GPUs that the driver does not show."""
    there, absent = gpu_ids()
    if not absent:
        return None
    rest = f"trials use {', '.join(there)}" if there else "trials use the CPU"
    return (
        f"CUDA_VISIBLE_DEVICES names {', '.join(absent)}, but the driver shows no such GPU: {rest}; unset it, or set it to "
        "what nvidia-smi -L lists"
    )


@contextmanager
def lease(
    kind: str,
    slots: Sequence[Slot],
    n: int,
    *,
    waiting: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
    holder: str = "",
) -> Generator[tuple[Slot, ...]]:
    """Holds `n` of the `slots` of this node ("core" 0, 1, ..., or "gpu" ids) for the duration of the `with` block.

    If they are taken, waits in a queue: trials that want few do not overtake one that wants many. `waiting` is then
    called once, with a sentence for the screen that names who has them: processes, their `holder` (a run directory, or a
    command), and since when.

    Raises:
        UserError: `n` is more than there are, or the lease directory cannot be used.
        KeyboardInterrupt: `stop` was set while waiting.
    """
    if n > len(slots):
        raise UserError(f"asked for {n} x {kind}, but this node has {len(slots)}: lower resources in the suite")
    if not n:
        yield ()
        return
    folder = own_folder()
    patience = _Patience(kind, slots, folder, waiting, stop)
    note = json.dumps({"pid": os.getpid(), "holder": holder, "since": time.time()})
    held: list[Slot] = []
    with ExitStack() as locks:
        # Only the first in the queue collects slots, so no two waiters hold what the other needs.
        with ExitStack() as turn:
            while not _take(folder, f"{kind}.turn", turn, patience, note):
                patience.wait(n, f"{kind}.turn", *(_name(kind, slot) for slot in slots))
            while len(held) < n:
                for slot in slots:
                    name = _name(kind, slot)
                    if slot not in held and len(held) < n and _take(folder, name, locks, patience, note):
                        held.append(slot)
                if len(held) < n:
                    patience.wait(n, *(_name(kind, slot) for slot in slots if slot not in held))
        yield tuple(held)


class _Patience:
    """Waiting for a lease: what is told of it, and how long another user's claim is respected."""

    def __init__(
        self,
        kind: str,
        slots: Sequence[object],
        folder: Path,
        waiting: Callable[[str], None],
        stop: threading.Event | None,
    ) -> None:
        self._kind, self._folder, self._waiting, self._stop = kind, folder, waiting, stop
        numbers = [int(str(slot)) for slot in slots if str(slot).isdigit()]
        self._cores = numbers if kind == "core" else []
        self._since: Machine | None = None
        self._told = False

    def wait(self, n: int, *names: str) -> None:
        """Waits a moment for one of these claims. Raises `KeyboardInterrupt` if `stop` is set."""
        if not self._told:
            self._told = True
            self._since = machine(self._cores) if self._cores else None
            found = dict.fromkeys(filter(None, (self._who(name) for name in names)))
            whose = f": {'; '.join(found)}" if found else ""
            self._waiting(f"waiting for {n} x {self._kind}: in use by another trial on this host{whose}")
        if self._stop is not None and self._stop.is_set():
            raise KeyboardInterrupt
        time.sleep(_POLL_S)

    def _who(self, name: str) -> str | None:
        """Who has this claim: "process 123 (runs/mnist), since 14:05"; without the note in our folder, as the kernel says."""
        held, note = claimant(name), read_json(self._folder / name) or {}
        if not {"pid", "holder", "since"} <= note.keys() or note["pid"] == os.getpid() != (held and held.pid):
            return held and str(held)
        if held and held.pid and held.pid != note["pid"]:
            return str(held)
        since = time.strftime("%H:%M", time.localtime(note["since"]))
        return f"process {note['pid']}" + (f" ({note['holder']})" if note["holder"] else "") + f", since {since}"

    def is_over(self, name: str) -> bool:
        """Whether to do without a claim that another user holds, since no core that we wait for does anything."""
        if self._since is None or time.monotonic() - self._since.time_s < _FOREIGN_S:
            return False
        if not (held := claimant(name)) or not held.is_foreign:
            return False
        now = machine(self._cores)
        busy = now.busy_s - self._since.busy_s if now.busy_s is not None and self._since.busy_s is not None else None
        if busy is None or busy > _IDLE * (now.time_s - self._since.time_s):
            self._since = now  # looks again in a minute
            return False
        self._waiting(f"{name} is claimed by {held}, but nothing runs there: it is used all the same")
        return True


def _name(kind: str, slot: object) -> str:
    return re.sub(r"[^\w-]", "_", f"{kind}-{slot}")


def _take(folder: Path, name: str, until: ExitStack, patience: _Patience, note: str) -> bool:
    """Takes claim and lock of this name, or neither."""
    with ExitStack() as both:
        if not (claim(name, both) or patience.is_over(name)) or not _lock(folder / name, both, note):
            return False
        until.push(both.pop_all())
    return True


@contextmanager
def scratch_folder() -> Generator[Path]:
    """A folder on this node for the duration of the `with` block; first removes those of killed processes."""
    base = own_folder()
    for stale in base.glob("scratch-*.lock"):
        with ExitStack() as found:
            if _lock(stale, found):
                shutil.rmtree(stale.with_suffix(""), ignore_errors=True)
                stale.unlink(missing_ok=True)
    lock = base / f"scratch-{uuid.uuid4().hex}.lock"
    folder = lock.with_suffix("")
    with ExitStack() as held:
        _lock(lock, held)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _lock(path: Path, until: ExitStack, note: str = "") -> bool:
    """Locks `path` until the stack is closed; False if another process, or another lease of this one, has it.

    The file then says `note`, until it is locked again.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    until.callback(os.close, descriptor)
    if note:
        with suppress(OSError):  # a full disk: nobody is told, but the lock holds
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)
    return True
