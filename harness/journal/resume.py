"""Where a trial resumes: after the last epoch that counts and has an intact checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.events import Record
from harness.journal.journal import Journal
from harness.journal.results import kept_epochs
from harness.spec.trial import Trial
from harness.weights.whole import Damaged, read_checkpoint, recorded


@dataclass(frozen=True)
class ResumePoint:
    """Where to resume; epoch 0 without a checkpoint means from the beginning."""

    epoch: int = 0
    checkpoint: Path | None = None
    recorded: Record | None = None  # what the epoch's event says of the checkpoint
    warning: str | None = None  # which checkpoints are damaged, and what is lost


def resume_point(journal: Journal, trial: Trial) -> ResumePoint:
    """The last good checkpoint, tested by reading it as training will; with a warning if it is not the last of all."""
    damaged: list[str] = []
    for event in reversed(kept_epochs(journal.events(trial.id))):
        if not event.checkpoint:
            continue
        epoch, path = event.epoch, journal.trial_dir(trial.id) / event.checkpoint
        if damaged and not path.exists():  # deleted long ago, like all but the last ones
            continue
        record = recorded(event, path.name)
        try:
            read_checkpoint(path, trial, record, epoch)
        except Damaged as error:
            damaged.append(f"{path} is damaged: {error.found}")
            continue
        went_on = f"training goes on after epoch {epoch}, from {path.name}, the last whole checkpoint"
        return ResumePoint(epoch, path, record, "; ".join([*damaged, went_on]) if damaged else None)
    afresh = "there is no whole checkpoint: training starts from the beginning"
    return ResumePoint(warning="; ".join([*damaged, afresh]) if damaged else None)
