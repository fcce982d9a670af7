"""A picture as the model takes it: its size, its channels, light or dark. Whatever is done is said."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import UInt8

from harness.data.own.picture import require_pillow
from harness.data.own.pixels import grey
from harness.prediction.pictures import Picture, Unreadable

Fit = Literal["pad", "crop", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)


@dataclass(frozen=True)
class Framing:
    """How a data set's own images were made the model's: scaled, cut, or centred on a black canvas."""

    size: tuple[int, int] | None  # height and width of the data set's images; None: any
    apply: Callable[[UInt8[np.ndarray, "h w C"]], UInt8[np.ndarray, "H W C"]]
    said: str


def fitted(
    picture: Picture,
    image: tuple[int, int, int],
    fit: Fit | None = None,
    invert: bool = False,
    framing: Framing | None = None,
) -> tuple[UInt8[np.ndarray, "H W C"], tuple[str, ...]]:
    """The picture with the model's height, width and channels, and what was done to it, in order.

    One that has this size is left as it is. Any other is treated as the data set's images were, `framing`: if these had
    one size, it is first given that. Without framing, or if `fit` is given and decides, "pad" keeps the whole picture and
    its aspect ratio, centred, and fills what remains with the median of its border; "crop" keeps the aspect ratio and
    cuts the longer side; "stretch" does not keep it. Sizes change by Pillow's Lanczos filter.

    Raises `Unreadable` for channels that cannot be converted.
    """
    pixels, said = _channels(picture.pixels, image[2])
    notes = [*picture.notes, *said]
    if pixels.shape[:2] == image[:2] or (fit and framing and framing.size is None):
        framing = None
    size = framing.size if framing else image[:2]
    if size and pixels.shape[:2] != size:
        pixels, how = _resized(pixels, size, fit or "pad")
        notes.append(how)
    if invert:
        pixels = 255 - pixels
        notes.append("inverted")
    if framing:
        pixels = framing.apply(pixels)
        notes.append(framing.said)
    return np.ascontiguousarray(pixels), tuple(notes)


def border(pixels: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, " C"]:
    """The median of the outermost pixels, for each channel: what the background is."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return np.median(edge, axis=0).astype(np.uint8)


def _channels(pixels: np.ndarray, wanted: int) -> tuple[np.ndarray, list[str]]:
    found = pixels.shape[2]
    if found == wanted:
        return pixels, []
    if (found, wanted) == (3, 1):
        if (pixels == pixels[..., :1]).all():  # grey, stored as colour
            return pixels[..., :1], []
        return grey(pixels), ["colour to grey"]
    if (found, wanted) == (1, 3):
        return np.repeat(pixels, 3, axis=2), ["grey to colour"]
    raise Unreadable(f"it has {found} channels, the model takes {wanted}")


def _resized(pixels: np.ndarray, size: tuple[int, int], fit: Fit) -> tuple[np.ndarray, str]:
    """The picture at `size` (height, width), and how."""
    (old_height, old_width), (height, width) = pixels.shape[:2], size
    was = f"{old_height}x{old_width}"
    if fit == "stretch":
        return _scaled(pixels, size), f"{was} stretched to {height}x{width}"
    ratios = height / old_height, width / old_width
    ratio = min(ratios) if fit == "pad" else max(ratios)
    inner = max(1, round(old_height * ratio)), max(1, round(old_width * ratio))
    scaled = _scaled(pixels, inner)
    resized = f"{was} resized to {inner[0]}x{inner[1]}" if inner != (old_height, old_width) else was
    if inner == size:
        return scaled, resized
    if fit == "crop":
        top, left = (inner[0] - height) // 2, (inner[1] - width) // 2
        return scaled[top : top + height, left : left + width], f"{resized}, cut to {height}x{width}"
    filled = np.broadcast_to(border(pixels), (height, width, pixels.shape[2])).copy()
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    filled[top : top + inner[0], left : left + inner[1]] = scaled
    return filled, f"{resized}, padded to {height}x{width}"


def _scaled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels.shape[:2] == size:
        return pixels
    require_pillow()
    library: Any = importlib.import_module("PIL.Image")
    channels = [
        library.fromarray(np.ascontiguousarray(pixels[..., each])).resize(
            (size[1], size[0]), library.Resampling.LANCZOS
        )
        for each in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(each) for each in channels], axis=-1)
