"""A picture as the model takes it: its size, its channels, light or dark. Whatever is done is said."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8

from harness.prediction.pictures import Picture, Unreadable, pillow

Fit = Literal["pad", "crop", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # ITU-R BT.601, times 2^16, as Pillow has it


def fitted(
    picture: Picture,
    image: tuple[int, int, int],
    fit: Fit = "pad",
    invert: bool = False,
    within: tuple[int, int] | None = None,
) -> tuple[UInt8[np.ndarray, "H W C"], tuple[str, ...]]:
    """The picture with the model's height, width and channels, and what was done to it, in order.

    "pad" keeps the whole picture and its aspect ratio, centred; what remains is filled with the median of its border.
    "crop" keeps the aspect ratio and cuts the longer side; "stretch" does not keep it. Sizes change by Pillow's Lanczos
    filter. If the model's images are smaller ones on a black canvas, `within` is their height and width, and so is the
    picture made; one that already has the canvas's size is left as it is. Raises `Unreadable` for channels that cannot
    be converted.
    """
    pixels, said = _channels(picture.pixels, image[2])
    notes = [*picture.notes, *said]
    canvas = image[:2]
    size = canvas if within is None or pixels.shape[:2] == canvas else within
    if pixels.shape[:2] != size:
        pixels, how = _resized(pixels, size, fit)
        notes.append(how)
    if invert:
        pixels = 255 - pixels
        notes.append("inverted")
    if size != canvas:
        pixels = _placed(pixels, np.zeros((*canvas, pixels.shape[2]), np.uint8))
        notes.append(f"centred on black, {canvas[0]}x{canvas[1]}")
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
        return ((pixels @ _LUMA + 0x8000) >> 16).astype(np.uint8)[..., None], ["colour to grey"]
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
    ground = np.broadcast_to(border(pixels), (height, width, pixels.shape[2])).copy()
    return _placed(scaled, ground), f"{resized}, padded to {height}x{width}"


def _placed(pixels: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """`ground` with `pixels` in its middle; if that is between two pixels, above and left of it."""
    top, left = ((whole - part) // 2 for whole, part in zip(ground.shape[:2], pixels.shape[:2], strict=True))
    ground[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return ground


def _scaled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels.shape[:2] == size:
        return pixels
    library = pillow()
    channels = [
        library.fromarray(np.ascontiguousarray(pixels[..., each])).resize(
            (size[1], size[0]), library.Resampling.LANCZOS
        )
        for each in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(each) for each in channels], axis=-1)
