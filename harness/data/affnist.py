"""affNIST as published (T. Tieleman): 32 affine transforms of every MNIST digit, 40x40, in zipped MATLAB files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.archive import entries
from harness.data.base import Info, Split
from harness.data.files import CorruptFile, FileSet, MissingFiles, locate, missing
from harness.data.matfile import checked, variables
from harness.data.packed import Pack

_RECIPE = "converted from the published MATLAB files, version 1"
_STRUCT = "affNISTdata"
_INSTEAD = "Made here from MNIST by the same recipe: affnist-gen."


@dataclass(frozen=True)
class AffNist:
    """Archives of MATLAB files, converted once into `<directory>/<name>/`, archive by archive."""

    info: Info
    training: Mapping[str, int]  # archive -> number of images; those for validation last
    test: Mapping[str, int]
    mirrors: tuple[str, ...]

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Fetches and converts what is missing. Raises `UserError`."""
        self.ensure_test(directory, progress=progress)
        self._make(self._training(directory), self.training, directory, progress)

    def ensure_test(self, directory: Path, *, progress: bool) -> None:
        """Like `ensure`, for the test part only."""
        self._make(self._test(directory), self.test, directory, progress)

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
        count = self.info.train + self.info.validation
        return Pack(directory / self.info.name, "training", self.info.image, count, _RECIPE)

    def _test(self, directory: Path) -> Pack:
        return Pack(directory / self.info.name, "test", self.info.image, self.info.test, _RECIPE)

    def _make(self, pack: Pack, archives: Mapping[str, int], directory: Path, progress: bool) -> None:
        try:
            pack.read()
        except (MissingFiles, CorruptFile):
            files = FileSet(self.info.name, dict.fromkeys(archives), self.mirrors, exact=True, instead=_INSTEAD)
            if len(_located(files, directory)) < len(archives):
                from harness.data.net.download import fetch

                fetch(files, directory, progress=progress)
            paths = _located(files, directory)
            if len(paths) < len(archives):
                raise missing(files, directory) from None
            pack.write(self._blocks({paths[name]: count for name, count in archives.items()}), progress=progress)

    def _blocks(self, archives: Mapping[Path, int]) -> Iterator[Split]:
        for path, count in archives.items():
            found = 0
            for name, content in entries(path):
                part = _parse(content, f"{path}, {name}", self.info)
                found += len(part)
                yield part
            if found != count:
                raise CorruptFile(f"{path}: {count:,} images expected, found {found:,}.")


def _located(files: FileSet, directory: Path) -> dict[str, Path]:
    """The archives, or what they unpack to: validation.mat.zip to validation.mat, training_batches.zip to a folder."""
    found = locate(files, directory)
    for name in files.sha256:
        unpacked = directory / files.name / name.removesuffix(".zip")
        if name not in found and (unpacked.is_file() or any(unpacked.glob("*.mat"))):
            found[name] = unpacked
    return found


def _parse(content: bytes, name: str, info: Info) -> Split:
    """The images of one MATLAB file: each is a column, row after row, of its struct's field `image`."""
    struct: Any = variables(content, name, _STRUCT)[_STRUCT]
    fields: tuple[str, ...] = struct.dtype.names or ()
    if struct.size != 1 or not {"image", "label_int"} <= set(fields):
        raise CorruptFile(
            f"{name}: {_STRUCT} is to be one struct with the fields image and label_int; "
            f"found {struct.size} with {', '.join(fields) or 'no fields'}."
        )
    columns, labels = np.asarray(struct["image"].item()), np.asarray(struct["label_int"].item()).reshape(-1)
    height, width, channels = info.image
    if columns.ndim != 2 or len(columns) != height * width * channels:
        raise CorruptFile(f"{name}: images of {height * width * channels} rows each expected, found {columns.shape}.")
    return checked(np.ascontiguousarray(columns.T).reshape(-1, *info.image), labels, info.image, info.classes, name)


SOURCE = AffNist(
    Info(
        name="affnist",
        image=(40, 40, 1),
        classes=10,
        train=1_600_000,
        validation=320_000,
        test=320_000,
        embedded=False,
        source="affNIST (Tieleman), the published transformed images; no hash of them was published",
        licence="see its page",
        citation="T. Tieleman, affNIST, https://www.cs.toronto.edu/~tijmen/affNIST/, 2013",
        files=dict.fromkeys(("training_batches.zip", "validation.mat.zip", "test.mat.zip")),
        made_of=("mnist training", "mnist test"),
        apart="32 images come from each digit, and the splits would overlap",
    ),
    training={"training_batches.zip": 1_600_000, "validation.mat.zip": 320_000},
    test={"test.mat.zip": 320_000},
    mirrors=("https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/",),
)
