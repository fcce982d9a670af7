"""Which of a trial's weights a run keeps, by the names that users give, and how to read them."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError, nearest
from harness.events import EpochEvent, ResultEvent
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.spec import Weights
from harness.spec.trial import Trial
from harness.weights.whole import read_checkpoint, read_weights, recorded


def find_trial(run_dir: Path, trial_id: str) -> Trial:
    """The run's trial whose id begins with `trial_id`. Raises `UserError` if there is none, or more than one."""
    journal = Journal(run_dir)
    known = {id: journal.trial(id) for id in journal.trial_ids()}
    if not known:
        require_run(run_dir)
        raise UserError(f"{run_dir} is a run without trials: run its suite again")
    found = [trial for id, trial in known.items() if id.startswith(trial_id)]
    if len(found) == 1:
        return found[0]
    listed = "\n".join(f"  {id}  {_described(trial)}" for id, trial in known.items())
    if found:
        raise UserError(f'several trials of {run_dir} begin with "{trial_id}"; give more of the id:\n{listed}')
    hint = nearest(trial_id, known).partition(" Valid")[0]
    raise UserError(f'{run_dir} has no trial "{trial_id}"{hint} Its trials:\n{listed}')


def _described(trial: Trial) -> str:
    return ", ".join([trial.impl, *(f"{key} {value}" for key, value in trial.params.items()), f"seed {trial.seed}"])


def available(journal: Journal, trial: Trial) -> dict[str, tuple[Path, EpochEvent | ResultEvent]]:
    """The trial's weights that exist: "last", "best" and epoch numbers -> the file, and the event that names it."""
    found: dict[str, tuple[Path, EpochEvent | ResultEvent]] = {}
    for file, event in named_files(journal.events(trial.id)).items():
        path = journal.trial_dir(trial.id) / file
        fields = [field for field, name in event.names().items() if name == file]
        if not path.exists() or "predictions" in fields:
            continue
        last = "best" if "best_weights" in fields else "last"
        name = str(event.epoch) if isinstance(event, EpochEvent) else last
        is_checkpoint = "checkpoint" in fields
        if not is_checkpoint or name not in found:  # prefer a file with only the weights to a checkpoint
            found[name] = path, event
    return found


def choose(journal: Journal, trial: Trial, weights: str) -> tuple[Path, EpochEvent | ResultEvent]:
    """The file with the trial's weights ("last", "best" or an epoch number), and the event that names it.

    Raises `UserError` if there is none.
    """
    there = available(journal, trial)
    if weights in there:
        return there[weights]
    if not there:
        raise UserError(f"trial {trial.id} has no weights yet: run its suite again to finish it")
    why = ""
    if weights == "best" and "last" in there:
        why = ": it had no validation images (data.validation), so no epoch is known to be the best"
    elif weights in ("best", "last"):
        why = ": it has not finished"
    elif weights.isdigit():
        why = ": that epoch's were not kept (train.keep_every)"
    raise UserError(f'trial {trial.id} has no weights "{weights}"{why}{nearest(weights, there)}')


def read(path: Path, trial: Trial, event: EpochEvent | ResultEvent) -> Weights:
    """The weights in a file returned by `choose`. Raises `UserError` if it is damaged."""
    record = recorded(event, path.name)
    if isinstance(event, EpochEvent) and path.name == event.checkpoint:
        return read_checkpoint(path, trial, record, event.epoch)[0]
    return read_weights(path, trial, record)
