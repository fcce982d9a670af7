"""How a data set is divided: the only place that separates training, validation and test."""

from __future__ import annotations

import hashlib

import numpy as np

from harness.data.base import Dataset, Info, Split, order, release
from harness.data.frame import framed, framed_shape, in_words, is_framed, is_random, require_random_fits, whole
from harness.data.overlay import overlaid
from harness.errors import UserError
from harness.spec.trial import DataConfig

_VALIDATION, _TEST = 0, 1  # select the overlays to draw


def split_sizes(info: Info, config: DataConfig, tested: Info | None = None) -> tuple[int, int, int]:
    """Numbers of training, validation and test images; `tested` is the data set of the test images if it is another.

    Raises `UserError` if there are not enough images, or if `tested` does not fit.
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
    """Number of training images if they must not be exchanged with those for validation."""
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
    if tested.overlaid != info.overlaid:
        raise UserError(
            f"data.test_from: an image of {tested.name} shows {tested.overlaid} digit(s), one of {info.name} {info.overlaid}."
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
    """Height, width and channels of the images as a trial gets them. Raises `UserError` if the canvas is too small."""
    height, width, channels = shape = framed_shape(info.image, _left(info, config))
    if config.canvas is None:
        return shape
    if config.canvas < max(height, width):
        raise UserError(
            f"data.canvas: {config.canvas} pixels a side, but the images of {info.name} are {height}x{width}: "
            f"at least {max(height, width)}, or leave it out."
        )
    return config.canvas, config.canvas, channels


def margin(info: Info, config: DataConfig) -> tuple[int, int]:
    """Rows and columns by which training images are larger than the network's; (0, 0) unless they are cut at random.

    Raises `UserError` if they cannot be.
    """
    if not is_random(config):
        return 0, 0
    height, width, _ = framed_shape(info.image, whole(_left(info, config)))
    seen = framed_shape(info.image, _left(info, config))
    found = height - seen[0], width - seen[1]
    require_random_fits(config, found, info.shift if config.augment.shift is None else config.augment.shift)
    return found


def _left(info: Info, config: DataConfig) -> DataConfig:
    """What is left to do of resize, crop and pad: of images that were read so, only to cut what was kept whole."""
    if not info.is_framed:
        return config
    return config.model_copy(update={"resize": None, "pad": None} | ({} if is_random(config) else {"crop": None}))


def _framed(split: Split, config: DataConfig, info: Info) -> Split:
    """The images after resize, crop and pad, unless they were read so."""
    left = _left(info, config)
    return Split(framed(split.images, left), split.labels) if is_framed(left) else split


def _centred(split: Split, shape: tuple[int, int, int]) -> Split:
    """The images centred on black ones of `shape`; if the centre is between two pixels, above and left of it."""
    *several, height, width, channels = split.images.shape
    if (height, width, channels) == shape:
        return split
    sides = [(wanted, side) for wanted, side in zip(shape, (height, width, channels), strict=True)]
    margins = [((wanted - side) // 2, wanted - side - (wanted - side) // 2) for wanted, side in sides]
    return Split(np.pad(split.images, [*[(0, 0)] * len(several), *margins]), split.labels)


def select(
    info: Info, config: DataConfig, training_part: Split, test_part: Split, tested: Info | None = None
) -> Dataset:
    """Divides what a `Source` read, on the canvas of `config`; `tested` describes the test part of another data set.

    Raises `UserError` if `config` asks for more than there is, or if the other data set contains training images.

    Validation images are the last of the training part; fewer than the default are drawn from the default ones. Every
    subset is drawn by one fixed permutation, so a smaller one is part of a larger one, and it keeps the file's order.
    """
    n_train, n_validation, n_test = split_sizes(info, config, tested)
    shared = len(training_part)
    held_out = np.arange(shared - max(n_validation, info.validation), shared)
    validation = _subset(held_out, n_validation)
    others = np.arange(info.train) if info.apart else np.setdiff1d(np.arange(shared), validation)
    train = _subset(others, n_train)
    test = _subset(np.arange(len(test_part)), n_test)
    shape = image_shape(info, config)
    if info.overlaid > len(np.unique(training_part.labels[train])):
        raise UserError(
            f"data.train: the {n_train:,} images asked for are of too few classes to overlay {info.overlaid} of them; "
            "ask for more."
        )
    drawn = (
        training_part.take(train),
        _shown(info, training_part.take(held_out), _VALIDATION).take(validation - held_out[:1]),
        _shown(info, test_part, _TEST).take(test),
    )
    described = (info, info, tested or info)
    if is_random(config):
        margin(info, config)
        training = _framed(drawn[0], whole(config), info)
    else:
        training = _centred(_framed(drawn[0], config, info), shape)
    others = (_centred(_framed(part, config, of), shape) for part, of in zip(drawn[1:], described[1:], strict=True))
    parts = (training, *others)
    if tested:
        _refuse_overlap(parts, info, tested)
    provenance = (
        f"{info.source}: {n_train:,} of {shared:,} training images, {n_validation:,} others of them for validation"
    )
    provenance += f"; {tested.source}: " if tested else ", "
    provenance += f"{n_test:,} of {len(test_part):,} test images"
    provenance += in_words(_left(info, config))
    provenance += " (training images anywhere, anew in each epoch)" if is_random(config) else ""
    provenance += f", centred on {shape[0]}x{shape[1]} pixels" if config.canvas else ""
    return Dataset(info.name, parts[0], parts[1], parts[2], provenance=provenance, sha256=_digest(parts))


def test_images(info: Info, config: DataConfig, test_part: Split) -> Split:
    """The test images of `info` on the canvas of `config`: as many as it asks for, or all if there are fewer."""
    count = min(config.test or len(test_part), len(test_part))
    chosen = _shown(info, test_part, _TEST).take(_subset(np.arange(len(test_part)), count))
    return _centred(_framed(chosen, config, info), image_shape(info, config))


def _shown(info: Info, split: Split, part: int) -> Split:
    """A validation or test part as shown: overlaid before choosing, so that a smaller choice lies within a larger."""
    return overlaid(info, split, part) if info.overlaid > 1 else split


def _subset(indices: np.ndarray, count: int) -> np.ndarray:
    return np.sort(indices[order(len(indices))[:count]])


def _refuse_overlap(parts: tuple[Split, ...], info: Info, tested: Info) -> None:
    """Raises `UserError` if a test image equals a training or validation image, byte for byte."""
    train, validation, test = map(_fingerprints, parts)
    if shared := len(test & (train | validation)):
        raise UserError(
            f"data.test_from: {shared:,} test images of {tested.name} are also training or validation images of "
            f"{info.name}; the splits overlap."
        )


def _fingerprints(part: Split) -> set[bytes]:
    return {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in np.asarray(part.images)}


def _digest(parts: tuple[Split, ...]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part.images.shape).encode())
        sha.update(np.ascontiguousarray(part.images).data)
        release(part.images)
        sha.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
    return sha.hexdigest()
