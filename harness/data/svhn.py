"""SVHN, cropped: 73,257 + 26,032 house-number digits, 32x32 in colour; the last 5,000 of the former for validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.base import Info, Split
from harness.data.files import CorruptFile, FileSet, ensure, kept_files, read_all
from harness.data.matfile import checked, variables

FILES = FileSet(
    name="svhn",
    sha256={
        "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    },
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    exact=True,
    elsewhere=("SVHN",),  # torchvision's
)


@dataclass(frozen=True)
class MatSource:
    """`files` in the order training part, test part: each has images X (H, W, C, N) and labels y, where 10 means 0."""

    info: Info
    files: FileSet

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches the files missing from `directory`. Raises `UserError`."""
        ensure(self.read, self.files, directory, progress=progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, checked against `info`. Raises `MissingFiles` or `CorruptFile`."""
        contents = read_all(self.files, directory)
        training, test = self.files.sha256
        expected = self.info.train + self.info.validation, self.info.test
        return self._part(contents, training, expected[0]), self._part(contents, test, expected[1])

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """See `harness.data.kept.Kept`."""
        return kept_files(self.files, directory)

    def _part(self, contents: dict[str, bytes], name: str, count: int) -> Split:
        found = variables(contents[name], name, "X", "y")
        images, labels = found["X"], found["y"].reshape(-1).astype(np.int64)
        if images.ndim != 4 or images.shape[-1] != count:
            raise CorruptFile(f"{name}: {count:,} images along the last of 4 axes expected, found {images.shape}.")
        if labels.size and labels.min() < 1:
            raise CorruptFile(
                f"{name}: a label of {labels.min()}; expected 1 to {self.info.classes}, the last for zero."
            )
        labels = np.where(labels == self.info.classes, 0, labels)
        upright = np.ascontiguousarray(np.moveaxis(images, -1, 0))
        return checked(upright, labels, self.info.image, self.info.classes, name)


SOURCE = MatSource(
    Info(
        name="svhn",
        image=(32, 32, 3),
        classes=10,
        train=68_257,
        validation=5_000,
        test=26_032,
        embedded=False,
        source="SVHN (Netzer and others), the published cropped digits, verified as they are",
        licence="non-commercial use only",
        citation="Netzer, Wang, Coates, Bissacco, Wu, Ng: Reading Digits in Natural Images with Unsupervised Feature "
        "Learning, NIPS Workshop on Deep Learning and Unsupervised Feature Learning, 2011",
        files=FILES.sha256,
    ),
    FILES,
)
