"""A trial's weights on test images, in a process of its own for each implementation: by `capsbench predict`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from harness.data.base import Split
from harness.data.overlay import composite
from harness.errors import UserError
from harness.spec import is_right
from harness.spec.trial import Trial

NEAR_TIE = 1e-3
"""Scores that differ by less may change places: rounding of float32 reaches some 1e-5, of TF32 some 1e-4."""
_BATCH = 128


@dataclass(frozen=True)
class Answers:
    """What was predicted for N images, and the scores behind it."""

    predicted: Int[np.ndarray, " N *K"]
    scores: Float[np.ndarray, "N J"]

    def against(self, stored: Int[np.ndarray, " N *K"]) -> tuple[int, int]:
        """Numbers of images that are predicted otherwise than stored: clearly, and where scores nearly tie."""
        other = ~is_right(self.predicted, stored)
        several = 1 if self.predicted.ndim == 1 else self.predicted.shape[1]
        ordered = np.sort(self.scores, axis=1)[:, ::-1]
        is_tie = ordered[:, several - 1] - ordered[:, several] < NEAR_TIE
        return int((other & ~is_tie).sum()), int((other & is_tie).sum())


def answers(run_dir: Path, trial: Trial, split: Split, impl: str, count: int, weights: str = "last") -> Answers:
    """What these weights of `trial` say of the first `count` images of `split`.

    Raises `UserError` if the implementation cannot be used here, with its reason.
    """
    images = split.images[:count]
    with tempfile.TemporaryDirectory(prefix="capsbench-verify-") as scratch:
        path = Path(scratch) / "images.npy"
        np.save(path, composite(images) if trial.model.overlaid > 1 else images)
        command = ["predict", str(run_dir), trial.id, str(path), "--impl", impl, "--batch", str(_BATCH), "--json"]
        command += ["--weights", weights]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness", *command], capture_output=True, text=True, check=False
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(said[-1].removeprefix("capsbench: "))
    rows: list[dict[str, Any]] = json.loads(done.stdout)["predictions"]
    return Answers(np.array([row["class"] for row in rows]), np.array([row["scores"] for row in rows]))
