"""Which classes are confused: confusion matrix, precision, recall and F1, as a figure and as data."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from harness.spec import is_right
from harness.views.figures.material import Material
from harness.views.figures.style import colormap, new_figure, save, short

_MOST_NUMBERS = 20  # classes; up to here every cell shows its number


@dataclass(frozen=True)
class ClassRow:
    """One class. None: not defined, such as the precision of a class that is never predicted."""

    label: int
    precision: float | None  # the share of images predicted as this class that belong to it
    recall: float | None  # the share of this class's images that were predicted as such
    f1: float | None  # harmonic mean of precision and recall
    support: int  # test images of the class
    name: str


def confusion(
    labels: Int[np.ndarray, " N *K"], predicted: Int[np.ndarray, " N *K"], classes: int
) -> Int[np.ndarray, "J J"]:
    """How many images of class (row) were predicted as class (column).

    For images that show K > 1 digits it counts digits. A digit that was found counts as right. Each missed digit is
    paired with a wrongly predicted one: the first label with the longest capsule.
    """
    matrix = np.zeros((classes, classes), np.int64)
    if labels.ndim == 1:
        np.add.at(matrix, (labels, predicted), 1)
        return matrix
    for true, said in zip(labels.tolist(), predicted.tolist(), strict=True):
        found = [(each, each) for each in true if each in said]
        missed, imagined = [each for each in true if each not in said], [each for each in said if each not in true]
        for row, column in [*found, *zip(missed, imagined, strict=True)]:
            matrix[row, column] += 1
    return matrix


def class_rows(matrix: Int[np.ndarray, "J J"], names: Sequence[str] = ()) -> list[ClassRow]:
    """One row for each class of a confusion matrix; without `names`, these are numbers."""
    names = names or [str(label) for label in range(len(matrix))]
    rows: list[ClassRow] = []
    for label, (hits, said, support) in enumerate(
        zip(np.diag(matrix).tolist(), matrix.sum(0).tolist(), matrix.sum(1).tolist(), strict=True)
    ):
        f1 = 2 * hits / (said + support) if said + support else None
        rows.append(
            ClassRow(
                label, hits / said if said else None, hits / support if support else None, f1, support, names[label]
            )
        )
    return rows


def draw_classes(material: Material, folder: Path) -> list[Path]:
    """confusion.png for the whole test set; classes.csv and classes.json hold the same as data."""
    predicted, labels = material.predictions
    matrix = confusion(labels, predicted, material.trial.model.classes)
    rows = class_rows(matrix, material.names)
    right = int(is_right(predicted, labels).sum())
    document = {
        "images": len(labels),
        "right": right,
        "classes": [asdict(row) for row in rows],
        "confusion": matrix.tolist(),  # rows: true class; columns: predicted class
    }
    (folder / "classes.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    with (folder / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    wrong = len(labels) - right
    title = f"confusion of {len(labels):,} test images: {wrong:,} wrong ({100 * wrong / len(labels):.2f}%)"
    if labels.ndim > 1:
        title += f", {int(matrix.sum()):,} digits: {int(matrix.sum() - np.trace(matrix)):,} wrong"
    return [
        _figure(material, title, matrix, rows, folder / "confusion.png"),
        folder / "classes.csv",
        folder / "classes.json",
    ]


def _figure(material: Material, title: str, matrix: np.ndarray, rows: Sequence[ClassRow], path: Path) -> Path:
    figure = new_figure(material, title, (10.5, 6.4))
    axis = figure.subplots()
    classes, told = len(matrix), len(matrix) <= _MOST_NUMBERS
    axis.imshow(_cells(matrix))
    edges = np.arange(-0.5, classes)
    axis.hlines(edges, -0.5, classes - 0.5, color="0.88", lw=0.6)
    axis.vlines(edges, -0.5, classes - 0.5, color="0.88", lw=0.6)
    step = 1 if told else 1 + classes // _MOST_NUMBERS
    names = [short(row.name) for row in rows[::step]]
    is_long = max(map(len, names)) > 3
    axis.set_xticks(range(0, classes, step), names, rotation=45 if is_long else 0, ha="right" if is_long else "center")
    axis.set_yticks(range(0, classes, step), names)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlim(-0.55, 1.72 * classes)
    axis.set_ylim(classes - 0.45, -0.5 - 0.1 * classes)
    axis.set_xlabel("predicted class", x=0.5 / 1.72)
    axis.set_ylabel("true class")
    if told:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                dark = row != column and count > 0.6 * _most_mistakes(matrix)
                axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
        _table(axis, rows)
    return save(figure, path)


def _cells(matrix: np.ndarray) -> np.ndarray:
    """Mistakes in shades of orange, by count. Right predictions are plain blue, or they would hide the mistakes."""
    cells = colormap("Oranges")(0.85 * matrix / _most_mistakes(matrix))
    cells[matrix == 0] = 1
    cells[np.eye(len(matrix), dtype=bool)] = (0.80, 0.88, 0.95, 1)
    return cells


def _most_mistakes(matrix: np.ndarray) -> int:
    return max(1, int((matrix - np.diag(np.diag(matrix))).max()))


def _table(axis: Any, rows: Sequence[ClassRow]) -> None:
    """To the right of the matrix: each class beside its row, and the means over classes below."""
    columns = {
        "precision %": [row.precision for row in rows],
        "recall %": [row.recall for row in rows],
        "F1 %": [row.f1 for row in rows],
    }
    count = len(rows)

    def write(column: int, line: float, text: str, **style: Any) -> None:
        axis.text((1.19 + 0.17 * column) * count - 0.5, line, text, ha="right", va="center", fontsize=9, **style)

    head, foot = -0.5 - 0.05 * count, count - 0.5 + 0.05 * count
    for column, (title, values) in enumerate(columns.items()):
        write(column, head, title, weight="bold")
        for line, value in enumerate(values):
            write(column, line, "-" if value is None else f"{100 * value:.2f}")
        known = [value for value in values if value is not None]
        write(column, foot, f"{100 * sum(known) / len(known):.2f}" if known else "-", color="0.35")
    write(3, head, "images", weight="bold")
    write(3, foot, "mean", color="0.35")
    for line, row in enumerate(rows):
        write(3, line, f"{row.support:,}")
