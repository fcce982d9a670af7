"""Data sets published as four IDX files (the format of MNIST): a training part and a test part, images and labels."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.base import Info, Split
from harness.data.files import CorruptFile, FileSet, ensure, kept_files, read_all
from harness.data.idx_header import MOST_AXES, TYPES, UINT8, wrong_length
from harness.sniff import UNKNOWN, what_are, with_remedy


def parse(content: bytes, name: str, any_type: bool = False) -> np.ndarray:
    """An IDX file's array, of uint8 unless `any_type`. Raises `CorruptFile` if magic, dimensions or length disagree."""
    types = {*TYPES} if any_type else {UINT8}
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in types or not 1 <= content[3] <= MOST_AXES:
        found = what_are(content)
        expected, magic = ("an IDX file", "0x0000") if any_type else ("an IDX file of uint8", "0x000008NN")
        raise CorruptFile(
            f"{name}: not {expected} (starts with 0x{content[:4].hex()}, not {magic})"
            + (f"; it is {with_remedy(found)}." if found != UNKNOWN else ".")
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise CorruptFile(f"{name}: the IDX header ends after {len(content)} bytes; it needs {start}.")
    shape, dtype = struct.unpack_from(f">{content[3]}I", content, 4), np.dtype(TYPES[content[2]])
    if len(content) - start != math.prod(shape) * dtype.itemsize:
        raise CorruptFile(
            f"{name}: {math.prod(shape) * dtype.itemsize:,} bytes expected after the header {shape}, found "
            f"{len(content) - start:,}: the file is {wrong_length(content)}."
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class IdxSource:
    """`files` in the order training images, training labels, test images, test labels."""

    info: Info
    files: FileSet

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches the files missing from `directory`; if none are, writes nothing there. Raises `UserError`."""
        ensure(self.read, self.files, directory, progress=progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, checked against `info`. Raises `MissingFiles` or `CorruptFile`."""
        contents = read_all(self.files, directory)
        images, labels, test_images, test_labels = (parse(contents[name], name) for name in self.files.sha256)
        return (
            self._part(images, labels, self.info.train + self.info.validation, "training"),
            self._part(test_images, test_labels, self.info.test, "test"),
        )

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """See `harness.data.kept.Kept`."""
        return kept_files(self.files, directory)

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
