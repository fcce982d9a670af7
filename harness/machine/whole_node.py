"""A node for one trial alone (`resources.exclusive: node`): a lease that all others share.

It comes before those of cores and GPUs (`harness.machine.leases`), so nobody waits for a core that is held by one who waits
for the node.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from harness.machine.surroundings import own_folder

_POLL_S = 0.2


@contextmanager
def node_lease(
    is_exclusive: bool,
    *,
    waiting: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Generator[None]:
    """Holds this node for the `with` block: alone, or beside all others that do not want it alone.

    While one waits for the node alone, no other is let in. `waiting` is called once, with a sentence for the screen. Raises
    `KeyboardInterrupt` if `stop` is set meanwhile, `UserError` if there is no folder for leases.
    """
    folder = own_folder()
    told = False

    def take(path: Path, how: int) -> int:
        nonlocal told
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                    return descriptor
                except BlockingIOError:
                    pass
                if not told:
                    told = True
                    waiting(
                        "waiting until this node is free of other trials: this one wants it alone"
                        if is_exclusive
                        else "waiting for a trial that has this node alone, or is next to have it"
                    )
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
                time.sleep(_POLL_S)
        except BaseException:
            os.close(descriptor)
            raise

    turn = take(folder / "node.turn", fcntl.LOCK_EX)
    try:
        held = take(folder / "node", fcntl.LOCK_EX if is_exclusive else fcntl.LOCK_SH)
    finally:
        os.close(turn)
    try:
        yield
    finally:
        os.close(held)
