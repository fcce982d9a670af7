"""The pictures of a run's trials, made small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import progress
from harness.analysis.cells import Cell
from harness.analysis.labels import setting
from harness.journal.journal import FOLDER, Journal

_BUDGET = 4_000_000
"""Bytes of pictures in a page, before they are written as text."""
_LARGE = 160_000  # bytes of a PNG that is made smaller
_WIDEST = 1400  # pixels
_NAMES = {
    "confusion": "Which digit is taken for which",
    "reconstructions": "Test images and their reconstructions",
    "perturbations": "What each dimension of a capsule does",
    "lengths": "Lengths of the capsules",
    "entropy": "How sure the routing is",
    "routing_logits": "How much each routing iteration changes",
    "learning": "Learning curves",
}


@dataclass(frozen=True)
class Picture:
    """A picture as a data: address, and what it shows."""

    name: str
    alt: str
    address: str


@dataclass(frozen=True)
class Album:
    """The pictures of one trial."""

    title: str
    pictures: Sequence[Picture]


def albums(journal: Journal, cells: Sequence[Cell], budget: int = _BUDGET) -> tuple[list[Album], list[str]]:
    """The finished trials' pictures, as far as `budget` bytes go: first one seed of each cell, then the next.

    Returns them, and in words what is left out.
    """
    found: list[Album] = []
    left: list[str] = []
    for cell, index in progress.track(_in_turns(cells), "taking in pictures"):
        result = cell.counted[index]
        folder = journal.trial_dir(result.id) / FOLDER
        paths = sorted(folder.glob("*.png"), key=lambda path: _place(path.stem))
        if not paths:
            continue
        if budget <= 0:
            left.append(result.id)
            continue
        title = ", ".join(filter(None, (result.impl, setting(result.params), f"seed {result.seed}")))
        pictures: list[Picture] = []
        for path in paths:
            if made := _small(path):
                kind, content = made
                budget -= len(content)
                name = _NAMES.get(path.stem, path.stem.replace("_", " "))
                address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
                pictures.append(Picture(name, f"{name}: {title}", address))
        if pictures:
            found.append(Album(f"{title} ({result.id})", pictures))
    if not left:
        return found, []
    return found, [
        f"Pictures of {len(left)} more trials are in the run directory, in trials/ID/{FOLDER}: {', '.join(left)}"
    ]


def _in_turns(cells: Sequence[Cell]) -> list[tuple[Cell, int]]:
    most = max((len(cell.counted) for cell in cells), default=0)
    return [(cell, index) for index in range(most) for cell in cells if index < len(cell.counted)]


def _place(stem: str) -> tuple[int, str]:
    names = list(_NAMES)
    return (names.index(stem) if stem in names else len(names), stem)


def _small(path: Path) -> tuple[str, bytes] | None:
    """Its format and content, smaller if it is large; None for what is no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            if len(content) <= _LARGE:
                picture.verify()
                return "png", content
            picture.thumbnail((_WIDEST, 4 * _WIDEST))
            out = io.BytesIO()
            picture.convert("RGB").save(out, "WEBP", quality=72, method=2)
            return "webp", out.getvalue()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
