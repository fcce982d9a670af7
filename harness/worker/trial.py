"""The process that runs a trial: `python -P -m harness.worker.trial --events-fd N`; `harness.supervisor.trial` starts it.

`harness.worker.channel` describes its life. NumPy and, through `harness.worker.training`, a framework are imported only
after it is pinned to its cores.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness import __version__, registry
from harness.errors import TrialFailed
from harness.events import AttemptEvent, WarningEvent
from harness.machine.environment import cpu_model, gpus, memory_bytes, versions
from harness.machine.topology import shared
from harness.worker.channel import Channel, report_timing_warnings, serve

if TYPE_CHECKING:
    from harness.spec.trial import Interpreter


def main() -> NoReturn:
    """Runs the job read from stdin; the exit code is 0 only after a "result" event."""
    serve("Runs one attempt at one trial", _run, may_refuse=False)


def _run(job: dict[str, Any], channel: Channel) -> None:
    impl = job["trial"]["impl"]
    channel.emit(
        AttemptEvent(
            host=socket.gethostname(),
            pid=os.getpid(),
            python=sys.version.split()[0],
            cores=sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else job["cores"],
            cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
            resumed_epoch=job["resumed_epoch"],
            versions={**versions(("capsbench", *registry.distributions([impl]))), **_ours(job["trial"])},
        )
    )
    from harness.cost.limits import emulated, refusal
    from harness.spec.trial import Trial

    trial = Trial.model_validate_json(json.dumps(job["trial"]))
    if trial.interpreter:
        _require_same(trial.interpreter, versions(registry.used_by(registry.resolve(impl))))
    own = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each] if trial.gpus else []
    # The driver has checked its own machine; this may be another node of the cluster.
    if verdict := refusal(trial, memory_bytes(), gpus(own) if own else [], cpu_model()):
        raise TrialFailed(verdict.cause, "Unavailable", verdict.hint)
    if doubt := emulated(trial):
        channel.emit(WarningEvent(message=doubt))
    from harness.worker.training import run_trial

    report_timing_warnings(channel)
    if doubt := shared(job["cores"]):
        channel.emit(WarningEvent(message=doubt))
    if niceness := os.nice(0):
        channel.emit(
            WarningEvent(
                message=f"timed at niceness {niceness}: whatever else runs on {socket.gethostname()} goes first"
            )
        )
    checkpoint = Path(job["checkpoint"]) if job["checkpoint"] else None
    scratch, after, recorded = Path(job["scratch"]), job["resumed_epoch"], job["recorded"]
    run_trial(trial, channel.emit, scratch, checkpoint, after, recorded, job["cores"])


def _ours(trial: dict[str, Any]) -> dict[str, str]:
    """This capsbench's version in another interpreter, where another one may be installed, or none."""
    return {"capsbench": __version__} if trial.get("interpreter") else {}


def _require_same(planned: Interpreter, found: dict[str, str]) -> None:
    """Raises `TrialFailed` if this is not what the trial's id stands for: it has changed, or is another node's."""
    before, now = {"Python": planned.python, **planned.versions}, {"Python": sys.version.split()[0], **found}
    differ = [name for name in (*before, *now) if before.get(name) != now.get(name)]
    if differ:
        told = ", ".join(
            f"{name} {now.get(name, 'is not there')}, not {before.get(name, 'without')}"
            for name in dict.fromkeys(differ)
        )
        raise TrialFailed(
            f"{planned.path} on {socket.gethostname()} is not what was planned: {told}",
            "EnvironmentChanged",
            "run the command again, which plans anew; on a cluster, have the same environment on every node",
        )


if __name__ == "__main__":
    main()
