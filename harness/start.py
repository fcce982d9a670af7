"""Where training starts from, if not from drawn weights: `train.start_from`, checked before anything is started."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from harness.checkpoint import load_weights
from harness.config import Trial
from harness.errors import UserError, nearest
from harness.spec import ModelSpec, Weights
from harness.weights import digest, weight_table

_KEY = "train.start_from"


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

    Raises `UserError` if they cannot be read, or are not those of `model`.
    """
    if start_from is None:
        return None
    path = weights_file(start_from)
    shapes, sha256 = _content(path, path.stat().st_mtime_ns)
    expected = {row.name: row.shape for row in weight_table(model)}
    wrong = [f"{name} is missing" for name in expected.keys() - shapes.keys()]
    wrong += [f"{name} is not in the model" for name in shapes.keys() - expected.keys()]
    wrong += [
        f"{name} is {_by(shapes[name])}, the model's {_by(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if wrong:
        raise UserError(
            f"{_KEY}: {path} holds the weights of another model: {'; '.join(sorted(wrong))}. "
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
def _content(path: Path, _changed_ns: int) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes by name, and the digest: a file is read once for all trials of a grid."""
    weights = _read(path)
    return {name: array.shape for name, array in weights.items()}, digest(weights)


def _read(path: Path) -> Weights:
    try:
        return {name: array.astype(np.float32) for name, array in load_weights(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{_KEY}: {path} is no readable safetensors file: {error}") from error


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
