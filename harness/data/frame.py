"""The size at which images are used: `data.resize`, then `data.crop`, then `data.pad`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from harness.spec.trial import DataConfig, sides

if TYPE_CHECKING:
    from jaxtyping import UInt8


def is_framed(config: DataConfig) -> bool:
    """Whether the images are to be used at another size than their own."""
    return any(each is not None for each in (config.resize, config.crop, config.pad))


def framed_shape(image: tuple[int, int, int], config: DataConfig) -> tuple[int, int, int]:
    """Height, width and channels after resize, crop and pad. Raises `UserError` naming the key that does not fit."""
    height, width, channels = image
    if config.resize is not None:
        height, width = sides(config.resize)
    if config.crop is not None:
        cut = sides(config.crop)
        if cut[0] > height or cut[1] > width:
            raise UserError(
                f"data.crop: {_by(cut)} pixels, but the images are {_by((height, width))}: at most that; data.pad makes "
                "them larger, data.resize scales them"
            )
        height, width = cut
    if config.pad is not None:
        padded = sides(config.pad)
        if padded[0] < height or padded[1] < width:
            raise UserError(
                f"data.pad: {_by(padded)} pixels, but the images are {_by((height, width))}: at least that; data.crop makes "
                "them smaller, data.resize scales them"
            )
        height, width = padded
    return height, width, channels


def framed(images: UInt8[np.ndarray, "N *K H W C"], config: DataConfig) -> UInt8[np.ndarray, "N *K h w C"]:
    """The images after resize, crop and pad. Raises `UserError` as `framed_shape` does."""
    if not is_framed(config):
        return images
    *several, height, width, channels = images.shape
    flat = images.reshape(-1, height, width, channels)
    framed_shape((height, width, channels), config)
    if config.resize is not None and sides(config.resize) != (height, width):
        flat = np.stack([resized(each, config) for each in flat]) if len(flat) else _none(config, channels)
    if config.crop is not None:
        flat = _cut(flat, sides(config.crop))
    if config.pad is not None:
        flat = _padded(flat, sides(config.pad))
    return flat.reshape(*several, *flat.shape[1:])


def resized(image: UInt8[np.ndarray, "H W C"], config: DataConfig) -> UInt8[np.ndarray, "h w C"]:
    """One image scaled to `data.resize`: bilinear, and smoothed where it gets smaller, as Pillow does it."""
    height, width = sides(config.resize or 0)
    if image.shape[:2] == (height, width):
        return image
    pillow: Any = importlib.import_module("PIL.Image")
    operations: Any = importlib.import_module("PIL.ImageOps")
    picture = pillow.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    bilinear = pillow.Resampling.BILINEAR
    match config.fit:
        case "crop":
            scaled = operations.fit(picture, (width, height), bilinear)
        case "pad":
            scaled = operations.pad(picture, (width, height), bilinear, color=0)
        case _:
            scaled = picture.resize((width, height), bilinear)
    return np.asarray(scaled, np.uint8).reshape(height, width, image.shape[2])


def in_words(config: DataConfig) -> str:
    """ ", scaled to 32x32, cut to 24x24"; "" if nothing of that is asked for."""
    said = ""
    if config.resize is not None:
        how = {"stretch": "", "crop": ", sides cut off", "pad": ", on black"}[config.fit]
        said += f", scaled to {_by(sides(config.resize))}{how}"
    said += f", cut to the middle {_by(sides(config.crop))}" if config.crop is not None else ""
    return said + (f", padded to {_by(sides(config.pad))}" if config.pad is not None else "")


def _cut(images: np.ndarray, to: tuple[int, int]) -> np.ndarray:
    """The middle; if that is between two pixels, above and left of it."""
    top, left = (images.shape[1] - to[0]) // 2, (images.shape[2] - to[1]) // 2
    return images[:, top : top + to[0], left : left + to[1]]


def _padded(images: np.ndarray, to: tuple[int, int]) -> np.ndarray:
    down, across = to[0] - images.shape[1], to[1] - images.shape[2]
    return np.pad(images, [(0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)])


def _none(config: DataConfig, channels: int) -> np.ndarray:
    return np.zeros((0, *sides(config.resize or 0), channels), np.uint8)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
