"""Overlaid digits: which digits make up an image of several, drawn once for validation and test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.data.base import Info, Split, uniform
from harness.errors import UserError
from harness.spec.plans import overlays

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

_STREAM = 0x6F7665726C6179  # "overlay"


def overlaid(info: Info, split: Split, part: int) -> Split:
    """Groups each of N single digits with others of other classes from its split, each shifted by up to `info.shift`.

    Digits and shifts are drawn once for each `part`. Raises `UserError` if the split has too few classes.
    """
    draws = uniform(_STREAM, part, (len(split), 3 * info.overlaid - 1))
    try:
        chosen = overlays(split.labels, draws[:, : info.overlaid - 1])
    except ValueError as error:
        raise UserError(f"{info.name}: {error}; ask for more images.") from error
    shifts = (draws[:, info.overlaid - 1 :] * (2 * info.shift + 1)).astype(np.int64) - info.shift
    moved = shifted(split.images[chosen.ravel()], shifts.reshape(-1, 2), info.shift)
    return Split(moved.reshape(*chosen.shape, *moved.shape[1:]), split.labels[chosen])


def composite(images: UInt8[np.ndarray, "N *K H W C"]) -> UInt8[np.ndarray, "N H W C"]:
    """What the network sees: the sum of the digits, clipped at 255 (section 6.1)."""
    return images if images.ndim == 4 else images.sum(1, dtype=np.uint16).clip(max=255).astype(np.uint8)


def shifted(
    images: UInt8[np.ndarray, "N H W C"], shifts: Int[np.ndarray, "N 2"], most: int
) -> UInt8[np.ndarray, "N H W C"]:
    """Each image moved (down, right) by its own number of whole pixels, at most `most`; new pixels are zero."""
    _, height, width, _ = images.shape
    padded = np.pad(images, [(0, 0), (most, most), (most, most), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    moved = windows[np.arange(len(images)), most - shifts[:, 0], most - shifts[:, 1]]
    return np.ascontiguousarray(np.moveaxis(moved, 1, -1))
