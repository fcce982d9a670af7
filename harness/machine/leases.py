"""Cores and GPUs of one node, leased: no two timed trials share one, whichever capsbench driver started them.

A lease is an flock on a file in one of the user's directories. The supervisor holds it while its attempt runs; the
kernel releases it however that process ends.
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
from harness.machine.environment import available_cores, gpu_ids
from harness.machine.surroundings import own_folder
from harness.machine.topology import spread

_POLL_S = 0.2
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
    folder = own_folder()
    paths = {slot: folder / re.sub(r"[^\w-]", "_", f"{kind}-{slot}") for slot in slots}
    queue = folder / f"{kind}.turn"
    note = json.dumps({"pid": os.getpid(), "holder": holder, "since": time.time()})

    def told() -> None:
        having = _holders([*(path for slot, path in paths.items() if slot not in held), queue])
        waiting(f"waiting for {n} x {kind}: in use by another trial on this host{having}")

    tell = [told]

    def pause() -> None:
        if tell:
            tell.pop()()
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        time.sleep(_POLL_S)

    held: list[Slot] = []
    with ExitStack() as locks:
        # Only the first in the queue collects slots, so no two waiters hold what the other needs.
        with ExitStack() as turn:
            while n and not _lock(queue, turn, note):
                pause()
            while len(held) < n:
                for slot in slots:
                    if slot not in held and len(held) < n and _lock(paths[slot], locks, note):
                        held.append(slot)
                if len(held) < n:
                    pause()
        yield tuple(held)


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


def _holders(paths: Sequence[Path]) -> str:
    """Who has locked these: ": process 123 (runs/mnist), since 14:05"; empty if no file says."""
    found: dict[int, str] = {}
    for path in paths:
        note = read_json(path) or {}
        if {"pid", "holder", "since"} <= note.keys() and note["pid"] not in found:
            since = time.strftime("%H:%M", time.localtime(note["since"]))
            what = f" ({note['holder']})" if note["holder"] else ""
            found[note["pid"]] = f"process {note['pid']}{what}, since {since}"
    return f": {'; '.join(found.values())}" if found else ""


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
