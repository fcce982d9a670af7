"""Test errors over seeds as a PNG: one row per cell, with its seeds, mean, 95% interval, and published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.analysis.cells import Cell
from harness.analysis.labels import color
from harness.analysis.published import Beside
from harness.analysis.seeds import OverSeeds

_METRIC = "test_err_pct"
_ROW_INCHES = 0.34


def draw_errors(report: OverSeeds, figure: Any, path: Path) -> Path:
    """Draws into the Matplotlib `figure` and writes it to `path`; at least one cell must have a test error."""
    cells = [cell for cell in report.cells if cell.values(_METRIC)]
    figure.set_size_inches(9, 1.7 + _ROW_INCHES * len(cells))
    axis = figure.subplots()
    for row, cell in enumerate(cells):
        _ours(axis, row, cell)
        own = [each for each in report.beside if each.cell is cell and each.figure.metric == _METRIC]
        for each in sorted(own, key=lambda each: each.source.paper):  # the paper's above the others'
            _theirs(axis, row, each)
    axis.set_yticks(range(len(cells)), [cell.name for cell in cells])
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_xlim(left=max(0.0, axis.get_xlim()[0]))  # an interval may reach below zero, an error cannot
    axis.set_xlabel("test error %")
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    handles: dict[str, Any] = {}
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
        handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8
    )
    figure.suptitle(f"{report.suite}: test error over seeds", fontsize=10)
    figure.savefig(path)
    return path


def _ours(axis: Any, row: int, cell: Cell) -> None:
    values, found = list(cell.values(_METRIC).values()), cell.summary(_METRIC)
    shade = color(cell.impl)
    axis.plot(values, [row] * len(values), "o", ms=5, mfc="none", color=shade, alpha=0.8, label="one seed")
    if found and found.low is not None:
        half = found.mean - found.low
        axis.errorbar(found.mean, row, xerr=half, fmt="s", ms=6, capsize=4, color=shade, label="mean, 95% interval")


def _theirs(axis: Any, row: int, each: Beside) -> None:
    figure, y = each.figure, row - 0.22 if each.source.paper else row + 0.22  # beside our points, not over them
    if each.source.paper:
        label = "paper, sd" if figure.sd else "paper"
        axis.errorbar(figure.value, y, xerr=figure.sd, fmt="D", ms=4, capsize=2, lw=1, color="black", label=label)
    else:
        axis.plot(figure.value, y, "|", ms=7, color="0.4", label="other reproductions")
