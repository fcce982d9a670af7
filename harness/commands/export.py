"""`capsbench export`: writes a trial's weights as a framework's own files, which load without this project."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from harness import progress, registry
from harness.commands.elsewhere import run_elsewhere
from harness.commands.output import print_json
from harness.disk import obstacle, write_atomic
from harness.errors import UserError, nearest
from harness.journal.journal import Journal
from harness.journal.kept import choose, find_trial, read
from harness.machine.environment import available_cores
from harness.machine.surroundings import child_environment
from harness.models import probing
from harness.prediction.trained import some_images
from harness.publishing.crate import home_of_results
from harness.spec import Weights
from harness.spec.trial import Trial
from harness.views.messages import Console
from harness.weights.files import read_facts

_IMAGES = 16
_TOLERANCE = 1e-4  # of a score in 0..1; float32 stays below 1e-5


@dataclass(frozen=True)
class Exported:
    """A folder whose files load without this project; `model.py` shows how."""

    folder: Path
    files: list[str]
    trained: dict[str, Any]  # whose weights: suite, trial, epoch, errors
    checked: dict[str, Any] | None = None  # of a format that can be run here: on which images, the largest error

    def to_json(self) -> dict[str, Any]:
        """The output of `export --json`."""
        found = {"folder": str(self.folder), "files": self.files, "trained": self.trained}
        return found | ({"checked": self.checked} if self.checked else {})


def export(run_dir: Path, trial_id: str, to: str, weights: str = "last", out: Path | None = None) -> Exported:
    """Writes the weights of a trial for framework `to`: its own files, `model.py`, which loads them, and config.json.

    Args:
        trial_id: the id of a trial in the run, or the beginning of it.
        weights: "best", "last", or the number of an epoch whose weights were kept.
        out: the folder; by default one in `RUN/exports`. Files of earlier exports are replaced.

    Raises `UserError` for anything missing or damaged, or a framework that is not installed.
    """
    trial = find_trial(run_dir, trial_id)
    path, event = choose(Journal(run_dir), trial, weights)
    entry = registry.exporting(to)
    if reason := registry.missing(entry):
        raise UserError(f"--to {to}: {reason}")
    exporter = _exporter(entry)
    standalone = exporter.STANDALONE.get(trial.model.kind)
    if not standalone:
        known = " and ".join(exporter.STANDALONE)
        raise UserError(f"--to {to}: a model of kind {trial.model.kind} cannot be exported; {known} can")
    arrays = {name: array.astype(np.float32) for name, array in read(path, trial, event).items()}
    folder = out or home_of_results(run_dir) / "exports" / f"{trial.id}-{to}-{weights}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = trial.facts()
        facts = own | {key: value for key, value in read_facts(path).items() if key not in ("best", "is_over", *own)}
        model = facts.pop("model")
        config = {"model": model, "trained": facts}
        write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {obstacle(folder) or error.strerror}; choose another folder with --out DIR"
        ) from error
    names = exporter.export(trial.model, arrays, folder)
    shutil.copyfile(standalone.__file__, folder / "model.py")
    checked = _checked(exporter.scores, trial, arrays, folder) if hasattr(exporter, "scores") else None
    return Exported(folder, ["model.py", "config.json", *names], facts, checked)


def _checked(scores: Callable[..., np.ndarray], trial: Trial, weights: Weights, folder: Path) -> dict[str, Any]:
    """Runs the exported files on some images beside the specification. Raises `UserError` if they do not agree.

    The images are test images of the trial's data set if it is on this machine, and else drawn.
    """
    pixels, whose = some_images(trial.model, trial.data, _IMAGES)
    images = np.zeros((len(pixels), *trial.model.several, *trial.model.image), np.uint8)
    (images if trial.model.overlaid == 1 else images[:, 0])[:] = pixels  # the other digits are black
    with progress.task("comparing with the specification"):
        expected = probing.specification(trial.model, weights).forward(images).lengths
    error = float(np.abs(scores(folder, pixels / np.float32(255)) - expected).max())
    if not error <= _TOLERANCE:
        raise UserError(
            f"{folder}: these files do not compute what the specification does: scores differ by up to {error:.1e} on "
            f"{len(pixels)} images ({whose}), {_TOLERANCE:g} is allowed. Do not use them"
        )
    return {"images": len(pixels), "of": whose, "max_error": error}


def _exporter(entry: registry.Entry) -> Any:
    """The module that writes the framework's files. Raises `UserError` if there is none, or if it is incomplete."""
    if not (name := registry.exporter(entry)):
        raise UserError(f"--to {entry.name}: it writes no files of its own{nearest(entry.name, registry.exporters())}")
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UserError(f"--to {entry.name}: importing {name} raised {type(error).__name__}: {error}") from error
    if lacking := [each for each in ("export", "STANDALONE") if not hasattr(module, each)]:
        raise UserError(f"--to {entry.name}: {name} has no {' and no '.join(lacking)}")
    return module


def _is_of(trial: Trial, to: str) -> bool:
    """Whether the framework to export to trained it, maybe in another environment."""
    entry = registry.known(trial.impl)
    return entry is not None and entry.base == to


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench export`."""
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/quickstart")
    command.add_argument("trial", metavar="TRIAL", help="the trial's id, or its beginning; `capsbench plan` shows them")
    command.add_argument("--to", required=True, choices=registry.exporters(), help="the framework or file format")
    command.add_argument(
        "--weights",
        default="last",
        metavar="best|last|EPOCH",
        help="of the lowest validation error, of the last epoch (default), or of an epoch kept by train.keep_every",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: RUN/exports/TRIAL-FRAMEWORK-WEIGHTS; of what was published, from-RUN/exports/...",
    )


def main(args: argparse.Namespace) -> int:
    trained = find_trial(args.run_dir, args.trial)
    recorded = (
        trained.interpreter if registry.missing(registry.exporting(args.to)) and _is_of(trained, args.to) else None
    )
    if args.to in registry.names() and (code := run_elsewhere(args, args.to, recorded)) is not None:
        return code
    # An export needs no accelerator, and its files show no trace of one, nor of the user's shell.
    wanted = registry.environment(args.to, available_cores(), "fp32", False)
    os.environ.update(
        child_environment(os.environ)
        | {name: value for name, value in wanted.items() if value is not None}
        | {"CUDA_VISIBLE_DEVICES": ""}
    )
    with progress.task(f"exporting {trained.id} to {args.to}"):
        exported = export(args.run_dir, args.trial, args.to, args.weights, args.out)
    if args.json:
        print_json(exported.to_json())
    else:
        Console().print(Text(f"{exported.folder}: {', '.join(exported.files)}"), soft_wrap=True)
        if found := exported.checked:
            told = f"Checked on {found['images']} images ({found['of']}): within {found['max_error']:.0e} of the specification"
            Console().print(Text(told), soft_wrap=True)
        Console().print(Text(f"How to load them: the head of {exported.folder / 'model.py'}"), soft_wrap=True)
    return 0
