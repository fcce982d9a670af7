"""Draws the figures of trials into folders: missing ones at the end of `run`, and all for `capsbench figures`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness import data, progress
from harness.data import Dataset
from harness.disk import obstacle, read_json, write_atomic
from harness.errors import UserError, of_the_disk
from harness.journal.journal import FOLDER, INDEX, Journal
from harness.spec.trial import DataConfig
from harness.views.figures.capsules import draw_entropy, draw_lengths, draw_perturbations, draw_reconstructions
from harness.views.figures.classes import draw_classes
from harness.views.figures.learning import draw_epochs, draw_learning, draw_routing_logits
from harness.views.figures.material import LeftOut, Material

Draw = Callable[[Material, Path], list[Path]]
_FIGURES: dict[str, Draw] = {
    "epochs": draw_epochs,
    "learning": draw_learning,
    "confusion": draw_classes,
    "reconstructions": draw_reconstructions,
    "perturbations": draw_perturbations,
    "lengths": draw_lengths,
    "entropy": draw_entropy,
    "routing_logits": draw_routing_logits,
}


@dataclass
class Drawn:
    """What was drawn for one trial: the files, and why other figures make no sense, lack their data, or failed."""

    id: str
    impl: str
    seed: int
    folder: Path
    files: list[Path] = field(default_factory=list[Path])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    lacking: dict[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> dict[str, Any]:
        """One trial's entry in `figures --json`."""
        return {
            "id": self.id,
            "impl": self.impl,
            "seed": self.seed,
            "folder": str(self.folder),
            "files": [str(path) for path in self.files],
            "left_out": self.left_out,
            "lacking": self.lacking,
        }


def require_matplotlib() -> None:
    """Raises `UserError` if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError('figures need matplotlib, which is not installed: pip install "capsbench[report]"')


def draw_trial(material: Material, folder: Path) -> Drawn:
    """Draws all figures of a finished trial into `folder`, replacing earlier ones. If one fails, `lacking` says why.

    Raises `UserError` if the folder cannot be written or, before anything is drawn, if a file of the trial is damaged;
    `OSError` on a disk that is full or fails.
    """
    trial = material.trial
    material.read()
    drawn = Drawn(trial.id, trial.impl, trial.seed, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (read_json(folder / INDEX) or {}).get("files", {}):
            (folder / Path(name).name).unlink(missing_ok=True)
        (folder / INDEX).unlink(missing_ok=True)  # the folder counts as unfinished until this file is back
        for name, draw in _FIGURES.items():
            try:
                drawn.files += draw(material, folder)
            except LeftOut as reason:
                (drawn.lacking if reason.lacking else drawn.left_out)[name] = str(reason)
            except OSError:
                raise
            except Exception as error:  # whatever went wrong, draw the other figures; no trial fails for it
                drawn.lacking[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in drawn.files}
        index = {"trial": trial.id, "files": digests, "left_out": drawn.left_out, "lacking": drawn.lacking}
        write_atomic(folder / INDEX, json.dumps(index, indent=2) + "\n")
    except OSError as error:
        if of_the_disk(error):  # no fault of this folder: all others would fail too
            raise
        raise UserError(
            f"cannot write figures to {folder}: {obstacle(folder) or error.strerror}; choose a place with --out"
        ) from error
    return drawn


def draw_missing(
    journal: Journal,
    trial_ids: Iterable[str],
    on_drawn: Callable[[str], None],
    limit_s: float | None = None,
) -> list[str]:
    """Draws the figures of those finished trials that have none yet. Returns problems as warnings instead of raising.

    `on_drawn` gets the id of each trial afterwards. Once `limit_s` seconds are over, no
    further trial is begun.
    """
    missing = [each for each in trial_ids if not (journal.trial_dir(each) / FOLDER / INDEX).exists()]
    if not missing:
        return []
    again = f"to draw them: capsbench figures {journal.run_dir}"
    try:
        require_matplotlib()
    except UserError as error:
        return [f"{error}; then, {again}"]
    warnings: dict[str, None] = {}
    dataset, began = datasets(), time.monotonic()
    for number, trial_id in enumerate(progress.track(missing, "drawing figures"), start=1):
        if limit_s is not None and time.monotonic() - began > limit_s:
            left = len(missing) - number + 1
            warnings[f"figures have taken as long as the training: {left} trials have none yet; {again}"] = None
            break
        try:
            drawn = draw_trial(Material(journal, trial_id, dataset), journal.trial_dir(trial_id) / FOLDER)
        except Exception as error:
            if isinstance(error, OSError) and of_the_disk(error):
                raise
            warnings[f"trial {trial_id} has no figures: {error}; {again}"] = None
            continue
        warnings |= dict.fromkeys(f"no figure {name} of trial {trial_id}: {why}" for name, why in drawn.lacking.items())
        on_drawn(trial_id)
    return list(warnings)


def datasets() -> Callable[[DataConfig], Dataset]:
    """`data.load`, which loads each data set only once."""

    @cache
    def load(document: str) -> Dataset:
        return data.load(DataConfig.model_validate_json(document))

    return lambda config: load(config.model_dump_json())
