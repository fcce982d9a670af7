"""What a format of one's own files gives: pictures in parts, class names, and what a user should know about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.data.base import Split
from harness.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt8

Part = str
"""train, validation or test."""
MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Collected:
    """All that was found. `blocks` decodes: each block is uint8 (N, H, W, C) with its labels, in order."""

    image: tuple[int, int, int]  # height, width, channels, as used
    classes: tuple[str, ...]
    counts: dict[Part, int]
    blocks: Callable[[Part], Iterator[Split]]
    named: Callable[[Part, int], str]  # what to call a picture in a message
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Arrays:
    """The pictures of one part, as a file has them: any of the usual arrangements and types, labels of any type."""

    images: np.ndarray
    labels: np.ndarray
    source: str  # what to call it in a message


@dataclass(frozen=True)
class Labels:
    """Labels as the classes 0, 1, ..., and the names of these."""

    of: dict[Part, Int64[np.ndarray, " N"]]
    classes: tuple[str, ...]
    notes: list[str]


def in_blocks(
    parts: dict[Part, tuple[UInt8[np.ndarray, "N H W C"], Int64[np.ndarray, " N"]]], size: int = 4096
) -> Callable[[Part], Iterator[Split]]:
    """`Collected.blocks` for pictures that are in memory."""

    def blocks(part: Part) -> Iterator[Split]:
        if part in parts:
            images, labels = parts[part]
            for start in range(0, len(labels), size):
                yield Split(images[start : start + size], labels[start : start + size])

    return blocks


def named_classes(parts: dict[Part, Arrays], given: tuple[str, ...] | None) -> Labels:
    """Labels of any usual kind as classes: whole numbers, text, or one column a class. Names are those `given`, or theirs.

    Raises `UserError` for labels that are none, for one class only, and if `given` does not fit.
    """
    flat = {part: _flat(arrays) for part, arrays in parts.items()}
    trained = np.unique(flat["train"])
    found = np.unique(np.concatenate(list(flat.values())))
    notes: list[str] = []
    if len(found) > MAX_CLASSES:
        raise UserError(
            f"{parts['train'].source}: {len(found):,} different labels; at most {MAX_CLASSES:,}. Are these labels, or pixels?"
        )
    if found.dtype.kind in "iu" and given is not None:
        if found.min() < 0 or found.max() >= len(given):
            raise UserError(
                f"data.classes: {len(given)} names, for labels from 0 to {len(given) - 1}; found labels from {found.min()} "
                f"to {found.max()}"
            )
        classes, values = given, np.arange(len(given))
    elif given is not None:
        if unknown := sorted({*map(str, found)} - {*given}):
            raise UserError(
                f'data.classes: the label "{unknown[0]}" is not among {", ".join(given)}; found {_listed(found)}'
            )
        classes, values = given, np.array(given)
    else:
        classes, values = tuple(map(str, found.tolist())), found
        if found.dtype.kind in "iu" and (found[0], found[-1]) != (0, len(found) - 1):
            notes.append(
                f"labels from {found[0]} to {found[-1]} stand for {len(found)} classes, which keep them as names"
            )
    if len(trained) < 2:
        raise UserError(
            f"{parts['train'].source}: all pictures have the label {trained[0] if len(trained) else 'of none'}; at least two "
            "classes are needed"
        )
    if missing := [str(each) for each in values.tolist() if each not in trained]:
        where = "; it has pictures in the other parts" if {*missing} & {*map(str, found.tolist())} else ""
        notes.append(f"no picture to train on of class {', '.join(missing[:10])}{where}")
    order = np.argsort(values, kind="stable")
    placed = {part: order[np.searchsorted(values[order], labels)].astype(np.int64) for part, labels in flat.items()}
    return Labels(placed, classes, notes)


def _flat(arrays: Arrays) -> np.ndarray:
    """The labels as one axis of whole numbers or of text."""
    labels, source = arrays.labels, arrays.source
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "iuf":
        ones: np.ndarray = (labels == 1).sum(1)
        if not ((labels == 0) | (labels == 1)).all() or (ones != 1).any():
            raise UserError(
                f"{source}: labels of {_shape(labels)}; expected one label a picture, or one column a class with a single 1"
            )
        labels = labels.argmax(1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iufUS":
        raise UserError(
            f"{source}: labels of {_shape(labels)}, {labels.dtype}; expected one whole number or name a picture"
        )
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise UserError(f"{source}: labels that are not whole numbers, such as {_odd(labels)}")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "u":
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels.astype(np.bytes_), "utf-8", "backslashreplace")
    count = len(arrays.images) if arrays.images.ndim else 0
    if len(labels) != count:
        raise UserError(f"{source}: {count:,} pictures, but {len(labels):,} labels")
    return labels


def _odd(labels: np.ndarray) -> str:
    wrong = labels[~(np.isfinite(labels) & (labels == np.rint(labels)))]
    return str(wrong[0])


def _listed(values: np.ndarray) -> str:
    said = ", ".join(map(str, values[:10].tolist()))
    return said + (f" and {len(values) - 10} more" if len(values) > 10 else "")


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape)) or "one number"
