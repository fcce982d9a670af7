"""`capsbench compare A B`: is the second run worse than the first? Test error, time and memory, cell by cell."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.analysis.cells import ALPHA, Cell, contrast, of_run
from harness.analysis.choice import Choice, choices
from harness.analysis.images import ImageRow, across, answers_of
from harness.analysis.published import facts_of
from harness.analysis.seeds import left_out
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.stats import Difference, adjust

COMPARED = ("test_err_pct", "epoch_s", "peak_bytes")  # less is better
_COSTS = ("epoch_s", "peak_bytes")  # metrics with a tolerance
_HARDWARE = ("cpu", "cores", "gpus")


@dataclass(frozen=True)
class Row:
    """One metric of one cell in both runs; `test` is for B minus A, corrected for all tested rows."""

    metric: str
    a: Cell
    b: Cell
    test: Difference
    tolerance_pct: float

    @property
    def change_pct(self) -> float | None:
        """The difference, in percent of A's mean."""
        found, difference = self.a.summary(self.metric), self.test.difference
        return 100 * difference / found.mean if found and found.mean and difference is not None else None

    @property
    def verdict(self) -> Literal["worse", "better", "within tolerance", "none shown", "one seed", "no test"]:
        """Worse and better are significant after the correction, and beyond the tolerance if the metric has one."""
        test = self.test
        if test.adjusted_p is None or test.difference is None:
            return "one seed" if test.n_a == test.n_b == 1 else "no test"
        if test.adjusted_p >= ALPHA:
            return "none shown"
        if self.metric in _COSTS and abs(self.change_pct or math.inf) <= self.tolerance_pct:
            return "within tolerance"
        return "worse" if test.difference > 0 else "better"

    def to_json(self) -> dict[str, Any]:
        a, b = (cell.summary(self.metric) for cell in (self.a, self.b))
        return {
            "metric": self.metric,
            "impl": self.a.impl,
            "params": self.a.params,
            "a": a and a.mean,
            "b": b and b.mean,
            "change_pct": self.change_pct,
            "verdict": self.verdict,
            **asdict(self.test),
        }


@dataclass(frozen=True)
class Comparison:
    """Two runs, cell by cell."""

    run_a: Path
    run_b: Path
    rows: list[Row]
    images: list[ImageRow]  # cells compared image by image, as far as both runs stored predictions
    broken: list[str]  # trials that count in A but failed, or failed parity or the audit, in B
    warnings: list[str]
    choices_a: list[Choice] = field(default_factory=list[Choice])  # which epoch counts, of the cells that both have
    choices_b: list[Choice] = field(default_factory=list[Choice])

    @property
    def ok(self) -> bool:
        """Whether nothing is broken and nothing is shown to be worse."""
        return not self.broken and all(row.verdict != "worse" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The output of `compare --json`."""
        return {
            "ok": self.ok,
            "a": str(self.run_a),
            "b": str(self.run_b),
            "rows": [row.to_json() for row in self.rows],
            "images": [row.to_json() for row in self.images],
            "tested": sum(row.test.p is not None for row in self.rows),
            "broken": self.broken,
            "warnings": self.warnings,
            "choice": {
                "a": [each.to_json() for each in self.choices_a],
                "b": [each.to_json() for each in self.choices_b],
            },
        }


def compare(run_a: Path, run_b: Path, tolerance_pct: float = 1.0) -> Comparison:
    """Compares the cells that are in both latest plans: the same implementation in the same setting of the grid.

    Raises `UserError` for a folder without a run, an invalid tolerance, damaged predictions, or runs without a cell in common.
    """
    if not (tolerance_pct >= 0 and math.isfinite(tolerance_pct)):
        raise UserError(f"--tolerance {tolerance_pct:g} is no tolerance: give percent, 0 or more")
    of_a, of_b = ({_key(cell): cell for cell in of_run(Journal(run))} for run in (run_a, run_b))
    common = [(of_a[key], of_b[key]) for key in of_a if key in of_b]
    if not common:
        a, b = ("; ".join(cell.name for cell in cells.values()) for cells in (of_a, of_b))
        raise UserError(f"nothing in common: {run_a} has {a}\n{run_b} has {b}\nGive two runs of one suite.")
    rows = [Row(metric, a, b, contrast(a, b, metric), tolerance_pct) for metric in COMPARED for a, b in common]
    rows = [row for row in rows if row.test.n_a or row.test.n_b]
    corrected = adjust([row.test for row in rows], ALPHA)
    rows = [replace(row, test=test) for row, test in zip(rows, corrected, strict=True)]
    broken = [line for a, b in common for line in _broken(a, b)]
    images = across(common, answers_of(run_a, of_a.values()), answers_of(run_b, of_b.values()))
    warnings = _warnings(run_a, run_b, of_a, of_b, common, rows)
    chosen = (choices([cells[side] for cells in common]) for side in (0, 1))
    return Comparison(run_a, run_b, rows, images, broken, warnings, *chosen)


def _key(cell: Cell) -> tuple[str, str]:
    """Its implementation and setting, independent of the order of the grid's keys."""
    return cell.impl, json.dumps(cell.params, sort_keys=True)


def _broken(a: Cell, b: Cell) -> Iterator[str]:
    counted = {result.seed for result in a.counted}
    failed = [result for result in b.results if result.seed in counted and (result.status == "failed" or result.flaw)]
    yield from left_out([replace(b, results=tuple(failed))])


def _warnings(
    run_a: Path,
    run_b: Path,
    of_a: dict[tuple[str, str], Cell],
    of_b: dict[tuple[str, str], Cell],
    common: Sequence[tuple[Cell, Cell]],
    rows: Sequence[Row],
) -> list[str]:
    """What differs between the two runs, and what could not be tested."""
    said = [f"only in {run_a}: {of_a[key].name}" for key in of_a if key not in of_b]
    said += [f"only in {run_b}: {of_b[key].name}" for key in of_b if key not in of_a]
    for run, cells in ((run_a, [a for a, _ in common]), (run_b, [b for _, b in common])):
        said += [f"{run}: {line}" for line in left_out(cells)]
    for a, b in common:
        facts_a, facts_b = (
            facts_of(each.trial) | {"cpus": each.trial.cpus, "gpus": each.trial.gpus} for each in (a, b)
        )
        differing = sorted(key for key in facts_a.keys() | facts_b.keys() if facts_a.get(key) != facts_b.get(key))
        for key in (key for key in differing if key != "data.dir"):
            said.append(f"not alike: {key} is {facts_a.get(key)} in A, {facts_b.get(key)} in B")
    machines = [Journal(run).environment() for run in (run_a, run_b)]
    for name in _HARDWARE:
        a, b = (machine.get(name) for machine in machines)
        if a != b:
            said.append(f"another machine: {name} is {a} in A, {b} in B; time and memory say nothing of the code")
    if any(row.test.p is not None and row.test.n_a == row.test.n_b == 2 for row in rows):
        said.append('two seeds show huge differences only (column "detectable"): run both with a third seed, or more')
    if not any(row.test.p is not None for row in rows):
        said.append("nothing could be tested: that takes at least 2 finished seeds in both runs (grid.seed: [0, 1, 2])")
    return list(dict.fromkeys(said))
