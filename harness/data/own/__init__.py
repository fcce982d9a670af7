"""One's own pictures: `data.name` is a format, `data.path` says where they are. Read when a suite is, decoded once.

`resolve` gives what was found (`OwnData`, recorded with each trial); `read` gives the pictures to whoever trains on
them, from the store. To add a format, write a module with `files` and `collect`, and a line in `_FORMATS` and `KEYS`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import unicodedata
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import progress as steps
from harness.data.base import Info, Split
from harness.data.files import CorruptFile
from harness.data.frame import in_words, is_random, whole
from harness.errors import UserError
from harness.spec.trial import DataConfig, OwnData

if TYPE_CHECKING:
    from harness.data.own.collected import Collected
    from harness.data.own.store import Stored

_FORMATS = {
    "folder": "harness.data.own.folder", "npz": "harness.data.own.npz", "csv": "harness.data.own.table",
    "idx": "harness.data.own.idx", "module": "harness.data.own.function",
}  # fmt: skip
FORMATS = tuple(_FORMATS)
"""The values of `data.name` that mean one's own files."""
_SHARED = frozenset(("classes", "channels", "split", "resize", "fit", "crop", "pad"))
KEYS = {
    "folder": _SHARED | {"path", "test_path"}, "npz": _SHARED | {"path", "test_path"},
    "csv": _SHARED | {"path", "test_path", "shape", "label_column"}, "idx": _SHARED | {"path", "test_path"},
    "module": _SHARED | {"module"},
}  # fmt: skip
"""Which of the settings for one's own files each format has."""
ALL_KEYS = frozenset[str].union(*KEYS.values())
_OF_ANY_DATA = {"resize", "fit", "crop", "pad"}
_VERSION = 1  # of the readers: another one reads the same files again
_DECIDE = ("classes", "channels", "shape", "label_column", "resize", "fit", "crop", "pad")
"""Settings that decide which pixels and labels are read from the same files."""


def check_keys(config: DataConfig) -> None:
    """Raises `UserError` for a setting that the data set of `config` does not have, or one that is missing."""
    if config.classes and len({*config.classes}) < len(config.classes):
        twice = next(each for each in config.classes if config.classes.count(each) > 1)
        raise UserError(f'data.classes: "{twice}" is there twice; drop one')
    default = DataConfig(name=config.name)
    own = KEYS.get(config.name, _OF_ANY_DATA)
    for key in sorted(ALL_KEYS - {*own}):
        if getattr(config, key) != getattr(default, key):
            has = f"it has {', '.join(sorted(own))}" if config.name in KEYS else f"it is for {', '.join(_with(key))}"
            raise UserError(f"data.{key}: {config.name} has no such setting; {has}")
    if config.fit != "stretch" and config.resize is None:
        raise UserError("data.fit: says how data.resize fits the images, but that is not set; set it, or drop this")
    needed = "module" if config.name == "module" else "path"
    if config.name in KEYS and not getattr(config, needed):
        raise UserError(f"data.{needed}: missing; {config.name} needs {_NEEDED.get(config.name, 'a file')}")


_NEEDED = {
    "folder": "a folder that has a folder of pictures for each class",
    "npz": "an NPZ file",
    "csv": "a CSV file",
    "idx": "a folder with IDX files",
    "module": "a function, as package.module:function",
}


def resolve(config: DataConfig, directory: Path, *, progress: bool = False) -> OwnData:
    """Reads what `config` names and stores it decoded, unless that is stored already.

    Raises `UserError` naming the key or the file: nothing there, broken, not as expected, nothing to write to.
    """
    found, files = _found(config, directory, progress)
    try:
        return _facts(config, found, found.folder.name, files)
    except CorruptFile:
        _forget(found)
        found, files = _found(config, directory, progress)
        return _facts(config, found, found.folder.name, files)


def info(config: DataConfig, own: OwnData) -> Info:
    """The description of what was found."""
    return Info(
        name=config.name,
        image=own.image,
        classes=len(own.classes),
        train=own.train,
        validation=own.validation,
        test=own.test,
        embedded=False,
        source=f"{config.module or config.path}{in_words(config)}{_drawn(own)}",
        licence="your own",
        citation="",
        class_names=own.classes,
        apart="its validation pictures have files of their own" if own.is_apart else "",
        is_framed=True,
    )


def _drawn(own: OwnData) -> str:
    """ ", test and validation pictures drawn from those for training"; "" if all have files of their own."""
    return f", {' and '.join(own.drawn)} pictures drawn from those for training" if own.drawn else ""


def in_short(own: OwnData) -> str:
    """ "21 + 3 + 6 pictures of 32x32x3, 3 classes: blue, green, red": training, validation, test."""
    counts = " + ".join(f"{count:,}" for count in (own.train, own.validation, own.test))
    names = ", ".join(own.classes[:12]) + (", ..." if len(own.classes) > 12 else "")
    return f"{counts} pictures of {'x'.join(map(str, own.image))}{_drawn(own)}; {len(own.classes):,} classes: {names}"


def ensure(config: DataConfig, directory: Path, *, progress: bool) -> None:
    """Makes sure that what was found is stored, intact. Raises `UserError` if it is not and cannot be read again."""
    from harness.data.own import store

    assert config.own
    there = store.stored(config.own.key, directory)
    if there is not None:
        if store.is_sound(there):
            return
        _forget(there)
    _again(config, directory, progress)


