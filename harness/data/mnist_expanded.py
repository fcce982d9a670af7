"""MNIST digits placed at random on a black 40x40 canvas: the paper's training set for affNIST (section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import mnist
from harness.data.base import Info, Source, Split, kept_of, uniform

MARGIN = 6  # pixels on each side of a digit's image: 13 x 13 positions
_STREAM = 0x657870616E64  # "expand"
_VALIDATION, _TEST = 0, 1


@dataclass(frozen=True)
class Expanded:
    """The images of `digits` on a canvas `MARGIN` pixels wider on each side.

    Training images are centred, and shifted anew in each epoch by up to `info.shift`, unless the suite says otherwise.
    Each validation and test image has a fixed position, drawn once.
    """

    info: Info
    digits: Source

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches the digits. Raises `UserError`."""
        self.digits.ensure(directory, progress=progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part. Raises what reading the digits raises."""
        training, test = self.digits.read(directory)
        moving = len(training) - self.info.validation
        centre = np.full((moving, 2), MARGIN)
        places = np.concatenate([centre, _places(self.info.validation, _VALIDATION)])
        return _placed(training, places), _placed(test, _places(len(test), _TEST))

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """See `harness.data.kept.Kept`."""
        return kept_of(self.digits, directory)


def _places(count: int, part: int) -> np.ndarray:
    """(count, 2): the row and the column of the digits' upper left corners, each uniform over 0 .. 2 * MARGIN."""
    return (uniform(_STREAM, part, (count, 2)) * (2 * MARGIN + 1)).astype(np.int64)


def _placed(split: Split, places: np.ndarray) -> Split:
    count, height, width, channels = split.images.shape
    canvas = np.zeros((count, height + 2 * MARGIN, width + 2 * MARGIN, channels), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (height, width), axis=(1, 2), writeable=True)
    windows[np.arange(count), places[:, 0], places[:, 1]] = np.moveaxis(split.images, -1, 1)
    return Split(canvas, split.labels)


SOURCE = Expanded(
    Info(
        name="mnist-expanded",
        image=(40, 40, 1),
        classes=10,
        train=50_000,
        validation=10_000,  # the digits are divided as in affNIST
        test=10_000,
        embedded=False,
        source="MNIST digits on a black 40x40 canvas, for training in its middle (then shifted by data.augment.shift), "
        "else at a place drawn once",
        licence=mnist.SOURCE.info.licence,
        citation="Sabour, Frosst, Hinton: Dynamic Routing Between Capsules, NIPS 2017, section 5.2",
        files=mnist.FILES.sha256,
        made_of=("mnist training", "mnist test"),
        apart="its validation images have places of their own, its training images are shifted",
        shift=MARGIN,
    ),
    mnist.SOURCE,
)
