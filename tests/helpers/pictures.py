"""Small pictures for tests of one's own data: classes that differ in colour, so that a few steps of training tell them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = ("blue", "green", "red")


def picture(seed: int, colour: int = 0, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    """A noisy picture, bright in channel `2 - colour`: blue, green, red."""
    pixels = np.random.Generator(np.random.Philox(key=[0, seed])).integers(0, 90, (*size, 3), dtype=np.uint8)
    pixels[..., 2 - colour] += 150
    return pixels


def class_folders(top: Path, each: int = 10, size: tuple[int, int] = (8, 8), first: int = 0) -> Path:
    """A folder of PNG pictures for each of `COLOURS`; `first` makes other ones."""
    for colour, name in enumerate(COLOURS):
        (top / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            save(top / name / f"{number}.png", picture(first + 1000 * colour + number, colour, size))
    return top


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Writes the picture in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def arrays(each: int = 10, size: tuple[int, int] = (6, 6), classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures uint8 (N, H, W) and labels: classes by brightness, mixed."""
    labels = np.arange(each * classes) % classes
    noise = np.random.Generator(np.random.Philox(key=[0, 5])).integers(0, 40, (len(labels), *size), dtype=np.uint8)
    return (noise + (labels * 200 // classes).astype(np.uint8)[:, None, None]).astype(np.uint8), labels
