"""`data.name: npz`: NumPy arrays in one archive, by the names that people give them; nothing is ever unpickled."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.own.arrays import collected, instead, the_file
from harness.data.own.collected import Arrays, Collected, Part
from harness.errors import UserError
from harness.sniff import what_is
from harness.spec.trial import DataConfig

_EXPECTED = "an NPZ file (numpy.savez) with the arrays images and labels"
_PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "tr": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "te": "test",
}  # fmt: skip
_IMAGES = {"x", "images", "image", "data", "imgs", "pixels", "pictures"}
_LABELS = {"y", "labels", "label", "targets", "target"}
_CLASSES = {"classes", "class_names", "label_names", "names"}
NAMES_HELP = (
    "images and labels (or x and y), and for parts train_images, train_labels, val_..., test_... (or x_train, y_test)"
)


def files(config: DataConfig) -> list[Path]:
    """The archive, and that of `data.test_path`."""
    found = [the_file(config.path, "data.path", _EXPECTED)]
    return [*found, the_file(config.test_path, "data.test_path", _EXPECTED)] if config.test_path else found


def collect(config: DataConfig) -> Collected:
    """What the archives hold. Raises `UserError`."""
    first, *rest = files(config)
    parts, classes = sorted_out(_arrays(first), str(first))
    for path in rest:
        theirs, _ = sorted_out(_arrays(path), str(path), alone="test")
        if "test" in parts:
            raise UserError(f"data.test_path: {first} has test arrays of its own; leave one of the two out")
        if "test" not in theirs:
            raise UserError(f"data.test_path: {path} has no test arrays; expected {NAMES_HELP}")
        parts["test"] = theirs["test"]
    return collected(parts, config, classes)


def sorted_out(
    arrays: Mapping[str, np.ndarray], source: str, alone: Part = "train"
) -> tuple[dict[Part, Arrays], tuple[str, ...] | None]:
    """Which array is what, by its name, and the names of the classes if there are any.

    Args:
        alone: the part of arrays whose names do not say one.
    """
    images: dict[Part, str] = {}
    labels: dict[Part, str] = {}
    classes: tuple[str, ...] | None = None
    known = dict(arrays)
    if {*known} == {"arr_0", "arr_1"}:  # numpy.savez(file, images, labels)
        big, small = sorted(known, key=lambda name: -known[name].ndim)
        known = {"images": known[big], "labels": known[small]}
    for name, array in known.items():
        words = [word for word in re.split(r"[^a-z]+|(?<=[a-z])(?=\d)", _snake(name)) if word]
        part = next((_PARTS[word] for word in words if word in _PARTS), alone)
        if "_".join(words) in _CLASSES:
            classes = tuple(map(str, array.reshape(-1).tolist()))
            continue
        for kinds, found in ((_LABELS, labels), (_IMAGES, images)):
            if kinds & {*words}:
                if part in found:
                    raise UserError(f"{source}: {found[part]} and {name} both look like the {part} part's; keep one")
                found[part] = name
                break
    told = ", ".join(f"{name} ({'x'.join(map(str, array.shape)) or 'a number'})" for name, array in arrays.items())
    if alone not in images and "train" not in images:
        raise UserError(f"{source}: no array of pictures by its name; found {told or 'nothing'}; expected {NAMES_HELP}")
    for part, name in images.items():
        if part not in labels:
            raise UserError(f"{source}: no labels for {name}; found {told}; expected {NAMES_HELP}")
    if "train" not in images and alone == "train":
        raise UserError(f"{source}: nothing to train on; found {told}; expected {NAMES_HELP}")
    order: tuple[Part, ...] = ("train", "validation", "test")
    parts = {
        part: Arrays(np.asarray(known[images[part]]), np.asarray(known[labels[part]]), f"{source}, {images[part]}")
        for part in order
        if part in images
    }
    return parts, classes


def _snake(name: str) -> str:
    """ "XTrain" and "x-train" -> "x_train"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _array(archive, name, path) for name in archive.files}
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        if zipfile.is_zipfile(path):
            raise UserError(
                f"{path}: damaged ({' '.join(str(error).split())}); write it anew with numpy.savez"
            ) from None
        if what_is(path).startswith("a NumPy archive"):
            raise UserError(f"{path}: truncated: an NPZ file whose end is missing; fetch or write it anew") from None
        raise UserError(instead(path, _EXPECTED)) from None


def _array(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise UserError(
                f"{path}: the array {name} holds Python objects (pickled), which are not read: loading them can run any "
                "code. Write it anew: pictures of one size as one array (numpy.stack), labels as numbers or as text "
                "(numpy.array(labels, str))"
            ) from None
        raise UserError(f"{path}: the array {name} is damaged ({error}); write the file anew") from None
    except (OSError, EOFError, zipfile.BadZipFile, Exception) as error:
        raise UserError(f"{path}: the array {name} is damaged ({error}); fetch or write the file anew") from None
