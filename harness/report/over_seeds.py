"""What a run says over its seeds: cells with intervals, their differences, equivalence of frameworks, published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.cells import METRICS, Cell, Change, changes, of_run
from harness.equivalence import Pair, compare
from harness.journal import Journal
from harness.published import Beside, beside
from harness.stats import Difference, Summary
from harness.tables import UNKNOWN, number, setting

_THEIRS = {"paper": True, "others": False}  # column -> whether the source is the paper


@dataclass(frozen=True)
class OverSeeds:
    """Cells in the plan's order, and what follows from them. `changes` are of test error and of seconds per epoch."""

    suite: str
    question: str
    machine: str  # what it was measured on, with which libraries
    cells: list[Cell]
    changes: list[Change]
    pairs: list[Pair]  # L7
    beside: list[Beside]

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": [cell.to_json() for cell in self.cells],
            "changes": [change.to_json() for change in self.changes],
            "equivalence": [pair.to_json() for pair in self.pairs],
            "published": [each.to_json() for each in self.beside],
        }


def over_seeds(run_dir: Path) -> OverSeeds:
    """The latest plan's. Raises `UserError` for a folder that is no run, or a damaged journal."""
    journal = Journal(run_dir)
    cells = of_run(journal)
    plan, margin = journal.plan(), cells[0].trial.parity.margin_pct
    pairs = compare([result for cell in cells for result in cell.results], margin)
    found = [*changes(cells, "test_err_pct", impls=False), *changes(cells, "epoch_s", impls=True)]
    return OverSeeds(
        str(plan["suite"]), str(plan.get("question") or ""), _machine(journal.environment()), cells, found, pairs, beside(cells)
    )  # fmt: skip


def _machine(environment: Mapping[str, Any]) -> str:
    """ "Measured on: Some CPU, 2 cores; Python 3.11.7, numpy 2.4.6, ...", of what is known."""
    parts = [environment.get("cpu"), f"{cores} cores" if (cores := environment.get("cores")) else None]
    gpus: Sequence[Any] = environment.get("gpus") or ()
    hardware = ", ".join(str(part) for part in (*parts, *gpus) if part)
    versions: dict[str, Any] = {"Python": environment.get("python"), **(environment.get("versions") or {})}
    software = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    told = "; ".join(filter(None, (hardware, software)))
    return f"Measured on: {told}" if told else ""


def mean(found: Summary | None, scale: float = 1.0, fixed: int | None = None) -> str:
    """ "0.28 ± 0.04": the mean and half its 95% interval; "0.28 (one seed)"; "0.28 (all 3)" where no seed differs.

    `fixed`: decimals of the mean; else three significant digits.
    """
    if found is None:
        return UNKNOWN
    value = found.mean * scale
    text = number(value) if fixed is None else f"{value:.{fixed}f}"
    if found.n == 1:
        return f"{text} (one seed)"
    if found.low is None:
        return f"{text} (all {found.n})"
    return f"{text} ± {number((found.mean - found.low) * scale, 2)}"


def cells_table(report: OverSeeds) -> Table:
    """A row a cell: over seeds the mean and half its 95% interval, beside the paper's and other reproductions'."""
    shown = [name for name in ("best_test_err_pct", "val_err_pct") if _there(report.cells, name)]
    columns = ["test_err_pct", *shown, "epoch_s", "compile_s", "peak_bytes"]
    varied = any(cell.params for cell in report.cells)
    theirs = [title for title, paper in _THEIRS.items() if any(each.source.paper is paper for each in report.beside)]
    table = _table(["impl", *(["setting"] if varied else [])], ["seeds", "test error %", "sd", *theirs])
    for name in columns[1:]:
        table.add_column(METRICS[name].title, justify="right", no_wrap=True)
    for cell in report.cells:
        error = cell.summary("test_err_pct")
        table.add_row(
            cell.impl, *([setting(cell.params)] if varied else []), cell.seeds, mean(error, fixed=2),
            number(error and error.sd, 2), *(_theirs(report.beside, cell, _THEIRS[title]) for title in theirs),
            *(mean(cell.summary(name), METRICS[name].scale, 2 if "err_pct" in name else None) for name in columns[1:]),
        )  # fmt: skip
    return table


