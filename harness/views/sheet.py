"""Contact sheets: what a data set looks like, as one PNG per split with a labelled row for each class."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import PartialSource, class_names, data_dir, load, resolved, source
from harness.data.base import Split
from harness.data.files import MissingFiles
from harness.data.overlay import composite
from harness.data.own import FORMATS
from harness.disk import obstacle
from harness.errors import UserError
from harness.spec.trial import DataConfig
from harness.views.figures.style import save, short

COLUMNS = 12
_SIDE_INCHES = 0.55
_MOST_ROWS = 100  # classes: more make a picture that nothing opens


def show(config: DataConfig, out: Path) -> dict[str, Any]:
    """Draws `<out stem>-train.png`, `-validation.png` and `-test.png`: the first images of each class.

    If an image shows several digits, its class is the first digit's. Training images are then single digits, which
    every epoch overlays anew. If only the test part is on this machine, only that is drawn. Returns, as JSON-able
    values, the name, the provenance, notes on one's own pictures, and for each split its size, the number of images of
    each class, and its sheet. Raises `UserError` if the data set is not there, matplotlib is not installed or `out`
    cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError('contact sheets need matplotlib, which is not installed: pip install "capsbench[report]"')
    config = resolved(config)
    names, (provenance, parts) = class_names(config), _parts(config)
    splits: dict[str, Any] = {}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for part, split in parts.items():
            path = out.with_name(f"{out.stem}-{part}.png")
            _draw(split, names, f"{config.name}, {part}: {len(split):,} images", path)
            counts = np.bincount(split.labels.ravel(), minlength=len(names)).tolist()
            per_class = dict(zip(names, counts, strict=True))
            splits[part] = {"images": len(split), "per_class": per_class, "sheet": str(path)}
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {obstacle(out.parent) or error.strerror}; choose a place with --out"
        ) from error
    notes = list(config.own.notes) if config.own else []
    return {"name": config.name, "provenance": provenance, "notes": notes, "splits": splits}


def _parts(config: DataConfig) -> tuple[str, dict[str, Split]]:
    """Where the images come from, and the splits that are on this machine."""
    try:
        whole = load(config)
    except MissingFiles:
        found = None if config.name in FORMATS else source(config.name)
        if not isinstance(found, PartialSource):
            raise
        test = found.read_test(data_dir(config.dir))
        return f"{found.info.source}: {len(test):,} test images; the training part is not here", {"test": test}
    return whole.provenance, {"train": whole.train, "validation": whole.validation, "test": whole.test}


def _draw(split: Split, names: Sequence[str], title: str, path: Path) -> None:
    # Without pyplot: no window, and none of the caller's state.
    if len(names) > _MOST_ROWS:
        title += f"; the first {_MOST_ROWS} of {len(names):,} classes"
    names = names[:_MOST_ROWS]
    size = (_SIDE_INCHES * (COLUMNS + 2), _SIDE_INCHES * (len(names) + 1))
    figure: Any = importlib.import_module("matplotlib.figure").Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(len(names), 1)
    for label, (axis, name) in enumerate(zip(axes, names, strict=True)):
        firsts = split.labels.reshape(len(split), -1)[:, 0]  # if there are several digits
        chosen = np.flatnonzero(firsts == label)[:COLUMNS]
        axis.imshow(
            _row(composite(split.images[chosen]), split.images.shape[-3:]),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
        )
        axis.set_ylabel(short(name), rotation=0, ha="right", va="center", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def _row(images: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """Up to `COLUMNS` images side by side, separated by grey lines."""
    height, width, channels = image
    row = np.full((height, COLUMNS * (width + 1) - 1, channels), 128, np.uint8)
    for index, each in enumerate(images):
        row[:, index * (width + 1) : index * (width + 1) + width] = each
    return row if channels == 3 else row[..., 0]
