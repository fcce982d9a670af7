"""What all figures share: drawing without a window, titles, colours, mosaics of images."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from harness.analysis.labels import setting
from harness.views.figures.material import Material

TRAIN, VALIDATION, TEST = "#0072B2", "#D55E00", "#000000"
_GAP = 2  # white pixels between the images of a mosaic


def new_figure(material: Material, title: str, inches: tuple[float, float], dpi: int = 120) -> Any:
    """A figure headed by its trial and `title`. Made without pyplot: no window, and none of the caller's state."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=inches, dpi=dpi, layout="constrained")
    trial = material.trial
    settings = setting(trial.params)
    who = f"{trial.impl.rpartition(':')[2]}, seed {trial.seed}" + (f", {settings}" if settings else "")
    figure.suptitle(f"{trial.suite}: {who}\n{title}", fontsize=11)
    return figure


def mosaic_figure(title: str, rows: float, columns: int) -> Any:
    """A figure for mosaics of so many `rows` and `columns` of images, headed by `title`."""
    size = (1.2 + 0.97 * columns, 0.7 + 0.97 * rows)
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=size, dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def plain(axis: Any) -> Any:
    """An axis with a faint grid and no box."""
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def colormap(name: str) -> Any:
    return importlib.import_module("matplotlib").colormaps[name]


def save(figure: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a class's name in another script: boxes
        figure.savefig(path)
    return path


def short(name: str, most: int = 18) -> str:
    """A class's name, cut to what fits beside an axis; without what matplotlib would read as mathematics."""
    cut = name if len(name) <= most else f"{name[: most - 1]}…"
    return cut.replace("$", r"\$")


def mosaic(tiles: Float[np.ndarray, "R K H W C"]) -> Float[np.ndarray, "y x c"]:
    """R rows of K images (0..1) as one image, grey or in colour; other numbers of channels are averaged."""
    if tiles.shape[-1] not in (1, 3):
        tiles = tiles.mean(-1, keepdims=True)
    rows, columns, height, width, _ = tiles.shape
    framed = np.pad(tiles, [(0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)], constant_values=1.0)
    joined = framed.transpose(0, 2, 1, 3, 4).reshape(rows * (height + _GAP), columns * (width + _GAP), -1)
    return joined[:-_GAP, :-_GAP]


def show_mosaic(axis: Any, tiles: Float[np.ndarray, "R K H W C"], rows: list[str], columns: list[str]) -> None:
    """Draws the mosaic with a label for each row and each column."""
    height, width = tiles.shape[2:4]
    axis.imshow(mosaic(tiles.astype(float)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks([row * (height + _GAP) + height / 2 - 0.5 for row in range(len(rows))], rows)
    axis.set_xticks([column * (width + _GAP) + width / 2 - 0.5 for column in range(len(columns))], columns)
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)
