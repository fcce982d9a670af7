"""What a data set is: its description, its images, and where they come from."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, UInt8

_STREAM = 0x64617461  # "data": the permutation for drawing subsets; the same for every trial, whatever its seed


@dataclass(frozen=True)
class Info:
    """A data set as published. `train`, `validation`, `test` count the images of the default split."""

    name: str
    image: tuple[int, int, int]  # height, width, channels
    classes: int
    train: int
    validation: int
    test: int
    embedded: bool  # comes with an installed package: no file of its own, no download
    source: str
    licence: str
    citation: str
    files: Mapping[str, str | None] = field(default_factory=dict[str, str | None])  # name -> SHA-256: see `FileSet`
    class_names: tuple[str, ...] = tuple("0123456789")
    made_of: tuple[str, str] | None = None  # what the training and test parts are made of; None: the set's own images
    apart: str = ""  # why training and validation images must not be exchanged; "": they may
    shift: int = 0  # default of data.augment.shift; always used for validation and test overlays
    overlaid: int = 1  # K: how many digits, of different classes, are overlaid in an image
    is_framed: bool = False  # `data.resize`, `crop` and `pad` are already applied

    @property
    def originals(self) -> tuple[str, str]:
        """Names of the images that the training part and the test part are derived from."""
        return self.made_of or (f"{self.name} training", f"{self.name} test")


@dataclass(frozen=True)
class Split:
    """N images and their classes; if each shows K > 1 digits, the separate digits and the classes of all."""

    images: UInt8[np.ndarray, "N *K H W C"]
    labels: Int64[np.ndarray, " N *K"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Split:
        """The images at `indices`. Consecutive ones are not copied, so that memory-mapped images stay so."""
        if len(indices) and (np.diff(indices) == 1).all():
            run = slice(int(indices[0]), int(indices[-1]) + 1)
            return Split(self.images[run], self.labels[run])
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """The images a trial uses. No two splits share an image.

    If images show several digits, training images are single digits, which each epoch's plan overlays anew.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    provenance: str
    sha256: str  # over the shapes and contents of all six arrays
    own_test: Split | None = None  # the data set's own test images, if `test` is from another one


@runtime_checkable
class Source(Protocol):
    """Where a data set's images come from."""

    @property
    def info(self) -> Info: ...

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Makes `read` possible, by download if needed. Raises `UserError` if it cannot."""
        ...

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, verified, without network. Raises `UserError`.

        The training part ends with the default validation images: its last `info.validation`.
        """
        ...


@runtime_checkable
class PartialSource(Source, Protocol):
    """A source whose test part can be had without its training part."""

    def ensure_test(self, directory: Path, *, progress: bool) -> None:
        """Makes `read_test` possible. Raises `UserError` if it cannot."""
        ...

    def read_test(self, directory: Path) -> Split: ...


def order(count: int) -> Int64[np.ndarray, " N"]:
    """The fixed permutation of `count` items."""
    # From raw words: NumPy guarantees these forever, but not what `Generator.permutation` makes of them.
    words = np.random.Philox(key=[0, _STREAM]).random_raw(count)
    return np.argsort(words, kind="stable")


def uniform(stream: int, part: int, shape: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    """Numbers from [0, 1), the same everywhere and always: from Philox's raw words, like `order`."""
    words = np.random.Philox(key=[part, stream]).random_raw(math.prod(shape))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def release(images: np.ndarray) -> None:
    """Frees the memory of a memory-mapped array's pages; they are read again on next use."""
    base: object = images
    while isinstance(base, np.ndarray):
        base = cast(object, base.base)
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
