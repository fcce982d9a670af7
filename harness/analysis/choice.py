"""Which epoch's weights count: the last one's, those chosen on validation images, and what choosing on test images claims.

The last of these is what is often reported as a result. It is none: the same images choose and judge, so it is too low
even where every epoch is equally good. It stands beside the other two, so that their figures can be compared with such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.analysis.cells import Cell
from harness.journal.results import Result
from harness.stats import Summary, error_interval, summary


@dataclass(frozen=True)
class Choice:
    """A cell's test errors in percent over its seeds, by which epoch is taken; all three are over the same seeds.

    `known`: of how many epochs of how many a trial the test error is known, at least. Only where it is known of all of
    them is `claimed` what choosing on the test set would have claimed; of fewer, that would have been at most as much.
    `kept`: of how many epochs more a trial the weights were kept, at most, so that `capsbench retest` can tell.
    """

    cell: Cell
    last: Summary
    validated: Summary
    claimed: Summary
    known: int
    epochs: int
    kept: int
    images: int

    @property
    def is_bound(self) -> bool:
        """Whether choosing among all epochs might have claimed still less."""
        return self.known < self.epochs

    def interval(self, found: Summary) -> tuple[float, float] | None:
        """A 95% interval of one of the three: of its mean over seeds, or of one seed over images; None if all seeds agree."""
        if found.n == 1:
            return error_interval(found.mean, self.images)
        return None if found.low is None or found.high is None else (max(0.0, found.low), min(100.0, found.high))

    def to_json(self) -> dict[str, Any]:
        """An item of the key "choice" of `report --json`, `compare --json` and `retest --json`."""
        figures = {name: getattr(self, name) for name in ("last", "validated", "claimed")}
        return {
            "impl": self.cell.impl, "params": self.cell.params,
            **{name: asdict(each) for name, each in figures.items()},
            "known": self.known, "epochs": self.epochs, "kept": self.kept,
            "interval": {name: self.interval(each) for name, each in figures.items()},
        }  # fmt: skip


def choices(cells: Sequence[Cell]) -> list[Choice]:
    """One for each cell, some of whose trials chose an epoch on validation images, and trained more than one."""
    return [found for cell in cells for found in _of(cell)]


def advice(run_dir: Path | str, found: Sequence[Choice]) -> list[str]:
    """How the test errors that are not known can be had; `run_dir`: as it is called in a command."""
    lines: list[str] = []
    if any(each.kept for each in found):
        lines.append(f"Weights of more epochs were kept; to test them: capsbench retest {run_dir}")
    if any(each.known + each.kept < each.epochs for each in found):
        lines.append("Weights of other epochs were not kept; with train.keep_every: 1 in the suite, a run keeps them.")
    return lines


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
        kept = max(len(kept_epochs(each) - of.keys()) for each, of in zip(chosen, errors, strict=True))
        epochs = max(each.epochs_trained for each in chosen)
        yield Choice(cell, last, validated, claimed, known, epochs, kept, round(100 / cell.resolution_pct))


def errors_by_epoch(result: Result) -> dict[int, float]:
    """Epoch -> its test error in percent, as far as it is known: of the last and the best one, of more, or of all."""
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


def kept_epochs(result: Result) -> set[int]:
    """The epochs whose weights `train.keep_every` kept."""
    return {int(each["epoch"]) for each in result.epochs if each.get("weights")}
