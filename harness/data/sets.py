"""The data sets by name: the built-in ones, one module each, and those that other distributions register.

To add one here, write a module with a `SOURCE` (see `harness.data.base.Source`) and a line in `_BUILT_IN`. Another
distribution adds one by an entry point of the group `capsbench.data`.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import numpy as np

from harness.data.base import Info, Source, Split
from harness.errors import BrokenPlugin, UserError, nearest
from harness.plugins import registered

GROUP = "capsbench.data"
"""The entry-point group by which a distribution registers its data sets: `name = "package.module:SOURCE"`."""

_BUILT_IN = {
    "digits": "harness.data.digits", "mnist": "harness.data.mnist", "fashion-mnist": "harness.data.fashion_mnist",
    "kmnist": "harness.data.kmnist", "svhn": "harness.data.svhn", "cifar10": "harness.data.cifar10",
    "mnist-expanded": "harness.data.mnist_expanded", "affnist": "harness.data.affnist",
    "affnist-gen": "harness.data.affnist_gen", "multimnist": "harness.data.multimnist",
}  # fmt: skip
NAMES = tuple(_BUILT_IN)
"""The built-in data sets."""


def names() -> tuple[str, ...]:
    """The built-in data sets, then those that installed distributions register; built-in names cannot be overridden."""
    return (*_BUILT_IN, *sorted(_registered(tuple(sys.path))))


def is_built_in(name: str) -> bool:
    return name in _BUILT_IN


def is_registered(name: str) -> bool:
    """Whether an installed distribution registers it, working or broken."""
    return name in _registered(tuple(sys.path))


def target(name: str) -> str:
    """Where a registered data set is: "package.module:OBJECT". Imports nothing."""
    return _registered(tuple(sys.path))[name].value


def source(name: str, key: str = "data.name", others: tuple[str, ...] = ()) -> Source:
    """The data set's source; `key` is the suite key that named it, `others` are further names to suggest.

    Raises `UserError` for an unknown name, and for a broken plug-in, naming it.
    """
    if name in _BUILT_IN:
        return importlib.import_module(_BUILT_IN[name]).SOURCE
    point = _registered(tuple(sys.path)).get(name)
    if point is None:
        raise UserError(f'{key}: unknown data set "{name}"{nearest(name, (*names(), *others))}')
    return _loaded(name, point.value)


@dataclass(frozen=True)
class _Checked:
    """A registered source; whatever it raises that is no `UserError`, or gives that is no data, names it."""

    inner: Any
    info: Info

    def ensure(self, directory: Path, *, progress: bool) -> None:
        """As the source's own."""
        self._call("ensure", directory, progress=progress)

    def read(self, directory: Path) -> tuple[Split, Split]:
        """As the source's own, checked against `info`."""
        found: Any = self._call("read", directory)
        if not isinstance(found, tuple) or len(cast(tuple[Any, ...], found)) != 2:
            what = cast(Any, found).__class__.__name__
            raise BrokenPlugin(f'data set "{self.info.name}": read() gave {what}; expected two Splits')
        counts = self.info.train + self.info.validation, self.info.test
        for part, count, name in zip(cast(tuple[Any, ...], found), counts, ("training", "test"), strict=True):
            if wrong := _misfit(part, count, self.info):
                raise BrokenPlugin(f'data set "{self.info.name}": its {name} part has {wrong}')
        return cast(tuple[Split, Split], found)

    def _call(self, method: str, *given: Any, **named: Any) -> Any:
        try:
            return getattr(self.inner, method)(*given, **named)
        except UserError:
            raise
        except Exception as error:
            raise BrokenPlugin(f'data set "{self.info.name}": {method}() failed: {_said(error)}') from error


def _misfit(part: Any, count: int, info: Info) -> str | None:
    """What of a part is not as `info` says; None if all is."""
    given = getattr(part, "images", None), getattr(part, "labels", None)
    if not all(isinstance(each, np.ndarray) for each in given):
        return f"no arrays images and labels (a {type(part).__name__}); expected a harness.data.base.Split"
    images, labels = map(np.asarray, given)
    if images.dtype != np.uint8 or images.shape != (count, *info.image):
        expected = "x".join(map(str, (count, *info.image)))
        return (
            f"images of {images.dtype} {'x'.join(map(str, images.shape))}; expected uint8 {expected}, as its info says"
        )
    if labels.shape != (count,) or labels.dtype != np.int64:
        return f"labels of {labels.dtype} {'x'.join(map(str, labels.shape))}; expected int64 {count}"
    if count and not (labels.min() >= 0 and labels.max() < info.classes):
        return f"labels from {labels.min()} to {labels.max()}; expected 0 to {info.classes - 1}"
    return None


@cache
def _registered(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The entry points by name; looked up once while `sys.path` does not change."""
    return {point.name: point for point in registered(GROUP) if point.name not in _BUILT_IN}


@cache
def _loaded(name: str, where: str) -> Source:
    module, _, attribute = where.partition(":")
    try:
        holder = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way it likes
        raise BrokenPlugin(f'data set "{name}": importing {module} failed: {_said(error)}') from error
    found: Any = getattr(holder, attribute or "SOURCE", None)
    try:
        found = found() if isinstance(found, type) else found
        info = getattr(found, "info", None)
    except Exception as error:
        raise BrokenPlugin(f'data set "{name}": {where} failed: {_said(error)}') from error
    if not isinstance(info, Info) or not all(callable(getattr(found, each, None)) for each in ("ensure", "read")):
        raise BrokenPlugin(
            f'data set "{name}": {where} is {type(found).__name__}; expected an object with info, ensure and read: see '
            "harness.data.base.Source"
        )
    if wrong := _contradiction(name, info):
        raise BrokenPlugin(f'data set "{name}": {where}: {wrong}')
    return _Checked(found, info)


def _contradiction(name: str, info: Info) -> str | None:
    if info.name != name:
        return f'its info calls it "{info.name}"; give both the same name'
    if len(info.class_names) != info.classes or len({*info.class_names}) != info.classes:
        return f"its info has {info.classes} classes, but {len({*info.class_names})} different class names"
    if info.classes < 2 or info.overlaid != 1:
        return "its info must have at least 2 classes, and one picture in an image (overlaid: 1)"
    if len(info.image) != 3 or min(info.image) < 1 or min(info.train, info.test) < 1 or info.validation < 0:
        return f"its info has images of {info.image} and {info.train} + {info.validation} + {info.test} of them"
    return None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
