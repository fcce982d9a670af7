"""Examines a model without an adapter in a separate process: the supervisor's side of `harness.worker.ordinary`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.events import FailedEvent
from harness.events.processes import EXAMINATION, ExaminedEvent, RefusedEvent
from harness.machine.leases import local_cores
from harness.spec.trial import Trial
from harness.supervisor.child import started
from harness.supervisor.seat import Seat, forwarded_environment, forwarded_paths, worker_environment


def examine(job: dict[str, Any], trial: Trial, log: Path, time_limit_s: float) -> dict[str, Any]:
    """What the process of `harness.worker.ordinary` found; `trial` decides its environment.

    Raises `UserError` if it refuses, dies or takes too long.
    """
    cores = local_cores()
    env = worker_environment(trial, Seat(tuple(cores[:1]), ()), {**os.environ, **forwarded_environment()})
    document = {**job, "cores": list(cores), "paths": forwarded_paths(trial.interpreter)}
    deadline = time.monotonic() + time_limit_s
    with started("harness.worker.ordinary", EXAMINATION, document, env, log, interpreter=trial.interpreter) as child:
        for event in child.events:
            if event is None:
                if time.monotonic() > deadline:
                    raise UserError(f"--model: not examined within the time limit of {time_limit_s:g} s; log: {log}")
                continue
            match event:
                case ExaminedEvent():
                    return event.found()
                case RefusedEvent():
                    raise UserError(f"{event.message}\n  log: {log}")
                case FailedEvent():
                    raise UserError(f"--model: it cannot be examined: {event.cause}\n  log: {log}")
                case _:
                    pass
    raise UserError(f"--model: the process that examined it {child.death()}\n  log: {log}")
