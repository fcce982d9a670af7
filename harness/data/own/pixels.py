"""Arrays of pictures as files have them -> uint8 (N, H, W, C): arrangements, scales and types, each told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.data.own.collected import Arrays, Part
from harness.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import UInt8

_LIKE_16_BITS = 4_096
"""In numbers of another type, a highest pixel below that is an error among those of 8 bits rather than one of 16 bits."""


def as_pictures(
    parts: dict[Part, Arrays], channels: int | None
) -> tuple[dict[Part, UInt8[np.ndarray, "N H W C"]], list[str]]:
    """The pictures of all parts in one arrangement and scale, and notes on what was changed.

    Raises `UserError` if they are no pictures, differ in size from part to part, or have pixels of an unknown scale.
    """
    notes: list[str] = []
    for arrays in parts.values():
        if arrays.images.dtype.kind not in "biuf":
            raise UserError(f"{arrays.source}: pixels of type {arrays.images.dtype}; expected numbers from 0 to 255")
        if not arrays.images.size:
            raise UserError(f"{arrays.source}: there is no picture in it")
    arranged = {part: _arranged(arrays, notes) for part, arrays in parts.items()}
    shapes = {part: images.shape[1:] for part, images in arranged.items()}
    if len({*shapes.values()}) > 1:
        said = "; ".join(f"{parts[part].source}: {_by(shape)}" for part, shape in shapes.items())
        raise UserError(f"pictures of different sizes: {said}. All have to be of one size")
    scale = _scale(parts, notes)
    pictures = {part: _channels(_uint8(images, scale), channels, notes) for part, images in arranged.items()}
    return pictures, list(dict.fromkeys(notes))


def _arranged(arrays: Arrays, notes: list[str]) -> np.ndarray:
    """(N, H, W, C), with 1 or 3 channels."""
    images, source = arrays.images, arrays.source
    if images.ndim == 2:
        side = round((images.shape[1]) ** 0.5)
        if side * side != images.shape[1]:
            raise UserError(
                f"{source}: each picture is a row of {images.shape[1]:,} numbers, which is no square; give an array of "
                "N x height x width, or N x height x width x 3"
            )
        return images.reshape(-1, side, side, 1)
    if images.ndim == 3:
        return images[..., np.newaxis]
    if images.ndim != 4:
        raise UserError(
            f"{source}: an array of {_by(images.shape)}; expected pictures, N x height x width or N x height x width x 3"
        )
    last, second = images.shape[3], images.shape[1]
    if last in (1, 3) and (second not in (1, 3) or min(images.shape[1:3]) > 3):
        return images
    if second in (1, 3) and last not in (1, 3):
        notes.append(f"{source}: channels come first there ({_by(images.shape)}); they were put last")
        return np.moveaxis(images, 1, -1)
    if last == 4:
        raise UserError(f"{source}: 4 channels ({_by(images.shape)}): remove the last one, alpha, first")
    raise UserError(
        f"{source}: an array of {_by(images.shape)}; expected 1 or 3 channels, as N x height x width x channels"
    )


def _scale(parts: dict[Part, Arrays], notes: list[str]) -> float:
    """The factor to 0..255, one for all parts."""
    low, high = 0.0, 0.0
    is_float = False
    for arrays in parts.values():
        images = arrays.images
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise UserError(f"{arrays.source}: pixels that are no numbers (NaN or infinite)")
        low, high = min(low, float(images.min())), max(high, float(images.max()))
        is_float |= images.dtype.kind == "f" and bool((images != np.rint(images)).any())
    source = parts["train"].source
    if low < 0:
        raise UserError(
            f"{source}: pixels from {low:g} to {high:g}; expected 0 to 255, or 0 to 1. Undo the normalisation: the models "
            "take pixels as they are"
        )
    if all(arrays.images.dtype.kind == "b" for arrays in parts.values()):
        return 255.0
    if high <= 1 and (high > 0):
        notes.append(
            f"{source}: pixels from 0 to 1 were multiplied by 255"
            + ("" if is_float else ": they are 0 and 1 only, so black and white")
        )
        return 255.0
    if high <= 255:
        if is_float:
            notes.append(f"{source}: pixels from 0 to {high:g} as fractions were rounded to whole numbers")
        return 1.0
    has_16_bits = all(arrays.images.dtype.itemsize == 2 for arrays in parts.values()) or high >= _LIKE_16_BITS
    if high <= 65_535 and not is_float and has_16_bits:
        notes.append(f"{source}: 16-bit pixels, up to {high:,.0f}, were divided by 257 to 0..255")
        return 1 / 257
    raise UserError(f"{source}: pixels from 0 to {high:g}; expected 0 to 255, 0 to 1, or 16-bit whole numbers")


def _uint8(images: np.ndarray, scale: float) -> UInt8[np.ndarray, "N H W C"]:
    if scale == 1.0 and images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    out = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 4096):  # a few at a time: floats take eight times the memory
        block = images[start : start + 4096].astype(np.float64) * scale
        out[start : start + 4096] = np.rint(block).clip(0, 255).astype(np.uint8)
    return out


def _channels(images: np.ndarray, channels: int | None, notes: list[str]) -> np.ndarray:
    found = images.shape[3]
    if channels is None or channels == found:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    notes.append("colours were made grey (data.channels: 1)")
    return grey(images)


def grey(images: UInt8[np.ndarray, "*N H W 3"]) -> UInt8[np.ndarray, "*N H W 1"]:
    """Luma as in ITU-R 601, in the whole numbers that Pillow uses."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((images.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
