"""The data sets, one module each, imported only when asked for: sizes without IO, fetching ahead of a run, loading.

To add one: a module with a `SOURCE` (see `harness.data.base.Source`) and a line in `_MODULES`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import platformdirs

from harness.config import DataConfig
from harness.data.base import Dataset, Info, Source, Split, image_shape, select, split_sizes
from harness.data.files import MissingFiles
from harness.errors import UserError, nearest

_MODULES = {"digits": "harness.data.digits", "mnist": "harness.data.mnist"}
NAMES = tuple(_MODULES)


def source(name: str) -> Source:
    """The data set's source. Raises `UserError` for an unknown name."""
    if name not in _MODULES:
        raise UserError(f'data.name: unknown data set "{name}"{nearest(name, NAMES)}')
    return importlib.import_module(_MODULES[name]).SOURCE


def info(name: str) -> Info:
    """What the data set is, without touching a file. Raises `UserError` for an unknown name."""
    return source(name).info


def sizes(config: DataConfig) -> tuple[int, int, int]:
    """Numbers of training, validation and test images of `config`, without touching a file.

    Raises `UserError` naming the key, what was asked and what there is.
    """
    return split_sizes(info(config.name), config)


def shape(config: DataConfig) -> tuple[int, int, int]:
    """Height, width and channels of the images of `config`, without touching a file. Raises `UserError` for its canvas."""
    return image_shape(info(config.name), config)


def data_dir(config_dir: str | None) -> Path:
    """Where data files are kept: `data.dir`, else the environment's `CAPSBENCH_DATA`, else the platform's cache."""
    chosen = config_dir or os.environ.get("CAPSBENCH_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("capsbench")


def ensure(config: DataConfig, *, progress: bool) -> None:
    """Fetches and verifies what `load` needs, with a bar on stderr if `progress`. Raises `UserError` if it cannot."""
    sizes(config)
    source(config.name).ensure(data_dir(config.dir), progress=progress)


def load(config: DataConfig) -> Dataset:
    """The data set's verified images, cut to the sizes of `config`; never uses the network.

    Raises `UserError` for sizes that do not exist, and for files that are missing or corrupt.
    """
    found = source(config.name)
    split_sizes(found.info, config)
    return select(found.info, config, *found.read(data_dir(config.dir)))


def list_datasets(directory: str | None = None) -> list[dict[str, Any]]:
    """One JSON-able row a data set: name, image, classes, split sizes, embedded, state, path, detail, source.

    `state` is "embedded", "cached" (verified), "absent" or "corrupt"; `detail` says what is wrong, else None.
    """
    return [_row(name, data_dir(directory)) for name in NAMES]


def fetch(name: str, directory: str | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Makes the data set available in `directory` and returns its row of `list_datasets`. Raises `UserError`."""
    folder = data_dir(directory)
    source(name).ensure(folder, progress=progress)
    return _row(name, folder)


def _row(name: str, directory: Path) -> dict[str, Any]:
    found = source(name)
    state, detail = "embedded" if found.info.embedded else "cached", None
    try:
        found.read(directory)
    except MissingFiles as error:
        state, detail = "absent", str(error)
    except UserError as error:
        state, detail = "corrupt", str(error)
    return {
        "name": name,
        "image": list(found.info.image),
        "classes": found.info.classes,
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
    "NAMES", "Dataset", "Info", "Source", "Split",
    "data_dir", "ensure", "fetch", "info", "list_datasets", "load", "select", "shape", "sizes", "source",
]  # fmt: skip
