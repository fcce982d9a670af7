"""What happens to a run in a soak. Each fault says what it did, or None if there was nothing to do it to."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from examples.mlflow_server.serve import Postgres
from tests.soak.scene import Disk, Driver, Server, ThreeNodes, wrong_clock


@dataclass
class Scene:
    """All that faults can hit."""

    driver: Driver
    disk: Disk
    run_dir: Path
    mlflow: Server
    postgres: Postgres | None
    nodes: ThreeNodes | None
    rng: random.Random
    clock_off_s: int = 0  # of the driver's next start
    is_database_down: bool = False

    def workers(self) -> list[int]:
        """Process ids of the workers of attempts that have not ended, which are still alive."""
        found: list[int] = []
        for path in self.run_dir.glob("trials/*/events.jsonl"):
            lines = path.read_bytes().split(b"\n")[:-1]
            events = [json.loads(line) for line in lines]
            last = next((event for event in reversed(events) if event["kind"] == "attempt"), None)
            if last and events[-1]["kind"] not in ("result", "failed", "interrupted") and _is_worker(last["pid"]):
                found.append(last["pid"])
        return found


def _is_worker(pid: int) -> bool:
    with suppress(psutil.Error):
        return "harness.worker" in " ".join(psutil.Process(pid).cmdline())
    return False


Fault = Callable[[Scene], str | None]


def _signal_worker(number: signal.Signals) -> Fault:
    def fault(scene: Scene) -> str | None:
        if not (pids := scene.workers()):
            return None
        pid = scene.rng.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return f"{number.name} to worker {pid}"

    return fault


def _signal_driver(number: signal.Signals) -> Fault:
    def fault(scene: Scene) -> str | None:
        if scene.driver.process is None or scene.driver.ended() is not None:
            return None
        scene.driver.process.send_signal(number)
        return f"{number.name} to the driver"

    return fault


def _kill_descendant(name: str) -> Fault:
    def fault(scene: Scene) -> str | None:
        found = scene.driver.family(name)
        if not found:
            return None
        with suppress(psutil.Error):
            found[0].kill()
        return f"SIGKILL to {name}"

    return fault


def _full_disk(scene: Scene) -> str | None:
    if not scene.disk.is_own:
        return None
    scene.disk.fill()
    return "the disk is full"


def _server(number: signal.Signals) -> Fault:
    def fault(scene: Scene) -> str | None:
        scene.mlflow.send(number)
        return f"{number.name} to the MLflow server"

    return fault


def _database(scene: Scene) -> str | None:
    if scene.postgres is None or scene.is_database_down:
        return None
    scene.postgres.stop(at_once=True)
    scene.is_database_down = True
    return "PostgreSQL stopped without a checkpoint"


def _lose_node(scene: Scene) -> str | None:
    if scene.nodes is None:
        return None
    index = scene.rng.randrange(len(scene.nodes.nodes))
    scene.nodes.lose(index)
    return f"node {index} lost, another joined"


def _clock(scene: Scene) -> str | None:
    """Without Ray alone: its libraries wait until a time of the wall clock, which the system's own clock decides."""
    if (
        not scene.driver.is_inline
        or not wrong_clock()
        or scene.driver.process is None
        or scene.driver.ended() is not None
    ):
        return None
    scene.clock_off_s = scene.rng.choice([-7200, 7200, -30, 3 * 86400])
    scene.driver.process.kill()
    return f"SIGKILL to the driver, whose clock is then off by {scene.clock_off_s} s"


FAULTS: dict[str, Fault] = {
    "kill a worker": _signal_worker(signal.SIGKILL),
    "stop a worker": _signal_worker(signal.SIGSTOP),
    "kill the driver": _signal_driver(signal.SIGKILL),
    "interrupt the driver": _signal_driver(signal.SIGINT),
    "terminate the driver": _signal_driver(signal.SIGTERM),
    "hang up on the driver": _signal_driver(signal.SIGHUP),
    "kill the raylet": _kill_descendant("raylet/raylet"),
    "kill the GCS": _kill_descendant("gcs_server"),
    "fill the disk": _full_disk,
    "kill MLflow": _server(signal.SIGKILL),
    "stop MLflow": _server(signal.SIGSTOP),
    "stop PostgreSQL": _database,
    "lose a node": _lose_node,
    "set the clock": _clock,
}


def heal(scene: Scene) -> None:
    """Undoes what outlives a fault: a full disk, servers that are down."""
    scene.disk.empty()
    if scene.postgres and scene.is_database_down:
        scene.postgres.start()
        scene.is_database_down = False
    scene.mlflow.start()
