"""The data sets: sizes without reading them, fetching ahead of a run, loading; and one's own pictures.

`harness.data.sets` finds data sets by name, `harness.data.own` reads one's own files.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from harness.data import divide, own, sets
from harness.data.base import Dataset, Info, PartialSource, Source, Split, release
from harness.data.divide import image_shape, select, split_sizes, test_images
from harness.data.files import MissingFiles
from harness.data.frame import is_random, middle
from harness.data.overlay import overlaid
from harness.data.sets import NAMES, names
from harness.errors import BrokenPlugin, UserError
from harness.spec.model import ModelConfig, ModelSpec
from harness.spec.trial import DataConfig, OwnData

_SHOWN = 2  # selects the overlays to draw: differs from validation and test


def source(name: str, key: str = "data.name") -> Source:
    """The data set's source; `key` is the suite key that named it.

    Raises `UserError` for an unknown name, and for a broken plug-in, naming it.
    """
    return sets.source(name, key, own.FORMATS)


def info(name: str, key: str = "data.name") -> Info:
    """What the data set is, without touching a file. Raises `UserError` for an unknown name."""
    return source(name, key).info


def require(name: str, key: str = "data.name") -> None:
    """Raises `UserError` unless there is a data set, or a format of one's own files, with this name."""
    if name in own.FORMATS:
        if key == "data.test_from":
            raise UserError(
                f"{key}: {name} is no data set of its own; for test pictures of your own there is data.test_path"
            )
        return
    source(name, key)


def about(config: DataConfig) -> Info:
    """What the data set of `config` is. For one's own files these are read, unless `config` records what was found.

    Raises `UserError` if they cannot be.
    """
    if config.own and not sets.is_built_in(config.name):
        try:
            return info(config.name)
        except UserError:  # one's own files, or a data set that is not installed here
            return own.info(config, config.own)
    if config.name in own.FORMATS:
        return own.info(config, own.resolve(config, data_dir(config.dir)))
    return info(config.name)


def resolved(config: DataConfig) -> DataConfig:
    """`config` with what a trial has to record of data that are not built in; one's own files are read.

    Raises `UserError` if they cannot be, or for a setting that the data set does not have.
    """
    own.check_keys(config)
    if config.name in own.FORMATS:
        given = {"path": config.path, "test_path": config.test_path}
        places = {key: str(Path(place).expanduser().absolute()) for key, place in given.items() if place}
        config = config.model_copy(update=places)
        return config.model_copy(update={"own": own.resolve(config, data_dir(config.dir), progress=True)})
    if sets.is_built_in(config.name):
        return config
    there = info(config.name)
    facts = OwnData(
        image=there.image, classes=there.class_names, train=there.train, validation=there.validation, test=there.test,
        is_apart=bool(there.apart),
    )  # fmt: skip
    return config.model_copy(update={"own": facts})


def class_names(config: DataConfig) -> tuple[str, ...]:
    """The names of the classes, by class."""
    return about(config).class_names


def shift(config: DataConfig) -> int:
    """The most pixels that a training image is shifted each way: `data.augment.shift`, else the data set's default."""
    return about(config).shift if config.augment.shift is None else config.augment.shift


def margin(config: DataConfig) -> tuple[int, int]:
    """Rows and columns by which training images are larger than the network's, for `plan_epoch`: see `data.augment.crop`.

    Raises `UserError` if they cannot be cut at random.
    """
    return divide.margin(about(config), config)


def sizes(config: DataConfig) -> tuple[int, int, int]:
    """Numbers of training, validation and test images of `config`, without touching a file.

    Raises `UserError` naming the key, what was requested and what is available.
    """
    return split_sizes(about(config), config, _tested(config))


def shape(config: DataConfig) -> tuple[int, int, int]:
    """Height, width and channels of the images of `config`, without touching a file. Raises `UserError` for its canvas."""
    margin(config)
    return image_shape(about(config), config)


def model(config: DataConfig, model: ModelConfig) -> ModelSpec:
    """The architecture for the data set's images and classes, without touching a file.

    Raises `UserError` for a bad canvas, `ValueError` (pydantic's `ValidationError`) if model and images do not fit.
    """
    found = about(config)
    return ModelSpec(**model.model_dump(), image=shape(config), classes=found.classes, overlaid=found.overlaid)


