"""affNIST's recipe: random affine transforms of 28x28 digits on a black 40x40 canvas, the same bytes on every machine.

T. Tieleman, https://www.cs.toronto.edu/~tijmen/affNIST/: rotation by up to 20 degrees either way, shear by up to 0.2,
both scales from 0.8 to 1.2, and a position uniform over all that keep the whole digit on the canvas.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from harness.data.base import Split, uniform

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, UInt8

COPIES = 32  # per digit
SIDE, _SOURCE = 40, 28
_CENTRE = (_SOURCE - 1) / 2
_MAX_DEGREES, _MAX_SHEAR, _SCALES = 20.0, 0.2, (0.8, 1.2)
_STREAM = 0x616666696E65  # "affine"
_DRAWS = 6  # rotation, shear, horizontal and vertical scale, horizontal and vertical position
_SLACK = 0.01  # pixels: more than fixed-point rounding can move an edge
_ONE = 1 << 16  # fixed point: matrices in 16 binary digits, bilinear weights in 8
_TASK, _CHUNK = 4096, 64  # digits per thread at a time; digits whose arrays fit in a core's cache


def transformed(digits: Split, part: int) -> Iterator[Split]:
    """All digits in order, `COPIES` times over, each copy under its own transform.

    Args:
        digits: images (N, 28, 28, 1).
        part: selects the random numbers; different parts get different ones.
    """
    draws = uniform(_STREAM, part, (COPIES, len(digits), _DRAWS))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    under_way: deque[tuple[Future[np.ndarray], np.ndarray]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for drawn in draws:
            for start in range(0, len(digits), _TASK):
                here = slice(start, start + _TASK)
                task = pool.submit(render, digits.images[here, :, :, 0], drawn[here])
                under_way.append((task, digits.labels[here]))
                if len(under_way) > 2 * cores:
                    yield _finished(*under_way.popleft())
        while under_way:
            yield _finished(*under_way.popleft())


def _finished(task: Future[np.ndarray], labels: np.ndarray) -> Split:
    return Split(task.result()[..., np.newaxis], labels)


def render(images: UInt8[np.ndarray, "N 28 28"], draws: Float64[np.ndarray, "N 6"]) -> UInt8[np.ndarray, "N 40 40"]:
    """Each image under the transform selected by its numbers from [0, 1)."""
    forward = matrices(draws[:, :4])
    place = _places(images, forward, draws[:, 4:])
    inverse = np.linalg.inv(forward)
    origin = _CENTRE - np.einsum("nij,nj->ni", inverse, place)  # where output pixel (0, 0) comes from
    fixed, start = (np.rint(array * _ONE).astype(np.int64) for array in (inverse, origin))
    out = np.empty((len(images), SIDE, SIDE), np.uint8)
    for at in range(0, len(images), _CHUNK):
        chunk = slice(at, at + _CHUNK)
        out[chunk] = _resample(images[chunk], fixed[chunk], start[chunk])
    return out


def matrices(draws: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 2 2"]:
    """Scale, then shear, then rotation, of (x right, y down) about the digit's centre."""
    angle = np.radians(_MAX_DEGREES) * (2 * draws[:, 0] - 1)
    shear = _MAX_SHEAR * (2 * draws[:, 1] - 1)
    across, down = (_SCALES[0] + (_SCALES[1] - _SCALES[0]) * draws[:, column] for column in (2, 3))
    cos, sin = np.cos(angle), np.sin(angle)
    first = np.stack([cos * across, (cos * shear - sin) * down], axis=-1)
    second = np.stack([sin * across, (sin * shear + cos) * down], axis=-1)
    return np.stack([first, second], axis=1)


def _places(images: np.ndarray, forward: np.ndarray, draws: np.ndarray) -> Float64[np.ndarray, "N 2"]:
    """Where each digit's centre goes, (x, y): uniform over all positions that keep every inked pixel on the canvas."""
    ink: np.ndarray = images > 0
    rows: np.ndarray = np.any(ink, axis=2)
    left, right = ink.argmax(axis=2), _SOURCE - 1 - ink[:, :, ::-1].argmax(axis=2)
    ends = np.stack([left, right], axis=-1) - _CENTRE  # (N, rows, 2): the ink's extremes are among the rows' ends
    heights = np.arange(_SOURCE) - _CENTRE
    places: list[np.ndarray] = []
    for axis in (0, 1):
        x, y = forward[:, axis, 0, None, None], forward[:, axis, 1, None, None]
        reached = x * ends + y * heights[:, None]
        # Bilinear weights reach one pixel of the source further.
        further = np.abs(forward[:, axis]).sum(axis=1) + _SLACK
        blank = ~rows.any(axis=1)
        low: np.ndarray = np.where(blank, 0, np.where(rows[..., None], reached, np.inf).min(axis=(1, 2))) - further
        high: np.ndarray = np.where(blank, 0, np.where(rows[..., None], reached, -np.inf).max(axis=(1, 2))) + further
        first, last = -1 - low, SIDE - high
        # A digit larger than the canvas (MNIST has none) is cut equally on both sides.
        places.append(np.where(first < last, first + draws[:, axis] * (last - first), (first + last) / 2))
    return np.stack(places, axis=-1)


def _resample(
    images: UInt8[np.ndarray, "N 28 28"], inverse: Int64[np.ndarray, "N 2 2"], start: Int64[np.ndarray, "N 2"]
) -> UInt8[np.ndarray, "N 40 40"]:
    """Bilinear resampling in integers, black beyond the images; `inverse` and `start` are in units of 1 / 65536."""
    count = len(images)
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2)]).astype(np.uint32)
    # Each entry holds the four pixels that meet there, low byte first: upper left, upper right, lower left, lower right
    corners = padded[:, :-1, :-1] | padded[:, :-1, 1:] << 8 | padded[:, 1:, :-1] << 16 | padded[:, 1:, 1:] << 24
    width = corners.shape[2]
    steps = np.arange(SIDE)
    x, y = (
        (
            start[:, axis, None, None]
            + inverse[:, axis, 0, None, None] * steps
            + inverse[:, axis, 1, None, None] * steps[:, None]
            + (2 * _ONE + 128)  # the padding, and rounding to 8 digits
        ).astype(np.int32)
        for axis in (0, 1)
    )
    column, row = np.clip(x >> 16, 0, width - 1), np.clip(y >> 16, 0, width - 1)
    index = row * width + column + (np.arange(count, dtype=np.int32) * width**2)[:, None, None]
    four = np.empty(index.shape, np.uint32)
    np.take(corners, index, out=four, mode="clip")  # clip: never needed, but faster than a check
    right, down = ((each >> 8).astype(np.uint32) & 255 for each in (x, y))
    # Upper and lower pixels side by side in 16 bits each.
    pairs = (four & 0x00FF00FF) * (256 - right) + (four >> 8 & 0x00FF00FF) * right
    mixed = (pairs & 0xFFFF) * (256 - down) + (pairs >> 16) * down
    return (mixed + _ONE // 2 >> 16).astype(np.uint8)
