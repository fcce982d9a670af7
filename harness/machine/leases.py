"""Cores and GPUs of one node, leased: no two timed trials share one, whichever capsbench driver started them.

A lease is an flock on a file in a directory of the user's. The supervisor holds it while its attempt runs; the kernel
releases it, however that process ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from harness.errors import UserError

_POLL_S = 0.2
Slot = TypeVar("Slot", int, str)


def local_cores() -> tuple[int, ...]:
    """The logical cores this process may run on: those that a container or `taskset` leaves it."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def local_gpus() -> tuple[str, ...]:
    """Ids of the NVIDIA GPUs this process may use, as `CUDA_VISIBLE_DEVICES` names them; no framework is asked."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles"))
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # a driver that is broken or absent: no GPU to lease
        return ()
    return tuple(found.split())


@contextmanager
def lease(
    kind: str,
    slots: Sequence[Slot],
    n: int,
    *,
    waiting: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Generator[tuple[Slot, ...]]:
    """Holds `n` of the `slots` of this node ("core" 0, 1, ..., or "gpu" ids) for the length of the `with` block.

    Waits while they are taken, in turn: a trial that wants many is not passed by those that want few. `waiting` is then
    called once, with a sentence for the screen.

    Raises:
        UserError: `n` is more than there are, or the directory of the leases cannot be used.
        KeyboardInterrupt: `stop` was set while waiting.
    """
    if n > len(slots):
        raise UserError(f"asked for {n} x {kind}, but this node has {len(slots)}: lower resources in the suite")
    folder = _folder()
    tell = [lambda: waiting(f"waiting for {n} x {kind}: in use by another trial on this host")]

    def pause() -> None:
        if tell:
            tell.pop()()
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        time.sleep(_POLL_S)

    held: list[Slot] = []
    with ExitStack() as locks:
        # Only the one whose turn it is gathers slots, so no two that wait hold what the other lacks.
        with ExitStack() as turn:
            while n and not _lock(folder / f"{kind}.turn", turn):
                pause()
            while len(held) < n:
                for slot in slots:
                    name = re.sub(r"[^\w-]", "_", f"{kind}-{slot}")
                    if slot not in held and len(held) < n and _lock(folder / name, locks):
                        held.append(slot)
                if len(held) < n:
                    pause()
        yield tuple(held)


@contextmanager
def scratch_folder() -> Generator[Path]:
    """A folder of this node for the length of the `with` block; those of killed processes are removed first."""
    base = _folder()
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


def _lock(path: Path, until: ExitStack) -> bool:
    """Locks `path` until the stack is closed; False if another process, or another lease of this one, has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    until.callback(os.close, descriptor)
    return True


def _folder() -> Path:
    """The user's directory of leases on this node; not one that somebody else has put there."""
    folder = Path(tempfile.gettempdir()) / f"capsbench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise UserError(f"cannot keep leases of cores in {folder}: {error.strerror}; set TMPDIR") from error
    if owner != os.getuid():
        raise UserError(f"cannot keep leases of cores in {folder}: it belongs to another user; set TMPDIR elsewhere")
    return folder
