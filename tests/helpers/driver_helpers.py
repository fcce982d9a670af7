"""A driver to be killed: runs trials and prints each event as a line of JSON.

python -m tests.helpers.driver_helpers EXECUTOR RUN_DIR IMPL[*CPUS]...

EXECUTOR is inline, ray, or mute-ray: one whose GCS is killed at the moment when it is first asked for its nodes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.executor_helpers import gone, tiny_job

ROOT = Path(__file__).resolve().parents[2]


def main(executor: str, run_dir: str, *impls: str) -> int:
    if executor == "inline":
        from harness.executors.inline import InlineExecutor

        chosen: Any = InlineExecutor()
    else:
        from harness.executors.ray import RayExecutor

        chosen = RayExecutor(num_cpus=2, num_gpus=0)
    if executor == "mute-ray":
        lose_gcs_once()
    asked = [impl.partition("*") for impl in impls]
    jobs = [tiny_job(Path(run_dir), impl, cpus=int(cpus or 1), epochs=4) for impl, _, cpus in asked]
    try:
        chosen.run(jobs, lambda _id, event: print(json.dumps(event.to_json()), flush=True))
    except KeyboardInterrupt:
        return 130
    finally:
        chosen.close()
    return 0


def lose_gcs_once() -> None:
    from harness.executors import nodes

    asked = nodes.living

    def living() -> Any:
        nodes.living = asked
        (gcs,) = (each for each in psutil.Process().children() if each.name() == "gcs_server")
        gcs.kill()
        return asked()

    nodes.living = living


class Driver:
    """This script in a process of its own, and what it says."""

    def __init__(self, executor: str, run_dir: Path, *impls: str) -> None:
        command = [sys.executable, "-m", "tests.helpers.driver_helpers", executor, str(run_dir), *impls]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.events: list[dict[str, Any]] = []

    def read(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))  # so anything of Ray's on stdout fails the test
            yield self.events[-1]

    def until(self, kind: str, n: int = 1) -> None:
        """Reads events until `n` of this kind have come."""
        for event in self.read():
            n -= event["kind"] == kind
            if n == 0:
                return
        raise AssertionError(f"the driver ended first: {self.process.communicate()[1]}")

    def rest(self) -> str:
        """Reads to the end; returns stderr."""
        list(self.read())
        assert self.process.stderr
        text = self.process.stderr.read()
        self.process.wait()
        return text

    def family(self) -> list[int]:
        """Every process it has started, and theirs."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        workers = [event["pid"] for event in self.events if event["kind"] == "attempt"]
        return sorted({self.process.pid, *workers, *(child.pid for child in children)})

    def kinds(self, impl: str) -> list[str]:
        """Kinds of this trial's events. Without waiting: whether it had to depends on what else runs here."""
        kinds = [event["kind"] for event in self.events if event["trial"].startswith(f"{impl}-")]
        return [kind for kind in kinds if kind != "waiting"]


@contextmanager
def driver(executor: str, run_dir: Path, *impls: str) -> Generator[Driver]:
    """A running driver; whatever the test does, none of its processes outlives it."""
    started = Driver(executor, run_dir, *impls)
    try:
        yield started
    finally:
        family = started.family() if started.process.poll() is None else []
        started.process.kill()
        started.process.communicate()
        assert gone(family)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
