"""What a data set is, and how it is divided: the one place where training, validation and test are told apart."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64, UInt8

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
    files: Mapping[str, str | None] = field(default_factory=dict[str, str | None])  # name -> SHA-256: see `FileSet`
    class_names: tuple[str, ...] = tuple("0123456789")
    made_of: tuple[str, str] | None = None  # what training and test part are made of; None: the set's own images
    apart: str = ""  # why training and validation images must not change places; "": they may
    shift: int = 0  # data.augment.shift where a suite says nothing

    @property
    def originals(self) -> tuple[str, str]:
        """Names of the images that the training part and the test part go back to."""
        return self.made_of or (f"{self.name} training", f"{self.name} test")


@dataclass(frozen=True)
class Split:
    """N images and their classes."""

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Split:
        """The images at `indices`; neighbours in order without a copy, so that what is memory-mapped stays so."""
        if len(indices) and (np.diff(indices) == 1).all():
            run = slice(int(indices[0]), int(indices[-1]) + 1)
            return Split(self.images[run], self.labels[run])
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
    own_test: Split | None = None  # the data set's own test images, where `test` is another one's


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


@runtime_checkable
class PartialSource(Source, Protocol):
    """A source whose test part can be had without its training part."""

    def ensure_test(self, directory: Path, *, progress: bool) -> None:
        """Makes `read_test` possible. Raises `UserError` if it cannot."""
        ...

    def read_test(self, directory: Path) -> Split: ...


def split_sizes(info: Info, config: DataConfig, tested: Info | None = None) -> tuple[int, int, int]:
    """Numbers of training, validation and test images; `tested` is the data set of the test images where it is another.

    Raises `UserError` if there are not that many, or if `tested` does not fit.
    """
    tested = tested or info
    _check_fit(info, tested, config)
    shared = info.train + info.validation
    validation = info.validation if config.validation is None else config.validation
    test = tested.test if config.test is None else config.test
    if test > tested.test:
        raise UserError(f"data.test: {test:,} images asked for, but {tested.name} has {tested.test:,}.")
    if info.apart:
        return _train_apart(info, config, validation), validation, test
    train = shared - validation if config.train is None else config.train
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


def _train_apart(info: Info, config: DataConfig, validation: int) -> int:
    """Number of training images where they are not to be exchanged with those for validation."""
    train = info.train if config.train is None else config.train
    for key, asked, most in ("train", train, info.train), ("validation", validation, info.validation):
        if asked > most:
            raise UserError(
                f"data.{key}: {asked:,} images asked for; {info.name} has {most:,} for that and takes none from "
                f"elsewhere: {info.apart}."
            )
    return train


def _check_fit(info: Info, tested: Info, config: DataConfig) -> None:
    """Raises `UserError` unless a model trained on `info` can be tested on `tested`."""
    if config.test_from is None:
        return
    if tested.name == info.name:
        raise UserError(f"data.test_from: {tested.name} is the data set itself; leave it out.")
    if tested.class_names != info.class_names:
        raise UserError(
            f"data.test_from: the classes of {tested.name} ({', '.join(tested.class_names)}) are not those of "
            f"{info.name} ({', '.join(info.class_names)})."
        )
    if tested.originals[1] == info.originals[0]:
        raise UserError(
            f"data.test_from: the test images of {tested.name} are made of the {info.originals[0]} images, as those that "
            f"{info.name} trains on; the splits overlap."
        )
    ours, theirs = image_shape(info, config), image_shape(tested, config)
    if ours != theirs:
        sides = "x".join(map(str, ours)), "x".join(map(str, theirs))
        raise UserError(
            f"data.test_from: images of {tested.name} are {sides[1]}, those of {info.name} {sides[0]}; "
            + (
                f"data.canvas: {max(*ours, *theirs)} centres both on a canvas of the same size."
                if ours[2] == theirs[2]
                else "choose a data set with as many channels."
            )
        )


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
    if split.images.shape[1:] == shape:
        return split
    before = [(wanted - side) // 2 for wanted, side in zip(shape, split.images.shape[1:], strict=True)]
    sides = zip(before, shape, split.images.shape[1:], strict=True)
    margins = [(low, wanted - side - low) for low, wanted, side in sides]
    return Split(np.pad(split.images, [(0, 0), *margins]), split.labels)


def select(
    info: Info, config: DataConfig, training_part: Split, test_part: Split, tested: Info | None = None
) -> Dataset:
    """Divides what a `Source` read, on the canvas of `config`; `tested` describes the test part of another data set.

    Raises `UserError` if `config` asks for more than there is, or if the other data set has images of the training part.

    Validation images are the last of the training part; fewer than the default are drawn from the default ones. Every
    subset is drawn by one fixed permutation, so a smaller one lies within a larger one, and keeps the file's order.
    """
    n_train, n_validation, n_test = split_sizes(info, config, tested)
    shared = len(training_part)
    held_out = np.arange(shared - max(n_validation, info.validation), shared)
    validation = _subset(held_out, n_validation)
    others = np.arange(info.train) if info.apart else np.setdiff1d(np.arange(shared), validation)
    train = _subset(others, n_train)
    test = _subset(np.arange(len(test_part)), n_test)
    shape = image_shape(info, config)
    drawn = training_part.take(train), training_part.take(validation), test_part.take(test)
    parts = tuple(_centred(part, shape) for part in drawn)
    if tested:
        _refuse_overlap(parts, info, tested)
    provenance = (
        f"{info.source}: {n_train:,} of {shared:,} training images, {n_validation:,} others of them for validation"
    )
    provenance += f"; {tested.source}: " if tested else ", "
    provenance += f"{n_test:,} of {len(test_part):,} test images"
    provenance += f", centred on {shape[0]}x{shape[1]} pixels" if config.canvas else ""
    return Dataset(info.name, parts[0], parts[1], parts[2], provenance=provenance, sha256=_digest(parts))


def test_images(info: Info, config: DataConfig, test_part: Split) -> Split:
    """The test images of `info` on the canvas of `config`: as many as it asks for, or all where there are fewer."""
    count = min(config.test or len(test_part), len(test_part))
    return _centred(test_part.take(_subset(np.arange(len(test_part)), count)), image_shape(info, config))


def order(count: int) -> Int64[np.ndarray, " N"]:
    """The fixed permutation of `count` items."""
    # From raw words: NumPy promises them forever, but not what `Generator.permutation` makes of them.
    words = np.random.Philox(key=[0, _STREAM]).random_raw(count)
    return np.argsort(words, kind="stable")


def uniform(stream: int, part: int, shape: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    """Numbers from [0, 1), the same everywhere and always: from Philox's raw words, as `order`."""
    words = np.random.Philox(key=[part, stream]).random_raw(math.prod(shape))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def _subset(indices: np.ndarray, count: int) -> np.ndarray:
    return np.sort(indices[order(len(indices))[:count]])


def _refuse_overlap(parts: tuple[Split, ...], info: Info, tested: Info) -> None:
    """Raises `UserError` if a test image is among the images trained or validated on, byte for byte."""
    train, validation, test = map(_fingerprints, parts)
    if shared := len(test & (train | validation)):
        raise UserError(
            f"data.test_from: {shared:,} test images of {tested.name} are also training or validation images of "
            f"{info.name}; the splits overlap."
        )


def _fingerprints(part: Split) -> set[bytes]:
    return {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in np.asarray(part.images)}


def release(images: np.ndarray) -> None:
    """Lets go of the memory that a memory-mapped array's pages take; they are read again when they are used again."""
    base: object = images
    while isinstance(base, np.ndarray):
        base = cast(object, base.base)
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _digest(parts: tuple[Split, ...]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part.images.shape).encode())
        sha.update(np.ascontiguousarray(part.images).data)
        release(part.images)
        sha.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
    return sha.hexdigest()
