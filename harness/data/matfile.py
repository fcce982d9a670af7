"""MATLAB files of version 5, read through SciPy: any damage raises `CorruptFile`."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from harness.data.base import Split
from harness.data.files import CorruptFile
from harness.sniff import UNKNOWN, remedy, what_are


def variables(content: bytes, name: str, *wanted: str) -> dict[str, Any]:
    """The `wanted` variables of a MATLAB file's content. Raises `CorruptFile` that calls it `name`."""
    # Imported here: otherwise SciPy would cost every trial a quarter of a second, whatever its data.
    scipy_io: Any = importlib.import_module("scipy.io")
    try:
        found: dict[str, Any] = scipy_io.loadmat(io.BytesIO(content), variable_names=wanted)
    except Exception as error:  # damaged files raise a dozen different ones
        what = what_are(content)
        said = error if what in (UNKNOWN, "a MATLAB file of version 5") else f"it is {what}"
        advice = f"; {told}" if (told := remedy(what)) else ""
        raise CorruptFile(f"{name}: truncated, corrupt or not a MATLAB file of version 5 ({said}){advice}.") from None
    if absent := [each for each in wanted if each not in found]:
        there = ", ".join(each for each in found if not each.startswith("__")) or "nothing"
        raise CorruptFile(f"{name}: no variable {' and no '.join(absent)} in it; {there} found.")
    return found


def checked(images: np.ndarray, labels: np.ndarray, image: tuple[int, int, int], classes: int, name: str) -> Split:
    """N images and labels as a `Split`. Raises `CorruptFile` calling them `name` if shape, type or a label is wrong."""
    if images.dtype != np.uint8 or images.shape[1:] != image or labels.shape != (len(images),):
        raise CorruptFile(
            f"{name}: uint8 images {('N', *image)} and as many labels expected, "
            f"found {images.dtype} {images.shape} and {labels.shape}."
        )
    if not len(images):
        raise CorruptFile(f"{name}: there is no image in it.")
    if wrong := [label for label in np.unique(labels).tolist() if label not in range(classes)]:
        raise CorruptFile(f"{name}: a label of {wrong[0]}; expected 0 to {classes - 1}.")
    return Split(images, labels.astype(np.int64))
