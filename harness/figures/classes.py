"""Which classes are taken for which: confusion matrix, precision, recall and F1, as a figure and as data."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from harness.figures.material import Material
from harness.figures.style import colormap, new_figure, save

_MOST_NUMBERS = 20  # classes for which every cell has its number


@dataclass(frozen=True)
class ClassRow:
    """One class. None: not defined, as the precision of a class that is never predicted."""

    label: int
    precision: float | None  # of the images said to be of the class, how many are
    recall: float | None  # of the images of the class, how many were said to be
    f1: float | None  # harmonic mean of the two
    support: int  # test images of the class


def confusion(labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int) -> Int[np.ndarray, "J J"]:
    """How many images of class (row) were said to be of class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def class_rows(matrix: Int[np.ndarray, "J J"]) -> list[ClassRow]:
    """The report on each class of a confusion matrix."""
    rows: list[ClassRow] = []
    for label, (hits, said, support) in enumerate(
        zip(np.diag(matrix).tolist(), matrix.sum(0).tolist(), matrix.sum(1).tolist(), strict=True)
    ):
        f1 = 2 * hits / (said + support) if said + support else None
        rows.append(ClassRow(label, hits / said if said else None, hits / support if support else None, f1, support))
    return rows


def draw_classes(material: Material, folder: Path) -> list[Path]:
    """confusion.png, of the whole test set; classes.csv and classes.json, the same as data."""
    predicted, labels = material.predictions
    matrix = confusion(labels, predicted, material.trial.model.classes)
    rows = class_rows(matrix)
    document = {
        "images": int(matrix.sum()),
        "right": int(np.trace(matrix)),
        "classes": [asdict(row) for row in rows],
        "confusion": matrix.tolist(),  # rows: true class; columns: predicted class
    }
    (folder / "classes.json").write_text(json.dumps(document, indent=2) + "\n")
    with (folder / "classes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return [_figure(material, matrix, rows, folder / "confusion.png"), folder / "classes.csv", folder / "classes.json"]


def _figure(material: Material, matrix: np.ndarray, rows: Sequence[ClassRow], path: Path) -> Path:
    wrong = int(matrix.sum() - np.trace(matrix))
    title = f"confusion of {matrix.sum():,} test images: {wrong:,} wrong ({100 * wrong / matrix.sum():.2f}%)"
    figure = new_figure(material, title, (10.5, 6.2))
    grid, table = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.9, 1]})
    _matrix(grid, matrix)
    _table(table, rows)
    return save(figure, path)


def _matrix(axis: Any, matrix: np.ndarray) -> None:
    """Mistakes in shades of orange, by their number; what is right in one blue, or no mistake could be seen."""
    mistakes = matrix * (1 - np.eye(len(matrix), dtype=int))
    cells = colormap("Oranges")(0.85 * mistakes / max(1, mistakes.max()))
    cells[mistakes == 0] = 1
    cells[np.eye(len(matrix), dtype=bool)] = (0.80, 0.88, 0.95, 1)
    axis.imshow(cells)
    if len(matrix) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8)
    step = 1 + len(matrix) // (_MOST_NUMBERS + 1)
    axis.set_xticks(range(0, len(matrix), step))
    axis.set_yticks(range(0, len(matrix), step))
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.tick_params(length=0)


def _table(axis: Any, rows: Sequence[ClassRow]) -> None:
    """A line a class, level with the matrix's."""
    titles = ("class", "precision %", "recall %", "F1 %", "images")
    shown = rows[:_MOST_NUMBERS]
    for column, title in enumerate(titles):
        axis.text(column, -0.9, title, ha="right", va="center", fontsize=9, weight="bold")
    for line, row in enumerate(shown):
        percents = (row.precision, row.recall, row.f1)
        texts = [str(row.label), *("-" if p is None else f"{100 * p:.2f}" for p in percents), f"{row.support:,}"]
        for column, text in enumerate(texts):
            axis.text(column, line, text, ha="right", va="center", fontsize=9)
    means = [np.mean([p for p in each if p is not None] or [np.nan]) for each in
             ([r.precision for r in rows], [r.recall for r in rows], [r.f1 for r in rows])]  # fmt: skip
    for column, text in enumerate(["mean", *(f"{100 * mean:.2f}" for mean in means)]):
        axis.text(column, len(shown) + 0.1, text, ha="right", va="center", fontsize=9, color="0.35")
    axis.set_xlim(-0.6, len(titles) - 0.9)
    axis.set_ylim(len(shown) + 0.5, -1.5)
    axis.axis("off")
