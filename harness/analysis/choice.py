"""Which epoch's weights count: the last one's, those chosen on validation images, and what choosing on test images claims.

The last of these is what is often reported as a result. It is none: the same images choose and judge, so it is too low
even where every epoch is equally good. It stands beside the other two, so that their figures can be compared with such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.analysis.cells import Cell
from harness.journal.results import Result
from harness.stats import Summary, summary


@dataclass(frozen=True)
class Choice:
    """A cell's test errors in percent over its seeds, by which epoch is taken; all three are over the same seeds.

    `known`: of how many epochs of how many a trial the test error is known, at least. Only where it is known of all of
    them is `claimed` what choosing on the test set would have claimed; of fewer, that would have been at most as much.
    """

    cell: Cell
    last: Summary
    validated: Summary
    claimed: Summary
    known: int
    epochs: int

    @property
    def is_bound(self) -> bool:
        """Whether choosing among all epochs might have claimed still less."""
        return self.known < self.epochs

    def to_json(self) -> dict[str, Any]:
        """An item of the key "choice" of `report --json`."""
        found = {name: asdict(getattr(self, name)) for name in ("last", "validated", "claimed")}
        return {
            "impl": self.cell.impl, "params": self.cell.params, **found, "known": self.known, "epochs": self.epochs,
        }  # fmt: skip


def choices(cells: Sequence[Cell]) -> list[Choice]:
    """One for each cell, some of whose trials chose an epoch on validation images, and trained more than one."""
    return [found for cell in cells for found in _of(cell)]


def _of(cell: Cell) -> Iterator[Choice]:
    chosen = [each for each in cell.counted if each.best_test_err_pct is not None and each.epochs_trained > 1]
    errors = [errors_by_epoch(each) for each in chosen]
    last, validated, claimed = (
        summary(values)
        for values in (
            [float(each.test_err_pct or 0.0) for each in chosen],
            [float(each.best_test_err_pct or 0.0) for each in chosen],
            [min(each.values()) for each in errors],
        )
    )
    if last and validated and claimed:
        known = min(len(each) for each in errors)
        yield Choice(cell, last, validated, claimed, known, max(each.epochs_trained for each in chosen))


def errors_by_epoch(result: Result) -> dict[int, float]:
    """Epoch -> its test error in percent, as far as the trial recorded it: of the last and the best one, or of all."""
    found = {
        int(each["epoch"]): float(each["test_err_pct"])
        for each in result.epochs
        if each.get("test_err_pct") is not None
    }
    if result.best_epoch is not None and result.best_test_err_pct is not None:
        found[result.best_epoch] = result.best_test_err_pct
    if result.test_err_pct is not None:
        found[result.epochs_trained] = result.test_err_pct
    return found
