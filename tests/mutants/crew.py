"""Warm processes that climb the ladder: each has one framework, several mutants, and its own core."""

from __future__ import annotations

import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.spec.trial import Trial
from harness.supervisor.seat import Seat, worker_environment
from tests.mutants.catalogue import Mutant

ROOT = Path(__file__).parents[2]
MUTANTS = 20  # in one process: what a framework keeps of each adds up
START_S = 180.0  # at most, until a framework has been imported
MEMORY_BYTES = 4 * 1024**3  # and at this size it is given up before that


@dataclass(frozen=True)
class Job:
    """A mutant's climbs in one setup: of its trials, one after the other until it dies."""

    mutant: Mutant
    setup: str
    trials: list[str]


def run_jobs(
    jobs: Sequence[Job],
    tell: Callable[[Job, dict[str, Any]], None],
    *,
    time_limit_s: float,
    at_once: int,
    log: Path,
) -> None:
    """`tell` gets each job and the answer of its last climb, one at a time. What hangs or dies is an answer too."""
    portions: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
    for portion in _portions(jobs, at_once):
        portions.put(portion)
    log.parent.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    told, failures = threading.Lock(), list[BaseException]()

    def serve(core: int, written: IO[bytes], cache: str) -> None:
        try:
            while not failures:
                with suppress(queue.Empty):
                    _portion(portions.get_nowait(), core, written, cache)
                    continue
                return
        except BaseException as error:
            failures.append(error)

    def _portion(portion: list[Job], core: int, written: IO[bytes], cache: str) -> None:
        with Worker(portion[0], core, written, cache) as worker:
            for job in portion:
                found = worker.answer(job, time_limit_s)
                with told:
                    tell(job, found)

    with log.open("wb") as written, tempfile.TemporaryDirectory(prefix="capsbench-jax-") as cache:
        crew = [
            threading.Thread(target=serve, args=(cores[number % len(cores)], written, cache), daemon=True)
            for number in range(at_once)
        ]
        for each in crew:
            each.start()
        for each in crew:
            each.join()
    if failures:
        raise failures[0]


def _portions(jobs: Sequence[Job], at_once: int) -> Iterator[list[Job]]:
    """Of one framework each, those of each framework in as many as there are processes, or more."""
    for framework in reversed(list(dict.fromkeys(job.mutant.framework for job in jobs))):  # the longest first
        own = [job for job in jobs if job.mutant.framework == framework]
        size = min(MUTANTS, -(-len(own) // at_once))
        yield from (own[start : start + size] for start in range(0, len(own), size))


class Worker:
    """A process of `tests.mutants.worker`, started anew after it was too slow, too large, or dead."""

    def __init__(self, job: Job, core: int, log: IO[bytes], cache: str) -> None:
        self._framework, self._core, self._log = job.mutant.framework, core, log
        trial = Trial.model_validate_json(job.trials[0])
        self._env = worker_environment(trial, Seat((core,), ()), os.environ) | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            # what is compiled is run a few times: the same programs, less long to make
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def answer(self, job: Job, time_limit_s: float) -> dict[str, Any]:
        found: dict[str, Any] = {}
        seconds = 0.0
        for trial in job.trials:
            found = self._climb({"setup": job.setup, "trial": trial, "edits": job.mutant.edits}, time_limit_s)
            seconds += found.get("seconds", time_limit_s)
            if found["outcome"] != "passed":
                break
        return found | {"seconds": round(seconds, 2)}

    def _climb(self, job: dict[str, Any], time_limit_s: float) -> dict[str, Any]:
        if self._process is None:
            self._start()
            if self._line(START_S) != b"ready\n":
                raise RuntimeError(f"a process of {self._framework} does not start: see the log")
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        line = self._line(time_limit_s)
        if line is None:
            self._end()
            return {"outcome": "time limit", "what": f"{time_limit_s:g} s"}
        if not line:
            code = process.wait()
            self._end()
            return {"outcome": "death", "what": f"exit code {code}", "seconds": 0.0}
        found = json.loads(line)
        if found["peak_bytes"] > MEMORY_BYTES:
            self._end()
        return found

    def _line(self, limit_s: float) -> bytes | None:
        """The next one that the process writes: empty where it has ended, None where there was none in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            return self._answers.readline() if selector.select(limit_s) else None

    def _start(self) -> None:
        ours, theirs = os.pipe()
        command = [sys.executable, "-c", _PINNED, str(self._core), "tests.mutants.worker", str(theirs), self._framework]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs,),
            env=self._env,
            cwd=ROOT,
        )
        os.close(theirs)
        self._answers = os.fdopen(ours, "rb", buffering=0)

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._answers.close()
        self._process = None


_PINNED = """\
import os, runpy, sys
core = int(sys.argv.pop(1))
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {core})
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""A core of its own before anything starts threads."""
