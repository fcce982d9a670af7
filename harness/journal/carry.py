"""A longer trial takes over the epochs of a shorter one: its events, its last checkpoint, the weights kept on the way."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from harness.errors import UserError
from harness.events import FINAL, ContinuedEvent, EpochEvent, TrialEvent
from harness.journal.journal import Journal
from harness.journal.results import kept_epochs
from harness.journal.resume import resume_point
from harness.spec.trial import Trial
from harness.weights.files import read_facts, save_weights
from harness.weights.whole import fingerprint, read_weights, recorded


def carry_over(journal: Journal, trial: Trial, shorter: Trial, its: Journal | None = None) -> ContinuedEvent:
    """Makes `trial`, which has trained nothing yet, one that was interrupted where `shorter` ended.

    Both are in `journal`, unless `its` is that of the shorter one.

    Its journal gets the events of the shorter one's epochs, all at once, and last the event that is returned. The shorter
    trial stays as it is. Files take no space twice where the file system has links.

    Raises `UserError` if there is no intact checkpoint to go on from; then nothing was written.
    """
    its = its or journal
    point = resume_point(its, shorter)
    if not point.epoch:
        found = point.warning or f"trial {shorter.id} has no checkpoint"
        raise UserError(found.partition("; there is no whole checkpoint")[0])
    source, target = its.trial_dir(shorter.id), journal.trial_dir(trial.id)
    target.mkdir(parents=True, exist_ok=True)
    events = _until(its.events(shorter.id), point.epoch)
    offset = journal.next_attempt(trial.id) - 1
    copied: list[TrialEvent] = []
    for event in events:
        if isinstance(event, EpochEvent):
            event = _of_longer(event, source, target, shorter, trial)
            if event.epoch == point.epoch:
                _link(source / event.checkpoint, target / event.checkpoint)
        copied.append(event.of(trial.id, event.attempt + offset))
    attempt = max(event.attempt for event in copied)
    told = ContinuedEvent(
        from_trial=shorter.id, from_epoch=point.epoch, from_epochs=shorter.train.epochs, time=time.time()
    ).of(trial.id, attempt)
    if its is not journal:
        told = told.model_copy(update={"from_run": str(its.run_dir)})
    journal.adopt(trial.id, [*copied, told])
    return told


def _until(events: list[TrialEvent], last: int) -> list[TrialEvent]:
    """All that led to the kept epochs up to `last`: neither other epochs, nor how the last attempt ended."""
    kept = [id(epoch) for epoch in kept_epochs(events) if epoch.epoch <= last]
    led = [event for event in events if not isinstance(event, EpochEvent) or id(event) in kept]
    return led[:-1] if isinstance(led[-1], FINAL) else led


def _of_longer(event: EpochEvent, source: Path, target: Path, shorter: Trial, trial: Trial) -> EpochEvent:
    """The epoch's event as the longer trial would have written it; its kept weights, marked as that trial's, in `target`."""
    changes: dict[str, object] = {"epochs": trial.train.epochs}
    if event.weights:
        path = source / event.weights
        try:
            weights = read_weights(path, shorter, recorded(event, path.name))
            save_weights(target / path.name, weights, {**read_facts(path), **trial.facts()})
            changes["files"] = {**(event.files or {}), path.name: dict(fingerprint(target / path.name))}
        except UserError:  # deleted or damaged; the training does not depend on it
            changes["weights"] = None
    return event.model_copy(update=changes)


def _link(source: Path, target: Path) -> None:
    """The same content under another name. Neither is ever changed in place: files are written whole."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
