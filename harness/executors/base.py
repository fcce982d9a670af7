"""Where trials run: the `Executor` interface, and what its implementations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UserError, nearest
from harness.events import Record, TrialEvent
from harness.spec.trial import Trial
from harness.supervisor.seat import forwarded_environment, forwarded_paths

Emit = Callable[[str, TrialEvent], None]
"""Takes a trial's id and an event, in the driver's main thread; an epoch is safe on disk once this returns."""


@dataclass(frozen=True)
class Job:
    """A trial to run, and where to begin."""

    trial: Trial
    run_dir: Path
    attempt: int = 1
    resumed_epoch: int = 0
    checkpoint: Path | None = None  # after `resumed_epoch`; before the first epoch, the weights to start from, if any
    recorded: Record | None = None  # the checkpoint's SHA-256 and size, as its event says

    @property
    def folder(self) -> Path:
        """The trial's directory, absolute: a worker may have another working directory."""
        return (self.run_dir / "trials" / self.trial.id).absolute()

    @property
    def log_path(self) -> Path:
        return self.folder / f"attempt-{self.attempt}.log"

    def document(self) -> dict[str, Any]:
        """What a supervisor needs to know, as JSON; see `attempt.run_attempt`."""
        return {
            "trial": self.trial.model_dump(mode="json"),
            "attempt": self.attempt,
            "resumed_epoch": self.resumed_epoch,
            "checkpoint": str(self.checkpoint.absolute()) if self.checkpoint else None,
            "recorded": dict(self.recorded) if self.recorded else None,
            "folder": str(self.folder),
            "log": self.log_path.name,
            "cwd": str(Path.cwd()),
            "environ": forwarded_environment(),
            "paths": forwarded_paths(self.trial.interpreter),
        }


@dataclass(frozen=True)
class Capacity:
    """What is available for trials, over all nodes."""

    cpus: int
    gpus: int
    nodes: int
    gpu_types: tuple[str, ...] = field(default=(), compare=False)  # as far as they are known: "H100", ...


class Executor(Protocol):
    """Runs trials, each attempt in its own process, alone on its cores and GPUs."""

    name: str

    def capacity(self) -> Capacity: ...

    def check(self, trials: Sequence[Trial]) -> None:
        """Raises `UserError` if a trial needs more than any node has."""
        ...

    def notes(self) -> Sequence[str]:
        """What a user should know about where trials cannot run, once `check` has found that out."""
        ...

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        """Runs all jobs; when this returns, every job that was begun has had its final event.

        Ctrl-C or SIGTERM ends the workers, emits "interrupted" for their trials, then raises `KeyboardInterrupt`. An
        exception from `emit` also ends the workers, and is raised.
        """
        ...

    def close(self) -> None:
        """Releases all that was started; closing twice is fine."""
        ...


def check_fits(trials: Sequence[Trial], nodes: Sequence[Capacity]) -> None:
    """Raises `UserError` naming the first trial that fits on none of `nodes`, each of which is one node's capacity."""
    for trial in trials:
        typed = [node for node in nodes if not trial.gpus or trial.gpu_type in (None, *node.gpu_types)]
        if any(trial.cpus <= node.cpus and trial.gpus <= node.gpus for node in typed):
            continue
        if trial.gpu_type and not typed:
            types = dict.fromkeys(each for node in nodes for each in node.gpu_types)
            there = nearest(trial.gpu_type, types) if types else ", or no node says of which type its GPUs are"
            raise UserError(
                f"resources.gpu_type: trial {trial.id} ({trial.impl}) asks for a GPU of type {trial.gpu_type}, but no node has "
                f"one{there}"
            )
        nodes = typed
        cpus, gpus = max((node.cpus for node in nodes), default=0), max((node.gpus for node in nodes), default=0)
        changes = [f"-s resources.cpus={max(1, cpus)}"] if trial.cpus > cpus else []
        changes += [f"-s resources.gpus={gpus}"] if trial.gpus > gpus else []
        raise UserError(
            f"trial {trial.id} ({trial.impl}) asks for {trial.cpus} CPUs and {trial.gpus} GPUs, more than a node has: "
            f"at most {cpus} CPUs and {gpus} GPUs on one of {len(nodes)}. "
            f"Ask for less: {' '.join(changes) or '-s resources.gpus=0'}"
        )
