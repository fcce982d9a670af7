"""The data sets, one module each, imported only when needed: sizes without IO, fetching ahead of a run, loading.

To add one: a module with a `SOURCE` (see `harness.data.base.Source`) and a line in `_MODULES`.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from harness.data.base import Dataset, Info, PartialSource, Source, Split, release
from harness.data.divide import image_shape, select, split_sizes, test_images
from harness.data.files import MissingFiles
from harness.data.overlay import overlaid
from harness.errors import UserError, nearest
from harness.spec.model import ModelConfig, ModelSpec
from harness.spec.trial import DataConfig

_MODULES = {
    "digits": "harness.data.digits", "mnist": "harness.data.mnist", "fashion-mnist": "harness.data.fashion_mnist",
    "kmnist": "harness.data.kmnist", "svhn": "harness.data.svhn", "mnist-expanded": "harness.data.mnist_expanded",
    "affnist": "harness.data.affnist", "affnist-gen": "harness.data.affnist_gen", "multimnist": "harness.data.multimnist",
}  # fmt: skip
NAMES = tuple(_MODULES)
_SHOWN = 2  # selects the overlays to draw: differs from validation and test


def source(name: str, key: str = "data.name") -> Source:
    """The data set's source; `key` is the suite key that named it. Raises `UserError` for an unknown name."""
    if name not in _MODULES:
        raise UserError(f'{key}: unknown data set "{name}"{nearest(name, NAMES)}')
    return importlib.import_module(_MODULES[name]).SOURCE


def info(name: str, key: str = "data.name") -> Info:
    """What the data set is, without touching a file. Raises `UserError` for an unknown name."""
    return source(name, key).info


def shift(config: DataConfig) -> int:
    """The most pixels that a training image is shifted each way: `data.augment.shift`, else the data set's default."""
    return info(config.name).shift if config.augment.shift is None else config.augment.shift


def sizes(config: DataConfig) -> tuple[int, int, int]:
    """Numbers of training, validation and test images of `config`, without touching a file.

    Raises `UserError` naming the key, what was requested and what is available.
    """
    return split_sizes(info(config.name), config, _tested(config))


def shape(config: DataConfig) -> tuple[int, int, int]:
    """Height, width and channels of the images of `config`, without touching a file. Raises `UserError` for its canvas."""
    return image_shape(info(config.name), config)


def model(config: DataConfig, model: ModelConfig) -> ModelSpec:
    """The architecture for the data set's images and classes, without touching a file.

    Raises `UserError` for a bad canvas, `ValueError` (pydantic's `ValidationError`) if model and images do not fit.
    """
    found = info(config.name)
    return ModelSpec(**model.model_dump(), image=shape(config), classes=found.classes, overlaid=found.overlaid)


def data_dir(config_dir: str | None) -> Path:
    """Where data files are kept: `data.dir`, else the variable `CAPSBENCH_DATA`, else the platform's cache."""
    chosen = config_dir or os.environ.get("CAPSBENCH_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("capsbench")


def ensure(config: DataConfig, *, progress: bool) -> None:
    """Fetches and verifies what `load` needs, with a bar on stderr if `progress`. Raises `UserError` if it cannot."""
    sizes(config)
    directory = data_dir(config.dir)
    source(config.name).ensure(directory, progress=progress)
    if config.test_from:
        other = source(config.test_from)
        (other.ensure_test if isinstance(other, PartialSource) else other.ensure)(directory, progress=progress)


def load(config: DataConfig) -> Dataset:
    """The data set's verified images, cut to the sizes of `config`; never uses the network.

    Raises `UserError` for sizes that do not exist, and for files that are missing or corrupt.
    """
    sizes(config)
    found, directory = source(config.name), data_dir(config.dir)
    training_part, test_part = found.read(directory)
    if config.test_from is None:
        return select(found.info, config, training_part, test_part)
    other = source(config.test_from)
    theirs = other.read_test(directory) if isinstance(other, PartialSource) else other.read(directory)[1]
    dataset = select(found.info, config, training_part, theirs, _tested(config))
    return replace(dataset, own_test=test_images(found.info, config, test_part))


def shown(config: DataConfig, split: Split) -> Split:
    """Training images as the network sees them: overlaid if each shows several digits."""
    about = info(config.name)
    return overlaid(about, split, _SHOWN) if about.overlaid > 1 else split


def list_datasets(directory: str | None = None) -> list[dict[str, Any]]:
    """One JSON-able row per data set: name, image, classes, overlaid (digits per image), split sizes, embedded,
    state, path, detail, source.

    `state` is "embedded", "cached" (verified), "test only", "absent" or "corrupt"; `detail` says what is wrong, else None.
    """
    return [_row(name, data_dir(directory)) for name in NAMES]


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
    found = source(name)
    state, detail = "embedded" if found.info.embedded else "cached", None
    try:
        found.read(directory)
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
    "data_dir", "ensure", "fetch", "info", "list_datasets", "load", "model", "release", "select", "shape", "shift",
    "shown", "sizes", "source",
]  # fmt: skip
