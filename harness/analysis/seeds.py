"""A run over its seeds: cells with intervals, their differences, equivalence of frameworks, published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.cells import Cell, Change, changes, of_run
from harness.analysis.equivalence import Pair, compare
from harness.analysis.images import ImageRow, answers_of, between
from harness.analysis.published import Beside, beside
from harness.journal.journal import Journal
from harness.journal.results import Result


@dataclass(frozen=True)
class OverSeeds:
    """Cells in the plan's order, and what follows from them. `changes` are in test error and in seconds per epoch."""

    suite: str
    question: str
    machine: str  # what it was measured on, and with which libraries
    cells: list[Cell]
    changes: list[Change]
    images: list[ImageRow]  # test errors image by image
    pairs: list[Pair]  # L7
    beside: list[Beside]

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": [cell.to_json() for cell in self.cells],
            "changes": [change.to_json() for change in self.changes],
            "images": [row.to_json() for row in self.images],
            "equivalence": [pair.to_json() for pair in self.pairs],
            "published": [each.to_json() for each in self.beside],
        }


def over_seeds(run_dir: Path) -> OverSeeds:
    """The results of the latest plan. Raises `UserError` for a folder without a run, or a damaged journal."""
    journal = Journal(run_dir)
    cells = of_run(journal)
    plan, margin = journal.plan(), cells[0].trial.parity.margin_pct if cells else 0.0
    pairs = compare([result for cell in cells for result in cell.results], margin)
    found = [*changes(cells, "test_err_pct", impls=False), *changes(cells, "epoch_s", impls=True)]
    return OverSeeds(
        str(plan["suite"]),
        str(plan.get("question") or ""),
        _machine(journal.environment()),
        cells,
        found,
        between(cells, answers_of(run_dir, cells)),
        pairs,
        beside(cells),
    )


def _machine(environment: Mapping[str, Any]) -> str:
    """ "Measured on: Some CPU, 2 cores; Python 3.11.7, numpy 2.4.6, ...", as far as known."""
    parts = [environment.get("cpu"), f"{cores} cores" if (cores := environment.get("cores")) else None]
    gpus: Sequence[Any] = environment.get("gpus") or ()
    hardware = ", ".join(str(part) for part in (*parts, *gpus) if part)
    versions: dict[str, Any] = {"Python": environment.get("python"), **(environment.get("versions") or {})}
    software = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    environments: Mapping[str, Mapping[str, Any]] = environment.get("environments") or {}
    others = [_other_python(name, each) for name, each in environments.items()]
    told = "; ".join(filter(None, (hardware, software, *others)))
    return f"Measured on: {told}" if told else ""


def _other_python(name: str, each: Mapping[str, Any]) -> str:
    """ "torch@2.12: Python 3.11.7, torch 2.12.1" of an implementation with a Python of its own."""
    versions: dict[str, Any] = {"Python": each.get("python"), **(each.get("versions") or {})}
    return f"{name}: " + ", ".join(f"{library} {version}" for library, version in versions.items() if version)


def left_out(cells: Sequence[Cell]) -> list[str]:
    """One line for every trial that does not count, with the reason."""
    lines: list[str] = []
    for cell in cells:
        for result in cell.results:
            if result in cell.counted:
                continue
            lines.append(f"{cell.name}, seed {result.seed} does not count: {_why(result)}")
    return lines


def left_out_together(cells: Sequence[Cell]) -> list[str]:
    """The same, a line for all seeds of a cell that do not count for the same reason."""
    lines: list[str] = []
    for cell in cells:
        by_reason: dict[str, list[int]] = {}
        for result in cell.results:
            if result not in cell.counted:
                by_reason.setdefault(_why(result), []).append(result.seed)
        for why, seeds in by_reason.items():
            which = f"seed {seeds[0]} does" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))} do"
            lines.append(f"{cell.name}, {which} not count: {why}")
    return lines


def _why(result: Result) -> str:
    return "parity failed" if result.parity_ok is False else result.flaw or result.cause or result.status
