"""Predictions as people and programs read them: a table, CSV, JSON, and a sheet of pictures and reconstructions."""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from harness import models
from harness.disk import finite
from harness.prediction.predict import Prediction, Problem, score_meaning, score_name
from harness.prediction.trained import Trained
from harness.spec import ModelSpec
from harness.views.figures.style import mosaic_figure, save, show_mosaic

SHEET = 60
"""Pictures in a sheet at most."""
ROWS = 40
"""Pictures in a table at most."""
_ACROSS = 10
_CAPTION = 14  # characters of a file's name

Said = Sequence[Prediction | Problem]


def table(trained: Trained, said: Said) -> Table:
    """One row per picture, the first `ROWS`: its class, how sure, and the class that comes next."""
    names, score = trained.class_names, score_name(trained.model)
    has_lengths = models.of(trained.model).has_capsules
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("picture", "class"):
        shown.add_column(title, no_wrap=True)
    for title in (score, *(("normalised",) if has_lengths else ())):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("next", no_wrap=True)
    for each in said[:ROWS]:
        if isinstance(each, Problem):
            shown.add_row(Text(each.name), Text("cannot be read", "red"), *[""] * (1 + has_lengths), Text(each.why))
            continue
        scores = each.scores
        after = int(np.argsort(-scores, kind="stable")[len(each.classes) % len(scores)])
        labels: list[int] = each.classes.tolist()
        own = [f"{scores[label]:.3f}" for label in labels]
        share = [f"{scores[label] / max(float(scores.sum()), 1e-12):.3f}" for label in labels]
        shown.add_row(
            Text(each.name), Text(" + ".join(names[label] for label in labels)), " + ".join(own),
            *([" + ".join(share)] if has_lengths else ()), Text(f"{names[after]} {scores[after]:.3f}"),
        )  # fmt: skip
    return shown


def remarks(trained: Trained, said: Said) -> list[str]:
    """What the table cannot show: how pictures were fitted, how many there are of each class."""
    found = [each for each in said if isinstance(each, Prediction)]
    lines: list[str] = []
    if len(said) > ROWS:
        lines.append(f"... and {len(said) - ROWS:,} more; all of them: --csv FILE, or --json")
        counts = Counter(label for each in found for label in each.classes.tolist())
        listed = ", ".join(f"{trained.class_names[label]}: {count:,}" for label, count in counts.most_common(20))
        lines.append(f"{len(found):,} pictures; {listed}")
    fits = Counter("; ".join(each.notes) for each in found if each.notes)
    lines += [f"fitted, {count:,} picture{'s' * (count > 1)}: {how}" for how, count in fits.most_common(5)]
    if len(fits) > 5:
        lines.append(f"fitted in {len(fits) - 5} other ways: --csv and --json say how, for each picture")
    return lines


def as_csv(trained: Trained, said: Said) -> str:
    """One line per picture; `score_K` is that of class K, counted from 0."""
    model = trained.model
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    own = ("normalised",) if models.of(model).has_capsules else ()
    scores = [f"score_{label}" for label in range(model.classes)]
    writer.writerow(["file", "class", "name", "score", *own, *scores, "fitted", "problem"])
    for each in said:
        if isinstance(each, Problem):
            writer.writerow([each.name, *[""] * (3 + len(own) + model.classes + 1), each.why])
            continue
        row = _row(trained, each)
        cells = [_joined(row[key]) for key in ("class", "name", "score", *own)]
        writer.writerow([each.name, *cells, *row["scores"], "; ".join(each.notes), ""])
    return out.getvalue()


def _joined(value: Any) -> Any:
    return " + ".join(map(str, value)) if isinstance(value, list) else value  # pyright: ignore


def as_json(trained: Trained, said: Said) -> dict[str, Any]:
    """The entries of `predict --json` that tell of the pictures."""
    return finite(
        {
            "model": trained.described(),
            "score": score_name(trained.model),
            "score_means": score_meaning(trained.model),
            "class_names": list(trained.class_names),
            "predictions": [_row(trained, each) for each in said if isinstance(each, Prediction)],
            "problems": [{"file": each.name, "why": each.why} for each in said if isinstance(each, Problem)],
        }
    )


def _row(trained: Trained, each: Prediction) -> dict[str, Any]:
    """One picture. If the model's images show several digits, "class", "name" and "score" are lists."""
    raw: list[float] = each.scores.tolist()
    scores = [round(score, 7) for score in raw]
    classes: list[int] = each.classes.tolist()
    total = max(sum(scores), 1e-12)
    row: dict[str, Any] = {
        "file": each.name,
        "class": classes,
        "name": [trained.class_names[label] for label in classes],
        "score": [scores[label] for label in classes],
    }
    if models.of(trained.model).has_capsules:
        row["normalised"] = [round(scores[label] / total, 7) for label in classes]
    if trained.model.overlaid == 1:
        row = {key: value[0] if isinstance(value, list) else value for key, value in row.items()}  # pyright: ignore
    return {**row, "scores": scores, "fitted": list(each.notes)}


def draw_sheet(trained: Trained, said: Said, path: Path) -> None:
    """Draws the first `SHEET` pictures as the network sees them, above their reconstructions if there is a decoder.

    Raises `OSError` if the file cannot be written.
    """
    found = [each for each in said if isinstance(each, Prediction)]
    shown = found[:SHEET]
    lines = [shown[start : start + _ACROSS] for start in range(0, len(shown), _ACROSS)]
    rows = _rows(trained.model, shown)
    several = f"the first {len(shown)} of {len(found):,} pictures" if len(shown) < len(found) else "pictures"
    what = "and their reconstructions" if len(rows) > 1 else "as the network sees them (the model has no decoder)"
    who = " ".join(str(trained.facts[key]) for key in ("suite", "trial") if trained.facts.get(key))
    height, across = len(lines) * (len(rows) + 0.55), min(_ACROSS, max(4, len(shown)))
    figure = mosaic_figure(_plain(f"{who or trained.path}\n{several} {what}"), height, across)
    axes = figure.subplots(len(lines), 1, squeeze=False)[:, 0]
    for axis, line in zip(axes, lines, strict=True):
        tiles = np.stack([_column(each) for each in line], axis=1)[: len(rows)]
        blank = [(0, 0), (0, min(_ACROSS, len(shown)) - len(line)), *[(0, 0)] * 3]  # all images of the same size
        show_mosaic(axis, np.pad(tiles, blank, constant_values=1.0), rows, [_caption(trained, each) for each in line])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks
        save(figure, path)


def _rows(model: ModelSpec, shown: Sequence[Prediction]) -> list[str]:
    if not shown or shown[0].reconstruction is None:
        return ["picture"]
    if model.overlaid == 1:
        return ["picture", "reconstructed"]
    return ["picture", *(f"digit {number}\nreconstructed" for number in range(1, model.overlaid + 1))]


def _column(each: Prediction) -> np.ndarray:
    """The picture, then its reconstructions: (R, H, W, C) in 0..1."""
    pixels = each.pixels[None] / 255
    return pixels if each.reconstruction is None else np.concatenate([pixels, each.reconstruction])


def _caption(trained: Trained, each: Prediction) -> str:
    name = Path(each.name).name
    name = name if len(name) <= _CAPTION else f"...{name[3 - _CAPTION :]}"
    said = [f"{trained.class_names[label][:_CAPTION]} {each.scores[label]:.2f}" for label in each.classes]
    return _plain("\n".join([name, *said]))


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: what stands between two dollars would be taken for a formula."""
    return text.replace("$", r"\$")
