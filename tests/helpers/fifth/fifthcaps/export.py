"""Trained weights as fifthlib's own file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fifthcaps import standalone
from harness.spec import ModelSpec, Weights

STANDALONE = {"capsnet": standalone}


def export(model: ModelSpec, weights: Weights, folder: Path) -> list[str]:
    np.savez(folder / "weights.fifth.npz", allow_pickle=False, **weights)
    return ["weights.fifth.npz"]
