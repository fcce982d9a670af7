"""CIFAR-10: 50,000 + 10,000 pictures of ten kinds of things, 32x32 in colour; the last 5,000 of the former for validation."""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.base import Info, Split
from harness.data.files import CorruptFile, FileSet, MissingFiles, ensure, kept_files, read_all

_ARCHIVE = "cifar-10-binary.tar.gz"
_INSIDE = "cifar-10-batches-bin"  # the folder in the archive
FILES = FileSet(
    name="cifar10",
    sha256={_ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    exact=True,
    elsewhere=("cifar-10", "CIFAR10", "CIFAR-10", "."),
)


@dataclass(frozen=True)
class BinarySource:
    """An archive of records: a byte for the class, then the picture's red, green and blue planes, row by row."""

    info: Info
    files: FileSet
    training: tuple[str, ...]  # the archive's files, in order
    test: tuple[str, ...]

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches the archive if it is missing from `directory`. Raises `UserError`."""
        ensure(self.read, self.files, directory, progress=progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, checked against `info`. Raises `MissingFiles` or `CorruptFile`."""
        try:
            contents = read_all(self.files, directory)
        except MissingFiles as error:
            raise MissingFiles(f"{error}{_other_version(directory)}") from None
        files = self._unpacked(contents[_ARCHIVE])
        info = self.info
        return (
            self._part(b"".join(files[name] for name in self.training), info.train + info.validation, "training"),
            self._part(b"".join(files[name] for name in self.test), info.test, "test"),
        )

    def kept(self, directory: Path, *, test_only: bool = False) -> dict[str, Path]:
        """See `harness.data.kept.Kept`."""
        return kept_files(self.files, directory)

    def _unpacked(self, archive: bytes) -> dict[str, bytes]:
        """The files of the archive, in memory: nothing is unpacked to disk."""
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                for name in (*self.training, *self.test):
                    file = packed.extractfile(f"{_INSIDE}/{name}")
                    found[name] = file.read() if file else b""
        except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
            raise CorruptFile(f"{self.info.name}: {_ARCHIVE} is not the published archive ({error}).") from None
        return found

    def _part(self, content: bytes, count: int, part: str) -> Split:
        height, width, channels = self.info.image
        record = 1 + height * width * channels
        if len(content) != count * record:
            raise CorruptFile(
                f"{self.info.name}, {part} part: {count * record:,} bytes expected, found {len(content):,}."
            )
        rows = np.frombuffer(content, np.uint8).reshape(count, record)
        labels = rows[:, 0].astype(np.int64)
        if labels.max() >= self.info.classes:
            raise CorruptFile(f"{self.info.name}, {part} part: a label of {labels.max()}; {self.info.classes} classes.")
        planes = rows[:, 1:].reshape(count, channels, height, width)
        return Split(np.ascontiguousarray(np.moveaxis(planes, 1, -1)), labels)


def _other_version(directory: Path) -> str:
    """What is there of CIFAR-10 in another form, and why it is not used."""
    for folder in (directory / FILES.name, directory):
        if (folder / "cifar-10-batches-py").is_dir() or (folder / "cifar-10-python.tar.gz").is_file():
            return f"\n{folder} has the Python version: pickles, which can run any code and are not read."
        if (folder / _INSIDE).is_dir():
            return f"\n{folder / _INSIDE} is the unpacked archive; only {_ARCHIVE} as published can be verified."
    return ""


SOURCE = BinarySource(
    Info(
        name="cifar10",
        image=(32, 32, 3),
        classes=10,
        train=45_000,
        validation=5_000,
        test=10_000,
        embedded=False,
        source="CIFAR-10 (Krizhevsky), the published binary version, verified as it is",
        licence="none stated; see its page",
        citation="Krizhevsky: Learning Multiple Layers of Features from Tiny Images, technical report, University of Toronto, "
        "2009",
        files=FILES.sha256,
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    FILES,
    training=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test=("test_batch.bin",),
)
