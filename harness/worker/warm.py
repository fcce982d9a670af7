"""A process that has imported what trials need, and forks one process for each: `python -P -m harness.worker.warm`.

It computes nothing, so every fork begins in the same state: with the modules as they are after their import. What a trial
does to its own process (memory, random state, a crash) no other one sees. `harness.supervisor.warm` is the other end.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from typing import Any, NoReturn

_LONGEST = 1 << 20  # bytes of a request
_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Serves requests until the supervisor is gone."""
    parser = argparse.ArgumentParser(description="Starts trials; started by capsbench, not by hand.")
    parser.add_argument("--control-fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().control_fd)
    control.set_inheritable(False)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    job, _ = _received(control)
    os.sched_setaffinity(0, job["cores"])
    sys.path += [path for path in job["paths"] if path not in sys.path]
    _answer(control, {"unfit": _prepare(job)})
    while True:
        request, descriptors = _received(control)
        if request["do"] == "fork":
            sys.stdout.flush()
            sys.stderr.flush()
            parent = os.getpid()
            if not (pid := os.fork()):
                control.close()
                _become(descriptors, parent)
            for descriptor in descriptors:
                os.close(descriptor)
            _answer(control, {"pid": pid})
        else:  # of a child: its exit code, once it has ended; "reap" also frees its process id
            keep = 0 if request["do"] == "reap" else os.WNOWAIT
            found = os.waitid(os.P_PID, request["pid"], os.WEXITED | keep)
            assert found is not None
            code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            _answer(control, {"code": code})


def _prepare(job: dict[str, Any]) -> str | None:
    """Imports what the trials of this implementation need. Returns why no process can be forked here, if so."""
    try:
        from harness import registry
        from harness.parity import cached

        importlib.import_module("harness.worker.training")
        with _set(registry.keep_compiled(job["impl"], job["compiled"])):
            registry.load(registry.resolve(job["impl"]))
        cached.facts(job["impl"])
    except BaseException as error:  # a process of its own will tell, in its log
        return f"{type(error).__name__}: {error}"
    if others := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
        return f"importing {job['impl']} starts threads ({', '.join(others)}), which no fork has"
    gc.collect()
    gc.freeze()  # else the first collection in each fork would copy every page
    return None


@contextlib.contextmanager
def _set(variables: dict[str, str | None]) -> Generator[None]:
    """Sets these environment variables meanwhile. A trial has those that its suite says, and no others."""
    before = {name: os.environ.get(name) for name in variables}
    _change(variables)
    try:
        yield
    finally:
        _change(before)


def _change(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _become(descriptors: list[int], parent: int) -> NoReturn:
    """Makes this fork the process of one trial, as if it had just been started."""
    import numpy as np

    from harness.worker import trial

    os.setsid()
    reading, log, events = descriptors
    for target, descriptor in ((0, reading), (1, log), (2, log)):
        os.dup2(descriptor, target)
    os.close(reading)
    os.close(log)
    np.random.seed()  # noqa: NPY002 (the global state, which libraries may use: Python seeds its own after a fork)
    sys.argv[1:] = ["--events-fd", str(events)]
    if os.getppid() != parent:  # it died meanwhile: there is no one to end this process
        os._exit(128 + signal.SIGHUP)
    trial.main()


def _received(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request, with what came with it. Ends the process if the supervisor is gone."""
    text, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 3)
    if not text:
        os._exit(0)
    return json.loads(text), descriptors


def _answer(control: socket.socket, document: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone, as the next request will show
        control.send(json.dumps(document).encode())


if __name__ == "__main__":
    main()
