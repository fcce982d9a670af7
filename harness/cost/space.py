"""How much room on the disk a trial takes: known for its weights and checkpoints, estimated for the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness import data
from harness.spec.trial import Trial
from harness.weights import parameter_count

_FIGURES = 2_500_000  # PNG files of a trial; measured: 2.0 MB for 28x28
_LOG = 100_000  # what a framework prints, the gate's verdict, configuration, result
_EPOCH = 2_000  # an epoch's line in the journal, and in result.json
_DATABASE = 200_000  # a trial's rows in MLflow
_HEADER = 4_096  # of a safetensors file


@dataclass(frozen=True)
class Space:
    """Bytes of one trial."""

    weights: int  # one set of weights
    checkpoint: int  # weights, Adam's two moments, and the best epoch's weights where there are validation images
    end: int  # what the last event names: the last weights, the best ones, predictions
    kept: int  # what of these stays once the trial has finished, with the weights kept on the way
    peak: int  # the most of them while it trains: two checkpoints stay, and a third is written
    rest: int  # logs, journal, figures, MLflow: a rough estimate

    @property
    def passing(self) -> int:
        """What is needed while it trains, and free again afterwards."""
        return self.peak - self.kept


def space(trial: Trial, *, figures: bool = True, track: bool = True) -> Space:
    """The room that `trial` takes, with its `figures` and what MLflow keeps of it (`track`), on the same disk."""
    weights = parameter_count(trial.model) * np.dtype(trial.runtime_spec().dtype).itemsize + _HEADER
    _, validation, test = data.sizes(trial.data)
    checkpoint = (4 if validation else 3) * weights
    predictions = 8 * test * math.prod(trial.model.several) + _HEADER  # int32, and the labels
    end = (2 if validation else 1) * weights + predictions
    every = trial.train.keep_every
    on_the_way = (trial.train.epochs // every) * weights if every else 0
    kept = checkpoint + end + on_the_way
    during = (1 + min(trial.train.epochs - 1, 2)) * checkpoint
    at_the_end = min(trial.train.epochs, 2) * checkpoint + end
    peak = max(during, at_the_end, checkpoint + end) + on_the_way
    drawn = _FIGURES * (1 + track) if figures else 0
    rest = _LOG + _EPOCH * trial.train.epochs + drawn + (_DATABASE if track else 0)
    return Space(weights, checkpoint, end, kept, peak, rest)
