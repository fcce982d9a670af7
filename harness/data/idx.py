"""Data sets published as four IDX files (the format of MNIST): a training part and a test part, images and labels."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.base import Info, Split
from harness.data.files import CorruptFile, FileSet, MissingFiles, read_all

_UINT8 = 0x08


def parse(content: bytes, name: str) -> np.ndarray:
    """An IDX file's array of uint8. Raises `CorruptFile` naming the file if magic, dimensions or length disagree."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UINT8 or content[3] == 0:
        raise CorruptFile(f"{name}: not an IDX file of bytes (starts with 0x{content[:4].hex()}, not 0x000008NN).")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise CorruptFile(f"{name}: the IDX header ends after {len(content)} bytes; it needs {start}.")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    if len(content) - start != math.prod(shape):
        raise CorruptFile(
            f"{name}: {math.prod(shape):,} bytes expected after the header {shape}, found {len(content) - start:,}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


@dataclass(frozen=True)
class IdxSource:
    """`files` in the order training images, training labels, test images, test labels."""

    info: Info
    files: FileSet

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches the files missing from `directory`; if none are, writes nothing there. Raises `UserError`."""
        try:
            self.read(directory)
        except MissingFiles:
            from harness.data.net.download import fetch

            fetch(self.files, directory, progress=progress)
            self.read(directory)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, checked against `info`. Raises `MissingFiles` or `CorruptFile`."""
        contents = read_all(self.files, directory)
        images, labels, test_images, test_labels = (parse(contents[name], name) for name in self.files.sha256)
        return (
            self._part(images, labels, self.info.train + self.info.validation, "training"),
            self._part(test_images, test_labels, self.info.test, "test"),
        )

    def _part(self, images: np.ndarray, labels: np.ndarray, count: int, part: str) -> Split:
        height, width, _ = self.info.image
        if images.shape != (count, height, width) or labels.shape != (count,):
            raise CorruptFile(
                f"{self.info.name}, {part} part: images {(count, height, width)} and labels {(count,)} expected, "
                f"found {images.shape} and {labels.shape}."
            )
        if labels.max() >= self.info.classes:
            raise CorruptFile(f"{self.info.name}, {part} part: a label of {labels.max()}; {self.info.classes} classes.")
        return Split(images[..., np.newaxis], labels.astype(np.int64))