def changes_table(found: Sequence[Change]) -> Table:
    """A row for every two cells that differ in one setting; of one metric, which were corrected together."""
    table = _table(["where", "from", "to"], ["difference", "95% interval", "p", "Holm's p", "seeds", "detectable"])
    table.add_column("finding", no_wrap=True)
    for change in found:
        test = change.test
        interval = (
            UNKNOWN if test.low is None or test.low == test.high else f"{_signed(test.low)} to {_signed(test.high)}"
        )
        impl = change.others.get("impl")
        rest = setting({key: value for key, value in change.others.items() if key != "impl"})
        table.add_row(
            ", ".join(filter(None, (impl, rest))) or "all", setting({change.key: change.value(change.a)}),
            setting({change.key: change.value(change.b)}), _signed(test.difference), interval, p_value(test.p),
            p_value(test.adjusted_p), _seeds(test), number(test.detectable, 2),
            verdict(change),
        )  # fmt: skip
    return table


def verdict(change: Change) -> str:
    """ "more", "less", "none shown", or why there is no test."""
    test = change.test
    if test.p is None:
        return "one seed" if test.n_a == test.n_b == 1 else "too few seeds"
    if not change.significant:
        return "none shown"
    return "more" if (test.difference or 0) > 0 else "less"


def published_table(report: OverSeeds) -> tuple[Table, list[str]]:
    """A row for each published figure beside each of our cells, and the notes that its last column numbers."""
    table = _table(["impl", "setting", "figure"], ["ours", "theirs"])
    for title in ("source", "not alike"):
        table.add_column(title, no_wrap=True)
    notes: dict[str, int] = {}
    for each in report.beside:
        figure = each.figure
        numbers = [str(notes.setdefault(text, len(notes) + 1)) for text in each.unlike]
        title = METRICS[figure.metric].title if not figure.images else f"s per {figure.images:,} images"
        table.add_row(
            each.cell.impl, setting(each.cell.params), title, mean(each.ours, fixed=None if figure.images else 2),
            theirs(each), f"{each.source.title.partition(':')[0]}, {figure.where}", ", ".join(numbers),
        )  # fmt: skip
    return table, [f"{index}: {text}" for text, index in notes.items()]


def theirs(each: Beside) -> str:
    """ "0.25 (sd 0.005, n 3)"."""
    figure = each.figure
    return f"{figure.value:g}" + (f" (sd {figure.sd:g}, n {figure.n})" if figure.sd else "")


def left_out(cells: Sequence[Cell]) -> list[str]:
    """A line for every trial that does not count, with the reason."""
    lines: list[str] = []
    for cell in cells:
        for result in cell.results:
            if result in cell.counted:
                continue
            why = "parity failed" if result.parity_ok is False else result.flaw or result.cause or result.status
            lines.append(f"{cell.name}, seed {result.seed} does not count: {why}")
    return lines


def p_value(p: float | None) -> str:
    if p is None:
        return UNKNOWN
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _theirs(found: Sequence[Beside], cell: Cell, paper: bool) -> str:
    """Their test errors: the paper's with its spread, others in order."""
    own = [
        each for each in found
        if each.cell is cell and each.source.paper is paper and each.figure.metric == "test_err_pct"
    ]  # fmt: skip
    if paper:
        return (
            ", ".join(f"{e.figure.value:g}" + (f" sd {e.figure.sd:g}" if e.figure.sd else "") for e in own) or UNKNOWN
        )
    return ", ".join(f"{value:g}" for value in sorted({each.figure.value for each in own})) or UNKNOWN


def _there(cells: Sequence[Cell], metric: str) -> bool:
    return any(cell.summary(metric) for cell in cells)


def _signed(value: float | None) -> str:
    return UNKNOWN if value is None else "0" if value == 0 else f"{'+' if value > 0 else ''}{number(value)}"


def _seeds(test: Difference) -> str:
    if test.paired and test.p is not None:
        return f"{test.n_a} pairs"
    return str(test.n_a) if test.n_a == test.n_b else f"{test.n_a}, {test.n_b}"


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in left:
        table.add_column(title, no_wrap=True)
    for title in right:
        table.add_column(title, justify="right", no_wrap=True)
    return table
