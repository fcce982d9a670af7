"""What a data set is, and how it is divided: the one place where training, validation and test are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from harness.config import DataConfig
from harness.errors import UserError

_STREAM = 0x64617461  # "data": the permutation that subsets are drawn by; the same for every trial, whatever its seed


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
    files: Mapping[str, str] = field(default_factory=dict[str, str])  # name -> SHA-256 of the uncompressed file


@dataclass(frozen=True)
class Split:
    """N images and their classes."""

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Split:
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """The images a trial uses. No two splits share one."""

    name: str
    train: Split
    validation: Split
    test: Split
    provenance: str
    sha256: str  # over the shapes and bytes of all six arrays


@runtime_checkable
class Source(Protocol):
    """Where a data set's images come from."""

    @property
    def info(self) -> Info: ...

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """Makes `read` possible, by download where need be. Raises `UserError` if it cannot."""
        ...

    def read(self, directory: Path) -> tuple[Split, Split]:
        """The training part and the test part, verified, without network. Raises `UserError`.

        The training part ends with the default validation images: its last `info.validation`.
        """
        ...


def split_sizes(info: Info, config: DataConfig) -> tuple[int, int, int]:
    """Numbers of training, validation and test images. Raises `UserError` if there are not that many."""
    shared = info.train + info.validation
    validation = info.validation if config.validation is None else config.validation
    train = shared - validation if config.train is None else config.train
    test = info.test if config.test is None else config.test
    if test > info.test:
        raise UserError(f"data.test: {test:,} images asked for, but {info.name} has {info.test:,}.")
    if validation >= shared:
        raise UserError(
            f"data.validation: {validation:,} images asked for, but they come out of the {shared:,} training images "
            f"of {info.name}, and some must be left to train on: at most {shared - 1:,}."
        )
    if train + validation > shared:
        default = " (the default)" if config.validation is None else ""
        raise UserError(
            f"data.train: {train:,} images asked for, but data.train and data.validation share the {shared:,} training "
            f"images of {info.name}: with data.validation={validation}{default} there are {shared - validation:,}."
            + (" Set data.validation: 0 to train on all of them." if validation and train <= shared else "")
        )
    return train, validation, test


def image_shape(info: Info, config: DataConfig) -> tuple[int, int, int]:
    """Height, width and channels of the images as a trial gets them. Raises `UserError` for a canvas that is too small."""
    height, width, channels = info.image
    if config.canvas is None:
        return info.image
    if config.canvas < max(height, width):
        raise UserError(
            f"data.canvas: {config.canvas} pixels a side, but the images of {info.name} are {height}x{width}: "
            f"at least {max(height, width)}, or leave it out."
        )
    return config.canvas, config.canvas, channels


def _centred(split: Split, shape: tuple[int, int, int]) -> Split:
    """The images in the middle of black ones of `shape`; where that is between two pixels, above and left of it."""
    before = [(wanted - side) // 2 for wanted, side in zip(shape, split.images.shape[1:], strict=True)]
    sides = zip(before, shape, split.images.shape[1:], strict=True)
    margins = [(low, wanted - side - low) for low, wanted, side in sides]
    return Split(np.pad(split.images, [(0, 0), *margins]), split.labels)


def select(info: Info, config: DataConfig, training_part: Split, test_part: Split) -> Dataset:
    """Divides what a `Source` read, on the canvas of `config`. Raises `UserError` if it asks for more than there is.

    Validation images are the last of the training part; fewer than the default are drawn from the default ones. Every
    subset is drawn by one fixed permutation, so a smaller one lies within a larger one, and keeps the file's order.
    """
    n_train, n_validation, n_test = split_sizes(info, config)
    shared = len(training_part)
    held_out = np.arange(shared - max(n_validation, info.validation), shared)
    validation = _subset(held_out, n_validation)
    train = _subset(np.setdiff1d(np.arange(shared), validation), n_train)
    test = _subset(np.arange(len(test_part)), n_test)
    shape = image_shape(info, config)
    drawn = training_part.take(train), training_part.take(validation), test_part.take(test)
    parts = tuple(_centred(part, shape) for part in drawn)
    provenance = (
        f"{info.source}: {n_train:,} of {shared:,} training images, {n_validation:,} others of them for validation, "
        f"{n_test:,} of {len(test_part):,} test images"
    )
    provenance += f", centred on {shape[0]}x{shape[1]} pixels" if config.canvas else ""
    return Dataset(info.name, parts[0], parts[1], parts[2], provenance=provenance, sha256=_digest(parts))


def order(count: int) -> Int64[np.ndarray, " N"]:
    """The fixed permutation of `count` items."""
    # From raw words: NumPy promises them forever, but not what `Generator.permutation` makes of them.
    words = np.random.Philox(key=[0, _STREAM]).random_raw(count)
    return np.argsort(words, kind="stable")


def _subset(indices: np.ndarray, count: int) -> np.ndarray:
    return np.sort(indices[order(len(indices))[:count]])


def _digest(parts: tuple[Split, ...]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part.images.shape).encode())
        sha.update(np.ascontiguousarray(part.images).data)
        sha.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
    return sha.hexdigest()
