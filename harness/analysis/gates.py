"""The gates of a run as a matrix: for each level of the ladder and each implementation, the worst tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.cells import Cell
from harness.analysis.rows import parity_rows
from harness.journal.journal import Journal


@dataclass(frozen=True)
class Gate:
    """The tensor nearest to its tolerance, or furthest beyond it, among all trials of an implementation at one level."""

    level: str
    impl: str
    tensor: str
    rel_err: float | None  # None: not finite
    tolerance: float
    trial: str
    compared: int  # tensors, over all trials
    beyond: int  # how many of them are beyond their tolerance

    @property
    def share(self) -> float:
        """The error in units of its tolerance; up to 1 is good."""
        if self.rel_err is None:
            return math.inf
        return self.rel_err / self.tolerance if self.tolerance else math.inf * bool(self.rel_err)

    @property
    def is_ok(self) -> bool:
        """Whether no tensor is beyond its tolerance."""
        return not self.beyond

    def to_json(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "level": self.level, "impl": self.impl, "worst_tensor": self.tensor, "rel_err": self.rel_err,
            "tolerance": self.tolerance, "trial": self.trial, "compared": self.compared, "beyond": self.beyond,
        }  # fmt: skip


def matrix(journal: Journal, cells: Sequence[Cell]) -> list[Gate]:
    """By level, then in the order of the plan. Trials whose gate was off or left no values are not in it."""
    found: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for cell in cells:
        for result in cell.results:
            for row in parity_rows(journal, journal.trial(result.id)):
                found.setdefault((row["level"], cell.impl), []).append((result.id, row))
    impls = list(dict.fromkeys(cell.impl for cell in cells))
    return sorted(_worst(found), key=lambda gate: (gate.level, impls.index(gate.impl)))


def _worst(found: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]]) -> Iterator[Gate]:
    for (level, impl), rows in found.items():
        beyond = sum(not row["ok"] for _, row in rows)
        gates = (
            Gate(level, impl, row["tensor"], row["rel_err"], row["tolerance"], trial, len(rows), beyond)
            for trial, row in rows
        )
        yield max(gates, key=lambda gate: gate.share)
