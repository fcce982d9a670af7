"""The images that implementations are compared on: some of the trial's own, and drawn ones that reveal faults."""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import Int, UInt8

from harness.spec import ModelSpec

OWN = 4  # of the trial's own images, the first of those staged
LARGEST = 32  # drawn images: one for every class, up to this many
BRIGHTEST = 250  # of drawn images except the white one: not every batch has a white pixel
_BOUNDARIES = (255, 256, 65_535, 65_536)  # indices around the limits of narrower integer types


def drawn(
    model: ModelSpec, image: tuple[int, ...] | None = None
) -> tuple[UInt8[np.ndarray, "M H W C"], Int[np.ndarray, " M"]]:
    """Images and labels, the same in every run: black, white, a lit frame, noise in every pixel; every label occurs.

    Digits have black borders, so a shift that wraps around or repeats the edge looks right. These images have none.
    They are of the size `image`, if it is given.
    """
    generator = np.random.Generator(np.random.Philox(key=[0, zlib.crc32(b"drawn")]))
    count = min(max(model.classes, 6), LARGEST)
    images = generator.integers(0, 256, (count, *(image or model.image))).astype(np.uint8)
    images = np.minimum(images, BRIGHTEST)
    images[0], images[1] = 0, 255
    images[2, 1:-1, 1:-1] = 0
    for each in images[4::2]:  # half dark, as digits are; the border stays lit
        each[1:-1, 1:-1] *= generator.random((*each[1:-1, 1:-1].shape[:2], 1)) < 0.4
    labels = generator.permutation(max(model.classes, count))[:count] % model.classes
    return images, labels


def staged(
    model: ModelSpec, images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"]
) -> tuple[UInt8[np.ndarray, "M H W C"], Int[np.ndarray, " M"]]:
    """What an implementation stages for the comparison: the trial's own images, followed by the drawn ones."""
    more_images, more_labels = drawn(model, images.shape[1:])
    return np.concatenate([images, more_images]), np.concatenate([labels, more_labels.astype(labels.dtype)])


def repeated(
    images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"], largest_bytes: int = 64 << 20
) -> tuple[UInt8[np.ndarray, "M H W C"], Int[np.ndarray, " M"]]:
    """The images repeated until their indices need more than 16 bits; unchanged if that would take much memory."""
    times = -(-(_BOUNDARIES[-1] + 1) // len(labels))
    if times * images.nbytes > largest_bytes:
        return images, labels
    return np.tile(images, (times, 1, 1, 1)), np.tile(labels, times)


def chosen(model: ModelSpec, staged: int) -> Int[np.ndarray, " n"]:
    """Indices of the compared images among `staged` ones: the first, the last, those around every boundary."""
    own = staged - len(drawn(model)[1])
    indices = [*range(min(OWN, own)), *(index for index in _BOUNDARIES if index < own), own - 1, *range(own, staged)]
    return np.array(list(dict.fromkeys(indices)))
