"""Learning curves: a figure by epoch, for each cell, over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.cells import Cell

FIGURES = {
    "val_err_pct": "validation error %",
    "train_err_pct": "training error %",
    "train_loss": "training loss",
    "val_loss": "validation loss",
}
"""What is recorded of each epoch and drawn, and what it is called."""


@dataclass(frozen=True)
class Curve:
    """One cell's figure by epoch: the mean over seeds, and the lowest and highest seed. `seeds`: how many had that epoch."""

    cell: Cell
    metric: str
    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: list[int]

    @property
    def has_band(self) -> bool:
        """Whether some epoch has more than one seed."""
        return max(self.seeds) > 1


def learning(cells: Sequence[Cell], metric: str) -> list[Curve]:
    """The curves of the trials that count; a cell without the figure has none."""
    found: list[Curve] = []
    for cell in cells:
        values: dict[int, list[float]] = {}
        for result in cell.counted:
            for epoch in result.epochs:
                if epoch.get(metric) is not None:
                    values.setdefault(int(epoch["epoch"]), []).append(float(epoch[metric]))
        if values:
            epochs = sorted(values)
            by_epoch = [values[epoch] for epoch in epochs]
            mean, low, high = ([of(each) for each in by_epoch] for of in (statistics.fmean, min, max))
            found.append(Curve(cell, metric, epochs, mean, low, high, [len(each) for each in by_epoch]))
    return found
