"""`data.name: idx`: one's own IDX files, two or four, by the names that MNIST's have or names like these."""

from __future__ import annotations

import re
from pathlib import Path

from harness.data.files import CorruptFile
from harness.data.files import content as uncompressed
from harness.data.idx import parse
from harness.data.own.arrays import collected
from harness.data.own.collected import Arrays, Collected, Part
from harness.errors import UserError
from harness.spec.trial import DataConfig

_NAMES = "train-images-idx3-ubyte and train-labels-idx1-ubyte, and t10k-... or test-... for test pictures (or with .gz)"
_IMAGES = re.compile(r"(?i)(images?)([-_.]idx\d)?([-_.]u?byte)?(\.gz)?$")
_TEST = re.compile(r"(?i)(^|[-_.])(t10k|test)[-_.]")
_VALIDATION = re.compile(r"(?i)(^|[-_.])(val|valid|validation)[-_.]")


def files(config: DataConfig) -> list[Path]:
    """All files that are read, in order."""
    return [path for pair in _pairs(config).values() for path in pair]


def collect(config: DataConfig) -> Collected:
    """What the files hold. Raises `UserError`."""
    parts: dict[Part, Arrays] = {}
    for part, (images, labels) in _pairs(config).items():
        try:
            pictures, classes = (parse(uncompressed(path), str(path), any_type=True) for path in (images, labels))
        except CorruptFile as error:
            raise UserError(str(error)) from None
        if pictures.ndim < 3 or classes.ndim != 1:
            raise UserError(
                f"{images} holds {pictures.ndim} axes, {labels} {classes.ndim}; expected N x height x width "
                "pictures and N labels"
            )
        parts[part] = Arrays(pictures, classes, str(images))
    return collected(parts, config)


def _pairs(config: DataConfig) -> dict[Part, tuple[Path, Path]]:
    """Images and labels of each part."""
    found = _in(config.path, "data.path")
    if config.test_path is not None:
        test = _in(config.test_path, "data.test_path", alone="test")
        if "test" in found and found["test"] != test.get("test"):
            raise UserError("data.test_path: the folder of data.path has test files too; leave one of the two out")
        if "test" not in test:
            raise UserError(f"data.test_path: no test pictures in {config.test_path}; expected {_NAMES}")
        found["test"] = test["test"]
    if "train" not in found:
        raise UserError(f"data.path: nothing to train on in {config.path}; expected {_NAMES}")
    return {part: found[part] for part in ("train", "validation", "test") if part in found}


def _in(given: str | None, key: str, alone: Part = "train") -> dict[Part, tuple[Path, Path]]:
    path = Path(given or "").expanduser().absolute()
    try:
        if path.is_dir():
            names = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        elif path.is_file():
            names = [path]
        else:
            raise UserError(f"{key}: there is no file or folder {path}; expected {_NAMES}")
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or error})") from None
    found: dict[Part, tuple[Path, Path]] = {}
    for images in names:
        if not _IMAGES.search(images.name):
            continue
        part: Part = (
            "test" if _TEST.search(images.name) else "validation" if _VALIDATION.search(images.name) else
            "train" if re.search(r"(?i)train", images.name) else alone
        )  # fmt: skip
        labels = _labels_of(images)
        if labels is None:
            raise UserError(f"{images}: no labels beside it; expected {_labels_name(images.name)}")
        if part in found and found[part][0].name.removesuffix(".gz") != images.name.removesuffix(".gz"):
            raise UserError(
                f"{key}: {path} has several files of {part} pictures: {found[part][0].name} and {images.name}; give a folder "
                "with one set of files, or the file itself"
            )
        found.setdefault(part, (images, labels))
    if not found:
        there = ", ".join(each.name for each in names[:6]) or "nothing"
        raise UserError(f"{key}: no IDX files of pictures in {path}, by their names; found {there}; expected {_NAMES}")
    return found


def _labels_name(images: str) -> str:
    return re.sub(r"(?i)idx\d", "idx1", re.sub(r"(?i)images?(?!.*image)", "labels", images))


def _labels_of(images: Path) -> Path | None:
    name = _labels_name(images.name)
    candidates = [name, name.removesuffix(".gz"), f"{name}.gz", name.replace("labels", "label")]
    return next((images.with_name(each) for each in candidates if images.with_name(each).is_file()), None)
