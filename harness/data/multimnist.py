"""MultiMNIST: two overlaid MNIST digits of different classes, 36x36 pixels (the paper's section 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import mnist
from harness.data.base import Info, Source, Split, kept_of

MARGIN = 4  # pixels on each side of a digit's image; also the largest shift


@dataclass(frozen=True)
class Overlaid:
    """The separate digits of `digits`, each centred on a black image `MARGIN` pixels wider on each side.

    They are overlaid later: training digits on the device, by each epoch's plan; those for validation and test once, by
    `harness.data.overlay`.
    """

    info: Info
    digits: Source

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches the digits. Raises `UserError`."""
        self.digits.ensure(directory, progress=progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part. Raises what reading the digits raises."""
        training, test = self.digits.read(directory)
        return framed(training), framed(test)

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """See `harness.data.kept.Kept`."""
        return kept_of(self.digits, directory)


def framed(split: Split) -> Split:
    """Each digit centred on a larger black image."""
    around = (MARGIN, MARGIN)
    return Split(np.pad(split.images, [(0, 0), around, around, (0, 0)]), split.labels)


SOURCE = Overlaid(
    Info(
        name="multimnist",
        image=(36, 36, 1),
        classes=10,
        train=50_000,
        validation=10_000,  # as many as the paper used to choose its baseline's decay
        test=10_000,
        embedded=False,
        source="two MNIST digits of different classes and the same split, each shifted by up to 4 pixels, added and clipped; "
        "each digit is once the first of a pair: for training anew each epoch, for validation and test once for all",
        licence=mnist.SOURCE.info.licence,
        citation="Sabour, Frosst, Hinton: Dynamic Routing Between Capsules, NIPS 2017, section 6.1",
        files=mnist.FILES.sha256,
        made_of=("mnist training", "mnist test"),
        apart="its validation pairs are drawn once, from digits of their own",
        shift=MARGIN,
        overlaid=2,
    ),
    mnist.SOURCE,
)