def data_dir(config_dir: str | None) -> Path:
    """Where data files are kept: `data.dir`, else the variable `CAPSBENCH_DATA`, else the platform's cache."""
    chosen = config_dir or os.environ.get("CAPSBENCH_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("capsbench")


def ensure(config: DataConfig, *, progress: bool) -> None:
    """Fetches and verifies what `load` needs, with a bar on stderr if `progress`. Raises `UserError` if it cannot."""
    sizes(config)
    directory = data_dir(config.dir)
    if config.name in own.FORMATS:
        own.ensure(config if config.own else resolved(config), directory, progress=progress)
    else:
        source(config.name).ensure(directory, progress=progress)
    if config.test_from:
        other = source(config.test_from)
        (other.ensure_test if isinstance(other, PartialSource) else other.ensure)(directory, progress=progress)


def load(config: DataConfig) -> Dataset:
    """The data set's verified images, cut to the sizes of `config`; never uses the network.

    Raises `UserError` for sizes that do not exist, and for files that are missing or corrupt.
    """
    sizes(config)
    directory = data_dir(config.dir)
    if config.name in own.FORMATS:
        config = config if config.own else resolved(config)
        found, (training_part, test_part) = about(config), own.read(config, directory)
    else:
        there = source(config.name)
        found, (training_part, test_part) = there.info, there.read(directory)
    if config.test_from is None:
        return select(found, config, training_part, test_part)
    other = source(config.test_from)
    theirs = other.read_test(directory) if isinstance(other, PartialSource) else other.read(directory)[1]
    dataset = select(found, config, training_part, theirs, _tested(config))
    return replace(dataset, own_test=test_images(found, config, test_part))


def shown(config: DataConfig, split: Split) -> Split:
    """Training images as the network sees them: cut to the middle, and overlaid if each shows several digits."""
    found = about(config)
    if is_random(config):
        split = Split(middle(split.images, shape(config)), split.labels)
    return overlaid(found, split, _SHOWN) if found.overlaid > 1 else split


def list_datasets(directory: str | None = None) -> list[dict[str, Any]]:
    """One JSON-able row per data set: name, image, classes, overlaid (digits per image), split sizes, embedded,
    state, path, detail, source.

    `state` is "embedded", "cached" (verified), "test only", "absent", "corrupt" or "broken" (a plug-in that does not
    work, whose other values are then null); `detail` says what is wrong, else None.
    """
    return [_row(name, data_dir(directory)) for name in names()]


def fetch(name: str, directory: str | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Makes the data set available in `directory` and returns its row of `list_datasets`. Raises `UserError`."""
    folder = data_dir(directory)
    source(name).ensure(folder, progress=progress)
    return _row(name, folder)


def _tested(config: DataConfig) -> Info | None:
    return info(config.test_from, "data.test_from") if config.test_from else None


def _without_training(found: Source, directory: Path) -> str:
    try:
        if isinstance(found, PartialSource):
            found.read_test(directory)
            return "test only"
    except UserError:
        pass
    return "absent"


def _row(name: str, directory: Path) -> dict[str, Any]:
    try:
        found = source(name)
    except BrokenPlugin as error:
        unknown = ("image", "classes", "overlaid", "train", "validation", "test", "embedded", "path", "source")
        return {"name": name, **dict.fromkeys(unknown), "state": "broken", "detail": str(error)}
    state, detail = "embedded" if found.info.embedded else "cached", None
    try:
        found.read(directory)
    except BrokenPlugin as error:
        state, detail = "broken", str(error)
    except MissingFiles as error:
        state, detail = _without_training(found, directory), str(error)
    except UserError as error:
        state, detail = "corrupt", str(error)
    return {
        "name": name,
        "image": list(found.info.image),
        "classes": found.info.classes,
        "overlaid": found.info.overlaid,
        "train": found.info.train,
        "validation": found.info.validation,
        "test": found.info.test,
        "embedded": found.info.embedded,
        "state": state,
        "path": None if found.info.embedded else str(directory),
        "detail": detail,
        "source": found.info.source,
    }


__all__ = [
    "NAMES", "Dataset", "Info", "PartialSource", "Source", "Split",
    "about", "class_names", "data_dir", "ensure", "fetch", "info", "list_datasets", "load", "margin", "model", "names",
    "release", "require", "resolved", "select", "shape", "shift", "shown", "sizes", "source",
]  # fmt: skip
