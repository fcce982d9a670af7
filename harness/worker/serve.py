"""A command's worker process from within: the job is read, the process pinned, the work done, the end told.

`harness.supervisor.child` has started it, with its environment set. It reads one line of JSON from stdin (the job) and writes lines
of JSON to descriptor N: what the work emits, then "refused" or "failed" where it raised. stdin stays open as long as the
supervisor lives. stdout and stderr are the log.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from harness.errors import UserError
from harness.worker.channel import Channel, explain

_PR_SET_PDEATHSIG = 1


def serve(description: str, work: Callable[[dict[str, Any], Channel], None]) -> NoReturn:
    """Runs `work` on the job read from stdin; the exit code is 0 only where it has returned.

    The job's "cores" are what the process is pinned to, its "cwd" is where the user's own modules are found.
    """
    parser = argparse.ArgumentParser(description=f"{description}; started by capsbench, not by hand.")
    parser.add_argument("--events-fd", type=int, required=True)
    channel = Channel(parser.parse_args().events_fd)
    line = io.FileIO(0, closefd=False).readline()  # unbuffered: what follows belongs to the thread that serves stdin
    if not line:
        os._exit(128 + signal.SIGHUP)
    job = json.loads(line)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    if sys.platform == "linux":  # even in the middle of a framework's call
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel.watch()
    # After all else: a folder of the user's must not pass for a framework.
    sys.path.append(job["cwd"])
    code = 1
    try:
        work(job, channel)
        code = 0
    except UserError as error:
        channel.emit({"kind": "refused", "message": str(error)})
    except BaseException as error:
        traceback.print_exc()
        channel.emit({"kind": "failed", **explain(error)})
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # a framework's exit handlers and threads can hang or crash
