"""The driver's end of Ray Tune's trials: passes their events on, and decides what follows a loss."""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from harness.events import (
    FINAL,
    TRIAL,
    AttemptEvent,
    EpochEvent,
    FailedEvent,
    InterruptedEvent,
    TrialEvent,
    WarningEvent,
)
from harness.executors.base import Emit, Job
from harness.executors.losses import pause_s, told
from harness.machine.processes import Process, kill, look
from harness.supervisor.watch import STOPPED_S, Watch
from harness.weights.whole import recorded

_NODE_LOSSES = 3  # of a trial, without an epoch in between
_LOOK_S = 5.0
_SEE_S = 1.0
_MARGIN_S = 300.0  # that a supervisor gets, beyond its worker's limit, to end it and tell
_HOMELESS_S = 60.0  # how long no node may have room for any trial


class Abort(BaseException):
    """Leaves `Tuner.fit` at once: Tune would catch an `Exception` and wait for its trials."""


@dataclass
class _Progress:
    """What the driver knows about one job."""

    job: Job
    watch: Watch
    begun: bool = False
    ended: bool = False
    pid: int | None = None  # the worker's, if it is on this host
    supervisor: Process | None = None  # likewise
    stopped_s: float = 0.0  # for how long the supervisor has been
    in_vain: int = 0  # losses of a node or of a supervisor that had not begun, since the last epoch


