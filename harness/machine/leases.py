"""Cores and GPUs of one node, leased: no two timed trials share one, whichever capsbench driver started them.

A lease is an flock on a file in one of the user's directories. The supervisor holds it while its attempt runs; the
kernel releases it however that process ends.
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
    """The logical cores that this process may run on, given a container's or `taskset`'s limits."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def local_gpus() -> tuple[str, ...]:
    """Ids of the NVIDIA GPUs that this process may use, as in `CUDA_VISIBLE_DEVICES`; uses no framework."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles"))
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # driver broken or absent: no GPU to lease
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
    """Holds `n` of the `slots` of this node ("core" 0, 1, ..., or "gpu" ids) for the duration of the `with` block.

    If they are taken, waits in a queue: trials that want few do not overtake one that wants many. `waiting` is then
    called once, with a sentence for the screen.

    Raises:
        UserError: `n` is more than there are, or the lease directory cannot be used.
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
        # Only the first in the queue collects slots, so no two waiters hold what the other needs.
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
    """A folder on this node for the duration of the `with` block; first removes those of killed processes."""
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
    """The user's lease directory on this node; rejects one that another user has created."""
    folder = Path(tempfile.gettempdir()) / f"capsbench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise UserError(f"cannot keep leases of cores in {folder}: {error.strerror}; set TMPDIR") from error
    if owner != os.getuid():
        raise UserError(f"cannot keep leases of cores in {folder}: it belongs to another user; set TMPDIR elsewhere")
    return folder
