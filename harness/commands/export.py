"""`capsbench export`: a trial's weights as a framework's own files, which load without this project."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from harness import registry
from harness.commands.output import print_json
from harness.disk import write_atomic
from harness.errors import UserError, nearest
from harness.events import Event
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.spec import Weights
from harness.spec.trial import Trial
from harness.weights.files import read_facts
from harness.weights.whole import read_checkpoint, read_weights, recorded

ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
"""Of the process: an export needs no accelerator, and leaves no trace of one in the files."""


@dataclass(frozen=True)
class Exported:
    """A folder whose files load without this project; `model.py` says how."""

    folder: Path
    files: list[str]
    trained: dict[str, Any]  # whose weights: suite, trial, epoch, errors

    def to_json(self) -> dict[str, Any]:
        """The document of `export --json`."""
        return {"folder": str(self.folder), "files": self.files, "trained": self.trained}


def export(run_dir: Path, trial_id: str, to: str, weights: str = "last", out: Path | None = None) -> Exported:
    """Writes the weights of a trial for framework `to`: its own files, `model.py`, which loads them, and config.json.

    Args:
        trial_id: a trial of the run, or the beginning of its id.
        weights: "best", "last", or the number of an epoch whose weights were kept.
        out: the folder; by default one in `RUN/exports`. Files of earlier exports are replaced.

    Raises `UserError` for what is not there or damaged, or a framework that is not installed.
    """
    trial = find_trial(run_dir, trial_id)
    path, event = _choose(Journal(run_dir), trial, weights)
    if reason := registry.missing(registry.resolve(to)):
        raise UserError(f"--to {to}: {reason}")
    exporter: Any = importlib.import_module(f"impls.{to}.export")
    standalone = exporter.STANDALONE.get(trial.model.kind)
    if not standalone:
        known = " and ".join(exporter.STANDALONE)
        raise UserError(f"--to {to}: a model of kind {trial.model.kind} cannot be exported; {known} can")
    arrays = {name: array.astype(np.float32) for name, array in _read(path, trial, event).items()}
    folder = out or run_dir / "exports" / f"{trial.id}-{to}-{weights}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = trial.facts()
        facts = own | {key: value for key, value in read_facts(path).items() if key not in ("best", "is_over", *own)}
        model = facts.pop("model")
        config = {"model": model, "trained": facts}
        write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out DIR") from error
    names = exporter.export(trial.model, arrays, folder)
    shutil.copyfile(standalone.__file__, folder / "model.py")
    return Exported(folder, ["model.py", "config.json", *names], facts)


def find_trial(run_dir: Path, trial_id: str) -> Trial:
    """The trial of the run whose id begins so. Raises `UserError` if there is none, or are several."""
    journal = Journal(run_dir)
    known = {id: journal.trial(id) for id in journal.trial_ids()}
    if not known:
        runs = [str(plan.parent) for plan in sorted(run_dir.absolute().parent.glob("*/plan.json"))]
        hint = nearest(str(run_dir.absolute()), runs) if runs else "; `capsbench run SUITE` makes one in runs/"
        raise UserError(f"{run_dir} is no run's directory{hint}")
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


def available(journal: Journal, trial: Trial) -> dict[str, tuple[Path, Event]]:
    """What there is of the trial's weights: "last", "best" and numbers of epochs -> file, and the event that names it."""
    found: dict[str, tuple[Path, Event]] = {}
    for file, event in named_files(journal.events(trial.id)).items():
        path = journal.trial_dir(trial.id) / file
        if not path.exists() or file == event.get("predictions"):
            continue
        name = str(event.get("epoch", "best" if file == event.get("best_weights") else "last"))
        is_checkpoint = file == event.get("checkpoint")
        if not is_checkpoint or name not in found:  # an epoch's weights by themselves rather than among more
            found[name] = path, event
    return found


def _choose(journal: Journal, trial: Trial, weights: str) -> tuple[Path, Event]:
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


def _read(path: Path, trial: Trial, event: Event) -> Weights:
    record = recorded(event, path.name)
    if path.name == event.get("checkpoint"):
        return read_checkpoint(path, trial, record, int(event["epoch"]))[0]
    return read_weights(path, trial, record)


def options(command: argparse.ArgumentParser) -> None:
    """What `capsbench export` takes."""
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/quickstart")
    command.add_argument("trial", metavar="TRIAL", help="the trial's id, or its beginning; `capsbench plan` shows them")
    command.add_argument("--to", required=True, choices=("torch", "tf", "jax"), help="the framework")
    command.add_argument(
        "--weights", default="last", metavar="best|last|EPOCH",
        help="of the lowest validation error, of the last epoch (default), or of an epoch kept by train.keep_every",
    )  # fmt: skip
    command.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/exports/TRIAL-FRAMEWORK-WEIGHTS")


def main(args: argparse.Namespace) -> int:
    os.environ.update(ENVIRONMENT)
    exported = export(args.run_dir, args.trial, args.to, args.weights, args.out)
    if args.json:
        print_json(exported.to_json())
    else:
        Console().print(Text(f"{exported.folder}: {', '.join(exported.files)}"), soft_wrap=True)
        Console().print(Text(f"How to load them: the head of {exported.folder / 'model.py'}"), soft_wrap=True)
    return 0
