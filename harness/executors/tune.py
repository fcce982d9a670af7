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
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness import registry
from harness.events import (
    FINAL,
    TRIAL,
    AttemptEvent,
    EpochEvent,
    FailedEvent,
    InterruptedEvent,
    TrialEvent,
    WaitingEvent,
    WarningEvent,
)
from harness.executors.base import Emit, Job
from harness.machine.leases import lease, local_cores, scratch_folder
from harness.machine.whole_node import node_lease
from harness.sources import code_version
from harness.supervisor.seat import Seat
from harness.supervisor.trial import run_attempt
from harness.weights.whole import recorded


class Files:
    """An actor's methods, for files on the node that it runs on."""

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

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

    @staticmethod
    def here(reachable: bool) -> Home:
        node = ray.get_runtime_context().get_node_id()
        if not reachable:
            return Home(node)
        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(Files).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=pinned)
        return Home(node, actor.remote())

    def fetch(self, path: Path, folder: Path) -> Path:
        """Copies a file from the driver's node into a folder on this one."""
        copy = folder / path.name
        copy.write_bytes(ray.get(self.files.read.remote(str(path))))
        return copy

    def send(self, path: Path, folder: Path) -> None:
        """Moves a file from this node into a folder on the driver's."""
        ray.get(self.files.write.remote(str(folder / path.name), path.read_bytes()))
        path.unlink()


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
    job, home = config["given"]["job"], config["given"]["home"]
    trial = job["trial"]
    sys.path += [path for path in job["paths"] if path not in sys.path]
    context = ray.get_runtime_context()
    gpus = tuple(str(id) for id in context.get_accelerator_ids()["GPU"]) if trial["gpus"] else ()
    folder, checkpoint = Path(job["folder"]), Path(job["checkpoint"]) if job["checkpoint"] else None

    def tell(event: TrialEvent) -> None:
        marked = event.stamped(time.time()).of(trial["id"], job["attempt"])
        tune.report({"event": json.dumps(marked.to_json())})

    def waiting(message: str) -> None:
        tell(WaitingEvent(message=message))

    with ExitStack() as held:
        held.enter_context(node_lease(trial.get("exclusive") == "node", waiting=waiting))
        slots, shared = _core_slots(context.get_node_id())
        leased = held.enter_context(lease("core", slots, trial["cpus"], waiting=waiting))
        held.enter_context(lease("gpu", gpus, len(gpus), waiting=waiting))
        seat = Seat(tuple(sorted({int(slot.partition("+")[0]) for slot in leased})), gpus)
        if shared:
            tell(WarningEvent(message=shared))
        if context.get_node_id() == home.node:
            folder.mkdir(parents=True, exist_ok=True)
            run_attempt(job, seat, tell, folder / job["log"], folder, checkpoint)
            return
        if _code(trial["impl"], trial["model"]["kind"]) != config["given"]["code"]:
            cause = f"{socket.gethostname()} has other code of capsbench or of {trial['impl']} than the driver"
            hint = "install the same on every node; a trial's id stands for one version"
            tell(FailedEvent(cause=cause, error="VersionMismatch", hint=hint))
            return
        here = held.enter_context(scratch_folder())

        def tell_after_files(event: TrialEvent) -> None:
            for name in event.names().values():
                home.send(here / name, folder)
            tell(event)

        checkpoint = home.fetch(checkpoint, here) if checkpoint else None
        try:
            run_attempt(job, seat, tell_after_files, here / job["log"], here, checkpoint)
        finally:
            home.send(here / job["log"], folder)


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


class Abort(BaseException):
    """Leaves `Tuner.fit` at once: Tune would catch an `Exception` and wait for its trials."""


@dataclass
class _Progress:
    """What the driver knows about one job."""

    job: Job
    begun: bool = False
    ended: bool = False
    pid: int | None = None  # the worker's, if it is on this host


class Relay(tune.Callback):
    """Passes every event to `emit`, in the driver's main thread, and restarts lost trials from their last epoch.

    If `stop` is set or `emit` has raised, it raises `Abort`: between two of Tune's steps, never within `emit`.
    """

    def __init__(self, jobs: Sequence[Job], home: Home, emit: Emit, stop: threading.Event) -> None:
        self._progress = {job.trial.id: _Progress(job) for job in jobs}
        self._home, self._emit, self._stop = home, emit, stop
        self.error: BaseException | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune would copy this to restore a run, but runs are resumed differently here

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        if self._stop.is_set() or self.error:
            raise Abort

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "event" in result and isinstance(event := TRIAL.known(result["event"], "a supervisor"), TrialEvent):
            self._forward(event)

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        progress = self._of(trial)
        job = progress.job
        if progress.begun and not progress.ended:
            lost = (
                f"attempt {job.attempt} was lost with its node or supervisor; went on after epoch {job.resumed_epoch}"
            )
            self._say(progress, WarningEvent(message=lost))
            self._say(progress, InterruptedEvent())
            progress.job = replace(job, attempt=job.attempt + 1)
            progress.begun = progress.ended = False
        trial.set_config({"given": configuration(progress.job, self._home), "ended": progress.ended})

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        lines = [
            line.strip()
            for line in Path(trial.error_file or os.devnull).read_text(errors="replace").splitlines()
            if line.strip()
        ]
        cause = f"its supervisor failed twice: {lines[-1][:500] if lines else 'unknown cause'}"
        self._say(self._of(trial), FailedEvent(cause=cause, error="SupervisorFailed", hint=None))

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        cause = "the supervisor ended without a result"
        self._say(self._of(trial), FailedEvent(cause=cause, error="RuntimeError", hint=None))

    def interrupt(self) -> None:
        """Records the end of every attempt that had begun. Call it when the workers are gone."""
        for progress in self._progress.values():
            if progress.begun:
                self._say(progress, InterruptedEvent())

    def local_pids(self) -> list[int]:
        """Workers on this host that have not had their final event."""
        return [each.pid for each in self._progress.values() if each.pid and not each.ended]

    def _of(self, trial: TuneTrial) -> _Progress:
        return self._progress[trial.config["given"]["job"]["trial"]["id"]]

    def _say(self, progress: _Progress, event: TrialEvent) -> None:
        """Emits an event of the driver's own; a final one only if the trial has had none."""
        if not (progress.ended and isinstance(event, FINAL)):
            self._forward(event.stamped(time.time()).of(progress.job.trial.id, progress.job.attempt))

    def _forward(self, event: TrialEvent) -> None:
        progress = self._progress[event.trial]
        job = progress.job
        if event.attempt != job.attempt:  # a late event from an abandoned attempt
            return
        try:
            self._emit(job.trial.id, event)
        except BaseException as error:  # Tune must not handle it: the executor raises it once the workers are gone
            self.error = self.error or error
            return
        progress.ended = progress.ended or isinstance(event, FINAL)
        if isinstance(event, AttemptEvent):
            progress.begun = True
            progress.pid = event.pid if event.host == socket.gethostname() else None
        elif isinstance(event, EpochEvent):
            name = event.checkpoint
            progress.job = replace(
                job, resumed_epoch=event.epoch, checkpoint=job.folder / name, recorded=recorded(event, name)
            )