class Relay(tune.Callback):
    """Passes every event to `emit`, and restarts lost trials from their last epoch. Its methods for Tune run in its thread.

    If `stop` is set or `emit` has raised, it raises `Abort`: between two of Tune's steps, never within `emit`.

    Args:
        configured: the configuration that a Tune trial gets for a job.
        is_cluster: whether nodes can be lost.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        configured: Callable[[Job], dict[str, Any]],
        emit: Emit,
        stop: threading.Event,
        *,
        is_cluster: bool,
    ) -> None:
        self._progress = {job.trial.id: _Progress(job, _watch(job)) for job in jobs}
        self._configured, self._emit, self._stop, self._is_cluster = configured, emit, stop, is_cluster
        self._looked = self._homed = self._seen = time.monotonic()
        self.error: BaseException | None = None
        self.stuck: str | None = None
        """Why no trial can go on, in a sentence."""
        self.has_progressed = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune would copy this to restore a run, but runs are resumed differently here

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        if self._stop.is_set() or self.error:
            raise Abort
        if time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            self._end_silent(trials)
            if self._is_cluster:
                self._require_room(trials)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "event" in result and isinstance(event := TRIAL.known(result["event"], "a supervisor"), TrialEvent):
            self._forward(event, result["supervisor"])

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        progress = self._of(trial)
        self._lose(progress, _why(trial))
        trial.set_config(
            {
                "given": self._configured(progress.job),
                "ended": progress.ended,
                "pause_s": 0.0 if progress.ended else pause_s(progress.job.losses),
            }
        )

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._lose(
            self._of(trial), _why(trial)
        )  # it could not be started; `rest` has it, unless that was once too often

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        cause = "the supervisor ended without a result"
        self._say(self._of(trial), FailedEvent(cause=cause, error="RuntimeError", hint=None))

    def interrupt(self, cause: str | None = None, next_in_s: float | None = None) -> None:
        """Records the end of every attempt that had begun, and its `cause`. Call it when the workers are gone."""
        for progress in self._progress.values():
            if not progress.begun or progress.ended:
                continue
            if cause and next_in_s is not None:
                job = progress.job
                self._say(progress, WarningEvent(message=told(job.attempt, cause, job.resumed_epoch)))
            lost = InterruptedEvent(cause=cause, error="RayLost", next_in_s=next_in_s)
            self._say(progress, lost if cause else InterruptedEvent())
            progress.job = replace(progress.job, attempt=progress.job.attempt + 1)
            progress.begun = progress.ended = False

    def rest(self) -> list[Job]:
        """The jobs that have not ended, from where they are."""
        return [progress.job for progress in self._progress.values() if not progress.ended]

    def local_pids(self) -> list[int]:
        """Workers on this host that have not had their final event."""
        return [each.pid for each in self._progress.values() if each.pid and not each.ended]

    def kill_local(self) -> None:
        """Ends the supervisors on this host; the kernel ends their workers with them."""
        kill(each.supervisor for each in self._progress.values() if each.supervisor and not each.ended)

    def look_after_supervisors(self) -> None:
        """Ends those on this host that have been stopped for too long: Tune then finds them lost. Call it often."""
        passed = time.monotonic() - self._seen
        if passed < _SEE_S:
            return
        self._seen += passed
        for progress in self._progress.values():
            supervisor = progress.supervisor
            if supervisor is None or progress.ended or (now := look(supervisor.pid)) is None:
                continue
            progress.stopped_s = progress.stopped_s + min(passed, 2 * _SEE_S) if now.is_stopped else 0.0
            given = progress.job.trial.runtime.hang_s
            if progress.stopped_s >= (STOPPED_S if given == "auto" else given):
                kill([supervisor])

    def _end_silent(self, trials: list[TuneTrial]) -> None:
        """Ends supervisors, wherever they are, that have long been silent."""
        for trial in trials:
            progress = self._of(trial)
            if progress.begun and not progress.ended and progress.watch.look():
                actor = trial.temporary_state.ray_actor
                if actor is not None:
                    ray.kill(actor)

    def _require_room(self, trials: list[TuneTrial]) -> None:
        """Aborts if no trial runs, and for a while no node that is left could ever run one."""
        waiting = [self._of(trial).job.trial for trial in trials if trial.status == TuneTrial.PENDING]
        is_idle = waiting and not any(trial.status == TuneTrial.RUNNING for trial in trials)
        if not is_idle or any(_fits(trial.cpus, trial.gpus) for trial in waiting):
            self._homed = time.monotonic()
        elif time.monotonic() - self._homed > _HOMELESS_S:
            least = min(waiting, key=lambda trial: (trial.gpus, trial.cpus))
            self.stuck = f"no node of the cluster has {least.cpus} CPUs and {least.gpus} GPUs any more"
            raise Abort

    def _lose(self, progress: _Progress, why: tuple[str, str]) -> None:
        """Records a loss, and whether another attempt follows."""
        if progress.ended:
            return
        cause, error = why
        job = progress.job
        if (
            progress.begun and error == "SupervisorLost" and not self._is_cluster
        ):  # there, nobody can tell it from a node
            job = replace(job, losses=job.losses + 1)
            is_last = job.losses > job.trial.runtime.retries
        else:
            progress.in_vain += 1
            is_last = progress.in_vain > _NODE_LOSSES
        if is_last:
            self._say(progress, FailedEvent(cause=cause, error=error, hint=None, is_loss=True))
            progress.ended = True
            return
        if progress.begun:
            self._say(progress, WarningEvent(message=told(job.attempt, cause, job.resumed_epoch)))
            self._say(progress, InterruptedEvent(cause=cause, error=error, next_in_s=pause_s(job.losses)))
            job = replace(job, attempt=job.attempt + 1)
        progress.job = job
        progress.begun = progress.ended = False

    def _of(self, trial: TuneTrial) -> _Progress:
        return self._progress[trial.config["given"]["job"]["trial"]["id"]]

    def _say(self, progress: _Progress, event: TrialEvent) -> None:
        """Emits an event of the driver's own; a final one only if the trial has had none."""
        if not (progress.ended and isinstance(event, FINAL)):
            self._forward(event.stamped(time.time()).of(progress.job.trial.id, progress.job.attempt))

    def _forward(self, event: TrialEvent, supervisor: int | None = None) -> None:
        progress = self._progress[event.trial]
        job = progress.job
        if event.attempt != job.attempt:  # a late event from an abandoned attempt
            return
        try:
            self._emit(job.trial.id, event)
        except BaseException as error:  # Tune must not handle it: the executor raises it once the workers are gone
            self.error = self.error or error
            return
        progress.watch.heard(event)
        progress.ended = progress.ended or isinstance(event, FINAL)
        if isinstance(event, AttemptEvent):
            progress.begun = True
            is_here = event.host == socket.gethostname()
            progress.pid = event.pid if is_here else None
            progress.supervisor = look(supervisor) if is_here and supervisor else None
            progress.stopped_s = 0.0
        elif isinstance(event, EpochEvent):
            self.has_progressed = True
            progress.in_vain = 0
            name = event.checkpoint
            progress.job = replace(
                job, resumed_epoch=event.epoch, checkpoint=job.folder / name, recorded=recorded(event, name)
            )
        elif isinstance(event, InterruptedEvent) and event.next_in_s is not None and supervisor:
            progress.job = replace(job, attempt=job.attempt + 1, losses=job.losses + 1)
            progress.begun = progress.ended = False


def _watch(job: Job) -> Watch:
    given = job.trial.runtime.hang_s
    return Watch(None, None if given == "auto" else given, job.pace, margin_s=_MARGIN_S)


def _why(trial: TuneTrial) -> tuple[str, str]:
    """How a trial's supervisor was lost, in a clause, and to what."""
    text = Path(trial.error_file or os.devnull).read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(sign in text for sign in _NODE_SIGNS):
        return "its node was lost", "NodeLost"
    said = f" ({lines[-1][:300]})" if lines else ""
    return f"its supervisor was lost{said}", "SupervisorLost"


_NODE_SIGNS = (
    "node has died",
    "node was terminated",
    "its node is dead",
    "NodeDiedError",
    "node failure",
    "raylet died",
)


def _fits(cpus: int, gpus: int) -> bool:
    """Whether a node that is left has so many, in use or not."""
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return any(each.get("CPU", 0) >= cpus and each.get("GPU", 0) >= gpus for each in alive)
