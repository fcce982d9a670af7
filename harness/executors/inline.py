"""Trials one after the other on this machine, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.events import TrialEvent, WaitingEvent
from harness.executors.base import Capacity, Emit, Job, check_fits
from harness.executors.holders import with_runs
from harness.executors.losses import Tell, attempts
from harness.machine.environment import gpus
from harness.machine.gpu_type import gpu_types
from harness.machine.leases import lease, local_cores, local_gpus
from harness.machine.whole_node import node_lease
from harness.spec.trial import Trial
from harness.supervisor import warm
from harness.supervisor.seat import Seat, interruptible
from harness.supervisor.trial import run_attempt


class InlineExecutor:
    """One trial after another, supervised by this process. A trial that fails stops no other."""

    name = "inline"

    def __init__(self) -> None:
        self._cores, self._gpus = local_cores(), local_gpus()

    def capacity(self) -> Capacity:
        types = gpu_types(gpu.name for gpu in gpus(self._gpus)) if self._gpus else ()
        return Capacity(len(self._cores), len(self._gpus), 1, types)

    def check(self, trials: Sequence[Trial]) -> None:
        check_fits(trials, [self.capacity()])

    def notes(self) -> Sequence[str]:
        return ()

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        with interruptible() as stop:
            try:
                for job in jobs:
                    self._run_one(job, emit, stop)
                    if stop.is_set():
                        raise KeyboardInterrupt
            finally:
                warm.close()

    def close(self) -> None:
        pass

    def _run_one(self, job: Job, emit: Emit, stop: threading.Event) -> None:
        trial = job.trial

        def tell(event: TrialEvent) -> None:
            emit(trial.id, event)

        def waiting(message: str) -> None:
            tell(WaitingEvent(message=with_runs(message)).of(trial.id, job.attempt))

        def once(document: dict[str, Any], heed: Tell) -> None:
            checkpoint = Path(document["checkpoint"]) if document["checkpoint"] else None
            holder = str(job.run_dir.absolute())
            with (
                node_lease(trial.exclusive == "node", waiting=waiting, stop=stop),
                lease("core", self._cores, trial.cpus, waiting=waiting, stop=stop, holder=holder) as cores,
                lease("gpu", self._gpus, trial.gpus, waiting=waiting, stop=stop, holder=holder) as gpu_ids,
            ):
                log = job.folder / document["log"]
                run_attempt(document, Seat(cores, gpu_ids), heed, log, job.folder, checkpoint, stop=stop)

        job.folder.mkdir(parents=True, exist_ok=True)
        attempts(job.document(), once, tell, stop.wait)
