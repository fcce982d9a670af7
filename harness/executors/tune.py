"""The two ends of a Ray Tune trial: the supervisor that runs in it, and the driver's callback that receives its events.

Events travel by `tune.report`, which returns once the driver's callback has returned: an acknowledged epoch is durable.
Files from other nodes are sent to a small actor on the driver's node, each before the event that names it.
"""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, chdir, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness import registry
from harness.errors import UserError
from harness.events import (
    FailedEvent,
    TrialEvent,
    WaitingEvent,
    WarningEvent,
)
from harness.executors.base import Job
from harness.executors.holders import with_runs
from harness.executors.losses import Tell, attempts
from harness.executors.parcels import Parcel, delivered, packed
from harness.machine.leases import lease, local_cores, scratch_folder
from harness.machine.whole_node import node_lease
from harness.sources import code_version
from harness.spec.trial import DataConfig
from harness.supervisor.seat import Seat
from harness.supervisor.trial import run_attempt


class Files:
    """An actor's methods, for files on the node that it runs on."""

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def read_part(self, path: str, start: int, size: int) -> bytes:
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def write(self, path: str, content: bytes) -> None:
        """Atomic: the file is written in full or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)


@dataclass(frozen=True)
class Home:
    """The driver's node and its files, for supervisors on other nodes; an actor only if there are other nodes."""

    node: str
    files: Any = None
    data: Mapping[str, Parcel] = field(default_factory=dict[str, Parcel])  # a data section as JSON -> its files

    @staticmethod
    def here(reachable: bool, data: Mapping[str, Parcel]) -> Home:
        node = ray.get_runtime_context().get_node_id()
        if not reachable:
            return Home(node)
        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(Files).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=pinned)
        return Home(node, actor.remote(), data)

    def fetch(self, path: Path, folder: Path) -> Path:
        """Copies a file from the driver's node into a folder on this one."""
        copy = folder / path.name
        copy.write_bytes(ray.get(self.files.read.remote(str(path))))
        return copy

    def read_part(self, path: str, start: int, size: int) -> bytes:
        return ray.get(self.files.read_part.remote(path, start, size))

    def send(self, path: Path, folder: Path) -> None:
        """Moves a file from this node into a folder on the driver's."""
        ray.get(self.files.write.remote(str(folder / path.name), path.read_bytes()))
        path.unlink()


def parcels(jobs: Sequence[Job]) -> dict[str, Parcel]:
    """The files of all data of the jobs."""
    configs = {job.trial.data.model_dump_json(): job.trial.data for job in jobs}
    return {key: packed(config) for key, config in configs.items()}


def configuration(job: Job, home: Home, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The configuration that a Tune trial gets; with the `request` to Ray (`nodes.Survey.request`) for its first start."""
    return {
        "request": request,
        "job": job.document(),
        "home": home,
        "code": _code(job.trial.impl, job.trial.model.kind) if home.files else None,
    }


def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """The resources that a Tune trial reserves."""
    request = config["given"]["request"]
    selector: dict[str, Any] = {"bundle_label_selector": [request["selector"]]} if request["selector"] else {}
    return tune.PlacementGroupFactory([request["bundle"]], **selector)


def supervise(config: dict[str, Any]) -> None:
    """The body of a Tune trial: leases cores and GPUs on this node, runs one attempt, reports its events."""
    if config.get("ended"):  # its last event had arrived before this supervisor's predecessor was lost
        return
    time.sleep(config.get("pause_s", 0.0))
    job, home = config["given"]["job"], config["given"]["home"]
    trial = job["trial"]
    sys.path += [path for path in job["paths"] if path not in sys.path]
    context = ray.get_runtime_context()
    gpus = tuple(str(id) for id in context.get_accelerator_ids()["GPU"]) if trial["gpus"] else ()
    folder = Path(job["folder"])
    run = str(folder.parents[1])

    def tell(event: TrialEvent) -> None:
        tune.report({"event": json.dumps(event.to_json()), "supervisor": os.getpid()})

    def say(event: TrialEvent) -> None:
        tell(event.stamped(time.time()).of(trial["id"], job["attempt"]))

    def waiting(message: str) -> None:
        say(WaitingEvent(message=with_runs(message)))

    with ExitStack() as held:
        held.enter_context(node_lease(trial.get("exclusive") == "node", waiting=waiting))
        slots, shared = _core_slots(context.get_node_id())
        leased = held.enter_context(lease("core", slots, trial["cpus"], waiting=waiting, holder=run))
        held.enter_context(lease("gpu", gpus, len(gpus), waiting=waiting, holder=run))
        seat = Seat(tuple(sorted({int(slot.partition("+")[0]) for slot in leased})), gpus)
        if shared:
            say(WarningEvent(message=shared))
        if context.get_node_id() == home.node:
            folder.mkdir(parents=True, exist_ok=True)

            def once(job: dict[str, Any], heed: Tell) -> None:
                checkpoint = Path(job["checkpoint"]) if job["checkpoint"] else None
                run_attempt(job, seat, heed, folder / job["log"], folder, checkpoint)

            attempts(job, once, tell)
            return
        with chdir(job["cwd"]) if Path(job["cwd"]).is_dir() else nullcontext():  # a file is looked for from there
            code = _code(trial["impl"], trial["model"]["kind"])
        if code != config["given"]["code"]:
            cause = f"{socket.gethostname()} has other code of capsbench or of {trial['impl']} than the driver"
            hint = "install the same on every node; a trial's id stands for one version"
            say(FailedEvent(cause=cause, error="VersionMismatch", hint=hint))
            return
        try:
            job = _with_data(job, home, waiting)
        except UserError as error:
            say(FailedEvent(cause=f"{socket.gethostname()}: {error}", error="DataNotDelivered", hint=None))
            return
        here = held.enter_context(scratch_folder())

        def afar(job: dict[str, Any], heed: Tell) -> None:
            def heed_after_files(event: TrialEvent) -> None:
                for name in event.names().values():
                    home.send(here / name, folder)
                heed(event)

            checkpoint = home.fetch(Path(job["checkpoint"]), here) if job["checkpoint"] else None
            try:
                run_attempt(job, seat, heed_after_files, here / job["log"], here, checkpoint)
            finally:
                if (log := here / job["log"]).exists():
                    home.send(log, folder)

        attempts(job, afar, tell)


def _with_data(job: dict[str, Any], home: Home, waiting: Callable[[str], None]) -> dict[str, Any]:
    """The job, with its data on this node; where they are is no part of a trial's identity. Raises `UserError`."""
    trial = job["trial"]
    config = DataConfig.model_validate_json(json.dumps(trial["data"]))
    folder = delivered(home.data[config.model_dump_json()], config, job["environ"], home.read_part, waiting)
    return {**job, "trial": {**trial, "data": {**trial["data"], "dir": folder}}} if folder else job


@cache
def _code(impl: str, kind: str) -> str:
    return code_version(registry.resolve(impl), kind)


def _core_slots(node: str) -> tuple[list[str], str | None]:
    """Names of leasable slots: the node's cores, or, if Ray was told of more CPUs, several per core and a warning."""
    cores = local_cores()
    told = next(int(found["Resources"].get("CPU", 0)) for found in ray.nodes() if found["NodeID"] == node)
    if told <= len(cores):
        return [str(core) for core in cores], None
    names = [f"{cores[slot % len(cores)]}+{slot // len(cores)}".removesuffix("+0") for slot in range(told)]
    return names, f"Ray was told of {told} CPUs where there are {len(cores)}: trials share cores, timings mean little"
