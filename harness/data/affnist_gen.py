"""affNIST's recipe applied to the MNIST on this machine. For the published images see `affnist`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import mnist
from harness.data.affine import COPIES, SIDE, transformed
from harness.data.base import Info, Source, Split
from harness.data.files import CorruptFile, MissingFiles
from harness.data.packed import Pack

_VERSION = 1  # of the recipe: incremented whenever its images change
_TRAIN, _VALIDATION, _TEST = 0, 1, 2  # select the random numbers


@dataclass(frozen=True)
class Generated:
    """`COPIES` transforms of every image in `digits`, made when first needed and kept in `<directory>/<name>/`."""

    info: Info
    digits: Source

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Makes what is missing or damaged; fetches the digits for it. Raises `UserError`."""
        self.ensure_test(directory, progress=progress)
        self._make(self._training(directory), directory, progress)

    def ensure_test(self, directory: Path, *, progress: bool) -> None:
        """Like `ensure`, for the test part only."""
        self._make(self._test(directory), directory, progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, memory-mapped. Raises `MissingFiles` or `CorruptFile`."""
        return self._training(directory).read(), self.read_test(directory)

    def read_test(self, directory: Path) -> Split:
        return self._test(directory).read()

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """See `harness.data.kept.Kept`."""
        packs = [self._test(directory), *([] if test_only else [self._training(directory)])]
        return {f"{self.info.name}/{path.name}": path for pack in packs for path in pack.files}

    def _training(self, directory: Path) -> Pack:
        return self._pack(directory, "training", self.info.train + self.info.validation)

    def _test(self, directory: Path) -> Pack:
        return self._pack(directory, "test", self.info.test)

    def _pack(self, directory: Path, part: str, count: int) -> Pack:
        ingredients = json.dumps([_VERSION, sorted(self.info.files.items())]).encode()
        recipe = f"version {_VERSION}, {hashlib.sha256(ingredients).hexdigest()[:16]}"
        return Pack(directory / self.info.name, part, self.info.image, count, recipe)

    def _make(self, pack: Pack, directory: Path, progress: bool) -> None:
        try:
            pack.read()
        except (MissingFiles, CorruptFile):
            self.digits.ensure(directory, progress=progress)
            pack.write(self._blocks(pack.part, directory), progress=progress)

    def _blocks(self, part: str, directory: Path) -> Iterator[Split]:
        training, test = self.digits.read(directory)
        if part == "test":
            yield from transformed(test, _TEST)
            return
        validating = self.info.validation // COPIES  # the last of the digits
        first = np.arange(len(training) - validating)
        yield from transformed(training.take(first), _TRAIN)
        yield from transformed(training.take(np.arange(len(first), len(training))), _VALIDATION)


SOURCE = Generated(
    Info(
        name="affnist-gen",
        image=(SIDE, SIDE, 1),
        classes=10,
        train=50_000 * COPIES,
        validation=10_000 * COPIES,
        test=10_000 * COPIES,
        embedded=False,
        source="generated here from MNIST by affNIST's recipe (not the published affNIST)",
        licence=mnist.SOURCE.info.licence,
        citation="the recipe: T. Tieleman, affNIST, https://www.cs.toronto.edu/~tijmen/affNIST/, 2013",
        files=mnist.FILES.sha256,
        made_of=("mnist training", "mnist test"),
        apart=f"{COPIES} images come from each digit, and the splits would overlap",
    ),
    mnist.SOURCE,
)
