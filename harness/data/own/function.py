"""`data.name: module`: a function of one's own that returns arrays, for whatever no other format reads."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np

from harness.data.own.arrays import collected
from harness.data.own.collected import Collected
from harness.data.own.npz import NAMES_HELP, sorted_out
from harness.errors import UserError
from harness.spec.trial import DataConfig

CONTRACT = (
    f"a dictionary with the arrays {NAMES_HELP}; "
    "or a tuple (images, labels), or (images, labels, test_images, test_labels)"
)
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_TUPLES = {2: ("images", "labels"), 4: ("images", "labels", "test_images", "test_labels")}


def files(config: DataConfig) -> list[Path]:
    """None: the arrays themselves are the content."""
    return []


def arrays(config: DataConfig) -> dict[str, np.ndarray]:
    """Calls the function. Raises `UserError` if that fails or returns something else than `CONTRACT` says."""
    target = config.module or ""
    if not _TARGET.fullmatch(target) or ".py:" in target:
        file, _, function = target.rpartition(":")
        of_file = file.endswith(".py") and "/" not in file
        hint = f"; for the file {file} that is {file.removesuffix('.py')}:{function}" if of_file else ""
        raise UserError(f'data.module: "{target}" does not name a function: expected package.module:function{hint}')
    module, _, name = target.partition(":")
    function = getattr(_imported(module), name, None)
    if not callable(function):
        what = f"has no {name}" if function is None else f"has a {name} of type {type(function).__name__}, no function"
        raise UserError(f"data.module: {module} {what}")
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            found = function()
    except (Exception, SystemExit) as error:
        raise UserError(f"data.module: {target} failed: {_said(error)}") from error
    return _checked(found, target)


def content_sha256(found: Mapping[str, np.ndarray]) -> str:
    """Over names, types, shapes and contents."""
    sha = hashlib.sha256()
    for name, array in sorted(found.items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(
            np.ascontiguousarray(array).tobytes() if array.dtype.kind == "U" else np.ascontiguousarray(array).data
        )
    return sha.hexdigest()


def collect(config: DataConfig, found: Mapping[str, np.ndarray] | None = None) -> Collected:
    """What the function gives. Raises `UserError`."""
    parts, classes = sorted_out(arrays(config) if found is None else found, f"{config.module}")
    return collected(parts, config, classes)


def _imported(module: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:  # the command `capsbench`, unlike `python -m`, does not look here
        sys.path.append(here)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        hint = "; run the command where it is, or put its folder in PYTHONPATH" if _is_absent(error, module) else ""
        raise UserError(f"data.module: importing {module} failed: {_said(error)}{hint}") from error
    finally:
        if added:
            sys.path.remove(here)


def _is_absent(error: BaseException, module: str) -> bool:
    return isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")


def _checked(found: Any, target: str) -> dict[str, np.ndarray]:
    if isinstance(found, tuple) and len(cast(tuple[Any, ...], found)) in _TUPLES:
        each = cast(tuple[Any, ...], found)
        if len(each) == 2 and all(isinstance(pair, tuple) and len(cast(tuple[Any, ...], pair)) == 2 for pair in each):
            each = (*each[0], *each[1])  # ((x, y), (x, y)), as Keras's loaders give them
        found = dict(zip(_TUPLES[len(each)], each, strict=True))
    if not isinstance(found, Mapping):
        raise UserError(f"data.module: {target} returned {_described(found)}; expected {CONTRACT}")
    checked: dict[str, np.ndarray] = {}
    for name, value in cast(Mapping[Any, Any], found).items():
        try:
            array = np.asarray(value)
        except Exception as error:
            raise UserError(f"data.module: {target}: {name} is no array: {_said(error)}") from error
        if array.dtype.kind == "O":
            raise UserError(
                f"data.module: {target}: {name} holds Python objects, or rows of different lengths; expected numbers, all "
                "pictures of one size"
            )
        checked[str(name)] = array
    return checked


def _described(found: Any) -> str:
    if isinstance(found, tuple):
        return f"a tuple of {len(cast(tuple[Any, ...], found))}"
    return "nothing (None)" if found is None else f"a {type(found).__name__}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