def read(config: DataConfig, directory: Path) -> tuple[Split, Split]:
    """The training part, validation pictures last, and the test part. Raises `UserError`."""
    from harness.data.own import store

    assert config.own
    found = store.stored(config.own.key, directory) or _again(config, directory, False)
    training, test = store.read(found)
    division = _division(config, found, training.labels)
    return training.take(division.training), (training if test is None else test).take(division.test)


def _forget(found: Stored) -> None:
    """What is stored counts as not there, so that it is read again."""
    for pack in found.packs:
        pack.manifest.unlink(missing_ok=True)


def _again(config: DataConfig, directory: Path, progress: bool) -> Stored:
    """Reads the files once more. Raises `UserError` if they are gone or hold other pictures by now."""
    assert config.own
    where = config.module or config.path
    try:
        found, _ = _found(config, directory, progress)
    except UserError as error:
        raise UserError(
            f"{where}: the pictures that this trial was planned with are stored neither there nor in "
            f"{directory / 'own' / config.own.key}: {error}"
        ) from error
    if found.sha256 != config.own.sha256:
        raise UserError(
            f"{where}: other pictures than those that this trial was planned with: they were changed since. Put the former "
            "ones back, or run the suite again: its trials are then new ones"
        )
    return found


def _found(config: DataConfig, directory: Path, progress: bool) -> tuple[Stored, str]:
    """What is stored of the files, after reading them if need be, and the hash of the files."""
    from harness.data.own import store

    check_keys(config)
    if is_random(config):
        config = whole(config)
    reader: Any = importlib.import_module(_FORMATS[config.name])
    if config.name == "module":
        arrays = reader.arrays(config)
        files = reader.content_sha256(arrays)
        collect: Callable[[], Collected] = lambda: reader.collect(config, arrays)  # noqa: E731
    else:
        files = _files_sha256(config, reader.files(config))
        collect = lambda: reader.collect(config)  # noqa: E731
    settings = {key: getattr(config, key) for key in _DECIDE}
    recipe = json.dumps([config.name, _VERSION, files, settings], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if (found := store.stored(key, directory)) is not None:
        return found, files
    try:
        with steps.task("reading pictures", in_logs_alone=True) if progress else nullcontext():
            found = store.store(key, collect(), directory, progress=progress)
    except MemoryError:
        raise UserError(
            f"{config.module or config.path}: unpacked, it is more than the memory holds. If it really is that large, give a "
            "folder of pictures; otherwise fetch or write it anew"
        ) from None
    if config.name != "module" and _files_sha256(config, reader.files(config)) != files:
        (found.folder / "facts.json").unlink(missing_ok=True)
        raise UserError(f"{config.path}: the files changed while they were read; run the command again")
    return found, files


def _files_sha256(config: DataConfig, files: list[Path]) -> str:
    """Over the names and contents of the files. Names are within the folder: a moved folder is the same."""
    sha = hashlib.sha256()
    tops = [Path(each).expanduser().absolute() for each in (config.path, config.test_path) if each]
    for path in files:
        which, top = next(
            ((at, each) for at, each in enumerate(tops) if path.is_relative_to(each) and path != each),
            (tops.index(path) if path in tops else 0, path.parent),
        )
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        sha.update(f"{which} {path.relative_to(top).as_posix()} {content}\n".encode("utf-8", "surrogateescape"))
    return sha.hexdigest()


def _facts(config: DataConfig, found: Stored, key: str, files: str) -> OwnData:
    for name in found.classes:
        if odd := [each for each in name if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")]:
            what = "bytes that are not UTF-8" if "\ud800" <= odd[0] <= "\udfff" else f"U+{ord(odd[0]):04X}"
            raise UserError(
                f"{config.module or config.path}: the class {name!a} has {what} in its name, which tables and figures cannot "
                "show; rename it"
            )
    division = _division(config, found, found.labels())
    if not len(division.test):
        once = " (copies of a picture count once)" if found.copies else ""
        raise UserError(
            f"{config.module or config.path}: no picture to test on: no class has more than one{once}; add pictures, or files "
            "of test pictures"
        )
    is_held_out = division.validation and not found.counts.get("validation")
    return OwnData(
        image=found.image,
        classes=found.classes,
        train=len(division.training) - division.validation,
        validation=division.validation,
        test=len(division.test),
        sha256=found.sha256,
        key=key,
        files_sha256=files,
        is_apart=bool(found.counts.get("validation")),
        drawn=(*(("test",) if division.is_drawn else ()), *(("validation",) if is_held_out else ())),
        notes=tuple(found.notes),
    )


def _division(config: DataConfig, found: Stored, labels: np.ndarray) -> Any:
    from harness.data.own.division import divided

    copies = [[index for index in group if index < found.trained] for group in found.copies]
    return divided(
        labels,
        found.counts.get("validation", 0),
        found.counts.get("test") or None,
        [group for group in copies if len(group) > 1],
        config.split,
    )


def _with(key: str) -> list[str]:
    return [name for name, keys in KEYS.items() if key in keys]
