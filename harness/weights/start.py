"""Starting weights from a file: `train.start_from`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.spec import Weights
from harness.spec.trial import Trial
from harness.weights.files import load_weights
from harness.weights.table import digest
from harness.weights.whole import read_header

KEY = "train.start_from"
DTYPES = ("float32", "float64")


def starting_weights(trial: Trial, path: Path | None) -> Weights:
    """The weights in `path`. Raises `UserError` if they are not those that the trial was planned with."""
    weights = read_start(path) if path else {}
    if digest(weights) != trial.start_sha256:
        raise UserError(f"{KEY}: {path} has changed since the trial was planned; run the suite again")
    return weights


def read_start(path: Path) -> Weights:
    """The weights as float32, in which training starts; float64 is rounded. Raises `UserError` for other dtypes and files."""
    try:
        _, tensors = read_header(path)
    except ValueError as error:
        raise UserError(f"{KEY}: {path}: {error}") from error
    if other := [f"{name} is {dtype}" for name, (dtype, _) in tensors.items() if dtype not in DTYPES]:
        raise UserError(
            f"{KEY}: {path}: {'; '.join(other[:3])}; weights to start from are float32 or float64. "
            "Less precise ones are not taken for exact: convert them, if that is what you want"
        )
    return {name: array.astype(np.float32) for name, array in load_weights(path).items()}
