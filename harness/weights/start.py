"""Where training starts from, if not from drawn weights: `train.start_from`, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.errors import UserError, nearest
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.spec import ModelSpec, Weights
from harness.spec.trial import Trial
from harness.weights.files import load_weights
from harness.weights.table import digest, weight_table
from harness.weights.whole import Damaged, misfits, not_finite, read_header, recorded, require_recorded

_KEY = "train.start_from"
_DTYPES = ("float32", "float64")


def weights_file(start_from: str) -> Path:
    """The file that `train.start_from` means: itself, or the last weights of a trial, given as its folder or as RUN/TRIAL.

    Raises `UserError` if there is none.
    """
    path = Path(start_from).expanduser()
    trials = path.parent / "trials"
    for folder in (path, trials / path.name):
        if (found := folder / "weights.safetensors").is_file():
            return found.absolute()
        if folder.is_dir():
            raise UserError(f'{_KEY}: "{folder}" has no weights.safetensors; a trial has it once it has finished')
    if path.is_file():
        return path.absolute()
    there = [each.parent.name for each in sorted(trials.glob("*/weights.safetensors"))]
    hint = nearest(path.name, there) if there else "; expected a safetensors file, or RUN/TRIAL of a finished trial"
    raise UserError(f'{_KEY}: there is no "{start_from}"{hint}')


def start_sha256(start_from: str | None, model: ModelSpec) -> str | None:
    """The digest of the weights to start from; None where there are none to.

    Raises `UserError` if they cannot be read, are damaged, or are not those of `model`.
    """
    if start_from is None:
        return None
    path = weights_file(start_from)
    tensors, sha256 = _content(path, path.stat().st_mtime_ns)
    if wrong := misfits(tensors, {row.name: row.shape for row in weight_table(model)}, _DTYPES):
        raise UserError(
            f"{_KEY}: {path} holds the weights of another model: {'; '.join(wrong)}. "
            "Give the suite the same section model, and images of the same size"
        )
    return sha256


def starting_weights(trial: Trial, path: Path | None) -> Weights:
    """The weights in `path`. Raises `UserError` if they are not those that the trial was planned with."""
    weights = _read(path) if path else {}
    if digest(weights) != trial.start_sha256:
        raise UserError(f"{_KEY}: {path} has changed since the trial was planned; run the suite again")
    return weights


@lru_cache
def _content(path: Path, _changed_ns: int) -> tuple[Mapping[str, tuple[str, tuple[int, ...]]], str]:
    """Dtypes and shapes by name, and the digest: a file is read once for all trials of a grid."""
    _require_named(path)
    weights = _read(path)
    if wrong := not_finite(weights):
        raise UserError(f"{_KEY}: {path}: {'; '.join(wrong)}; give weights that are all numbers")
    return read_header(path)[1], digest(weights)


def _require_named(path: Path) -> None:
    """Raises `UserError` if the file lies in a trial's folder and is not what an event of that trial names."""
    folder = path.parent
    events = Journal(folder.parent.parent).events(folder.name) if folder.parent.name == "trials" else []
    if not events:
        return
    event = named_files(events).get(path.name)
    if event is None:
        raise UserError(
            f"{_KEY}: no event of trial {folder.name} names {path}: the trial broke off before, or gave that epoch up. "
            "Run its suite again to finish it"
        )
    try:
        require_recorded(path, recorded(event, path.name))
    except Damaged as error:
        raise UserError(f"{_KEY}: {error}") from error


def _read(path: Path) -> Weights:
    """As float32, in which training starts; float64 is rounded. Raises `UserError` for other dtypes, and other files."""
    try:
        _, tensors = read_header(path)
    except ValueError as error:
        raise UserError(f"{_KEY}: {path}: {error}") from error
    if other := [f"{name} is {dtype}" for name, (dtype, _) in tensors.items() if dtype not in _DTYPES]:
        raise UserError(
            f"{_KEY}: {path}: {'; '.join(other[:3])}; weights to start from are float32 or float64. "
            "Less precise ones are not taken for exact: convert them, if that is what you want"
        )
    return {name: array.astype(np.float32) for name, array in load_weights(path).items()}
